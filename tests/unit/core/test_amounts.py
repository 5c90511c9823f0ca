"""Sizes with units: one reader, strict for options and lenient for devices."""

from __future__ import annotations

import pytest

from peftmark.core.amounts import SIZES, parse_count, parse_seconds, parse_size, read_size
from peftmark.core.errors import UserError
from peftmark.machine.gpus import device


@pytest.mark.parametrize("unit", SIZES)
def test_options_and_devices_read_the_same_sizes(unit):
    number = 3 if unit != "TB" else 2
    bytes_ = number * SIZES[unit]
    assert parse_size("--memory", f"{number}{unit}") == bytes_
    assert parse_size("--memory", f"{number} {unit}") == bytes_
    assert device(f"{number}  {unit.lower()}").memory_bytes == bytes_
    assert read_size(f"{number}{unit.upper()}") == (str(number), unit, bytes_)


@pytest.mark.parametrize(
    "text", ["24gb", "24  GB", "24", "GB", "-1GB", "0GB", "1e3GB", "24GB ", ""]
)
def test_an_option_takes_a_size_as_its_message_writes_it(text):
    with pytest.raises(UserError) as refused:
        parse_size("--memory", text)
    assert refused.value.what == f"--memory: found {text!r}"
    assert refused.value.remedy == (
        "Allowed: a number and one of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB, such as 24GB "
        "(24e9 bytes) or 24GiB."
    )


@pytest.mark.parametrize(("text", "what"), [("0.1B", "little"), ("10TB", "much")])
def test_a_device_of_no_size_says_so(text, what):
    with pytest.raises(UserError, match=f"device {text}: no GPU has so {what} memory"):
        device(text)


def test_decimals_stay_whole():
    assert parse_size("--memory", "0.1MB") == 100_000
    assert parse_count("--parameters", "0.1M") == 100_000
    assert parse_seconds("--seconds", "1.5min") == 90
