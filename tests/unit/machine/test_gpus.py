"""The table of GPUs: its figures, and what a name or a size finds."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from peftmark.core.errors import Exit, UserError
from peftmark.machine.gpus import DEVICES, Device, device

MIB = 2**20


def keys_in(error: UserError) -> set[str]:
    """Keys of the table that stand in an error."""
    return set(re.findall(r"[a-z0-9-]+", str(error))) & set(DEVICES)


# --- the table ----------------------------------------------------------------------------------


@pytest.mark.parametrize("one", DEVICES.values(), ids=DEVICES)
def test_found_by_key_and_title(one):
    squeezed = one.title.replace(" ", "")
    for name in (
        one.key,
        one.title,
        one.key.upper(),
        one.title.lower(),
        squeezed,
        one.title.replace(" ", "-"),
        f"  {one.title.replace(' ', '_')} ",
    ):
        assert device(name) is one, name


@pytest.mark.parametrize("one", DEVICES.values(), ids=DEVICES)
def test_total_is_close_under_the_nominal_size(one):
    nominal = int(re.fullmatch(r".+ (\d+)GB", one.title)[1]) * 2**30
    assert 0.9 * nominal <= one.memory_bytes <= nominal
    assert one.memory_bytes % MIB == 0


def test_rows_are_unique_and_tell_their_source():
    assert [one.key for one in DEVICES.values()] == list(DEVICES)
    assert len({one.title for one in DEVICES.values()}) == len(DEVICES)
    for one in DEVICES.values():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", one.key)
        assert one.source.startswith(("read by us", "nvidia-smi", "rocm-smi", "ROCm's runtime"))


def test_no_row_is_lost_to_a_key_written_twice():
    from peftmark.machine.gpus import _ROWS

    assert len(_ROWS) == len(DEVICES)


def test_totals_that_were_read():
    assert DEVICES["h100-80"].memory_bytes == 81_559 * MIB
    assert DEVICES["h200"].memory_bytes == 143_771 * MIB
    assert DEVICES["rtx-4090"].memory_bytes == 24_564 * MIB
    assert DEVICES["mi300x"].memory_bytes == 206_141_652_992


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("RTX 4090", "rtx-4090"),
        ("rtx4090", "rtx-4090"),
        ("4090", "rtx-4090"),
        ("4090 24GB", "rtx-4090"),
        ("4090 24GiB", "rtx-4090"),
        ("3090", "rtx-3090"),
        ("3090ti", "rtx-3090-ti"),
        ("4060 Ti 16", "rtx-4060-ti-16"),
        ("RTX 6000 Ada", "rtx-6000-ada"),
        ("A6000", "rtx-a6000"),
        ("A100-40", "a100-40"),
        ("a100 40gb", "a100-40"),
        ("A100 SXM 80GB", "a100-80"),
        ("A10", "a10"),
        ("a10g", "a10g"),
        ("L40", "l40"),
        ("h100nvl", "h100-nvl"),
        ("P100", "p100-16"),
        ("GH200", "gh200-96"),
        ("B200 192GB", "b200"),
    ],
)
def test_short_names(name, key):
    assert device(name).key == key


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "rtx-4070-ti-super"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "rtx-pro-6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "rtx-pro-6000"),
        ("Tesla T4", "t4"),
        ("Tesla P100-PCIE-16GB", "p100-16"),
        ("Tesla V100-SXM2-32GB", "v100-32"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA A100 80GB PCIe", "a100-80"),
        ("NVIDIA A100-PCIE-40GB", "a100-40"),
        ("NVIDIA H100 80GB HBM3", "h100-80"),
        ("NVIDIA H100 PCIe", "h100-80"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA GH200 480GB", "gh200-96"),
        ("NVIDIA H200 NVL", "h200"),
        ("NVIDIA B300 SXM6 AC", "b300"),
        ("AMD Instinct MI300X", "mi300x"),
    ],
)
def test_names_that_the_driver_gives(name, key):
    assert device(name).key == key


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("h100", "h100-80"),
        ("nvidia a100", "a100-40"),
        ("V100-SXM2", "v100-16"),
        ("4060 Ti", "rtx-4060-ti-8"),
        ("RTX 6000", "rtx-6000-ada"),
    ],
)
def test_a_name_of_several_stands_for_the_one_with_the_least_memory(name, key):
    assert device(name).key == key


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "-",
        "nvidia",
        "RTX",
        "GB",
        "24",
        "80",
        "ti",
        "sxm4",
        "gpu",
        "RTX 9999",
        "4x4090",
        "RTX 4090 Laptop GPU",
        "H100 24GB",
        "A100 94GB",
        "Quadro RTX 6000",
        "-24GB",
        "24 G",
        "24 Gbit",
        "nan",
        "infGB",
        "1e3GB",
        "24,5GB",
        "٢٤GB",
        "RTX 4090 / 3090",
        "x" * 100_000,
    ],
)
def test_an_unknown_name_is_refused(name):
    with pytest.raises(UserError) as caught:
        device(name)
    error = caught.value
    assert "neither a size nor a GPU" in error.what
    assert "24GB" in error.remedy and "peftmark list" in error.remedy
    assert len(str(error)) < 500
    assert error.code == Exit.USAGE


def test_an_unknown_name_gets_close_ones():
    with pytest.raises(UserError, match=r"did you mean .*rtx-4090"):
        device("RTX 4099")
    with pytest.raises(UserError, match=r"did you mean .*h200"):
        device("H2000")
    with pytest.raises(UserError) as caught:
        device("quantum")
    assert "did you mean" not in str(caught.value)


# --- sizes --------------------------------------------------------------------------------------


def test_a_size_stands_for_a_device():
    assert device("24GB") == Device("24GB", "24GB", 24_000_000_000, "as asked")


@pytest.mark.parametrize(
    ("text", "key", "size"),
    [
        ("24GiB", "24GiB", 24 * 2**30),
        ("40960MiB", "40960MiB", 40_960 * MIB),
        ("23.5 GB", "23.5GB", 23_500_000_000),
        ("24.1GB", "24.1GB", 24_100_000_000),
        (" 24gb ", "24GB", 24_000_000_000),
        ("24gib", "24GiB", 24 * 2**30),
        ("0.5TB", "0.5TB", 500_000_000_000),
        ("1B", "1B", 1),
        ("9999GB", "9999GB", 9_999_000_000_000),
    ],
)
def test_sizes(text, key, size):
    found = device(text)
    assert (found.key, found.title, found.memory_bytes) == (key, key, size)


@pytest.mark.parametrize("text", ["0GB", "0.0MiB", "0.4B"])
def test_a_size_of_nothing_is_refused(text):
    with pytest.raises(UserError, match="so little memory"):
        device(text)


@pytest.mark.parametrize("text", ["10TB", "10000GB", "9.2TiB", "9" * 400 + "GB", "9" * 9_000 + "B"])
def test_a_size_past_any_device_is_refused(text):
    with pytest.raises(UserError, match="so much memory") as caught:
        device(text)
    assert len(str(caught.value)) < 500


@given(st.integers(1, 9_999), st.sampled_from(["MB", "MiB", "GB", "GiB"]))
def test_binary_and_decimal_units(number, unit):
    base = {"MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}[unit]
    if number * base >= 10**13:
        with pytest.raises(UserError):
            device(f"{number}{unit}")
    else:
        assert device(f"{number}{unit}").memory_bytes == number * base


# --- any text -----------------------------------------------------------------------------------

WORDS = sorted(
    {word for one in DEVICES.values() for word in re.split("[ -]", f"{one.key} {one.title}")}
    | {"sxm", "sxm8", "pcie", "hbm3", "nvidia", "gb", "gib", "80", "0", ".", "\ud800", "İ"}
)


@pytest.mark.slow
@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from(WORDS), max_size=60).map("".join)
    | st.from_regex(r"-?[0-9]{0,400}\.?[0-9]* ?[kKMGTi]*[bB]?", fullmatch=True)
)
@example("H100\n")
@example("24GıB")
@example("sxm8" * 25)
def test_any_text_finds_one_device_or_a_user_error(text):
    try:
        found = device(text)
    except UserError as error:
        assert len(str(error)) < 3_000
    else:
        assert 0 < found.memory_bytes < 10**13
        assert found is DEVICES.get(found.key) or found.source == "as asked"


@pytest.mark.heavy
def test_importing_it_loads_only_the_standard_library():
    code = "import sys, peftmark.machine.gpus; print(*{m.partition('.')[0] for m in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    mine = set(loaded.stdout.split()) - set(sys.stdlib_module_names)
    assert not mine & {"torch", "numpy", "scipy", "pydantic", "transformers", "pynvml"}
