"""Which rows were made on machines of one kind: the key of a machine wherever rows meet.

Rows hold no name of a host, and need none: two hosts of one kind give the same bits, and what a
clock or an allocator says of them may stand side by side. They are one machine here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peftmark.record.job import Environment

Scalar = int | float | str | bool | None

KIND = ("cpu", "cpu_model", "simd", "gpus", "driver")
"""Facts of a machine that decide bits, and with the same load also times."""
CHOSEN = "kernels"
"""Kernels of another processor, where they were asked for; absent from the kind where none were, so
that the keys of older rows stay."""
KEY_DIGITS = 8


def kind_of(environment: Environment) -> dict[str, Scalar]:
    """The kind of machine, as fact -> value; a fact that an older row lacks is null."""
    found = {name: environment.machine.get(name) for name in KIND}
    if chosen := environment.machine.get(CHOSEN):
        found[CHOSEN] = chosen
    return {name: str(v) if isinstance(v, list) else v for name, v in found.items()}


def machine_of(environment: Environment) -> str:
    """The key of a machine: the first digits of SHA-256 over its kind."""
    text = json.dumps(kind_of(environment), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def machine_keys(environments: Sequence[Environment]) -> list[str]:
    """The key of each; rows of a run share one environment, whose key is made once."""
    apart = {id(environment): environment for environment in environments}
    keys = {number: machine_of(environment) for number, environment in apart.items()}
    return [keys[id(environment)] for environment in environments]


def machine_names(environments: Iterable[Environment]) -> dict[str, str]:
    """Key -> a name for people: the GPU or the processor, with what tells apart those alike."""
    apart = {id(environment): environment for environment in environments}
    machines = {machine_of(e): e.machine for e in apart.values()}
    plain = {key: _name(machine) for key, machine in machines.items()}
    names = list(plain.values())
    return {
        key: name if names.count(name) == 1 else f"{name}, {_more(machines[key])}, {key}"
        for key, name in sorted(plain.items())
    }


def _name(machine: Mapping[str, Any]) -> str:
    """The GPUs of a machine, each name once with their number, or its processor."""
    gpus = [str(name) for name in machine.get("gpus") or ()]
    counted = [f"{gpus.count(n)}× {n}" if gpus.count(n) > 1 else n for n in dict.fromkeys(gpus)]
    return ", ".join(counted) or str(machine.get("cpu") or "a processor not recorded")


def _more(machine: Mapping[str, Any]) -> str:
    """What two machines of one name may differ in."""
    chosen = f", kernels {machine[CHOSEN]}" if machine.get(CHOSEN) else ""
    if machine.get("gpus"):
        return f"driver {machine.get('driver') or 'not recorded'}, {machine.get('cpu')}{chosen}"
    return f"model {machine.get('cpu_model') or 'not recorded'}{chosen}"
