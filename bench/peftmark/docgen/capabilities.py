"""`python -m peftmark.docgen.capabilities [METHOD ...]` tries what methods can do on tiny random
models, all methods or those that are named, and writes the answers into the package.

Nothing is downloaded. After each method the file is whole again, and `--missing` goes on where a
run was stopped, or adds the answers on a base format that is new.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from importlib import metadata

from peftmark.catalog.capabilities import (
    AGAIN,
    LIBRARIES,
    NOT_TRIED,
    PROBED,
    Capabilities,
    Probed,
    read,
    written,
)
from peftmark.catalog.method import Method
from peftmark.catalog.methods import all_methods
from peftmark.catalog.quantizations import QUANTIZATIONS
from peftmark.core.errors import UserError
from peftmark.core.files import write_all


def installed() -> dict[str, str]:
    """The versions of what is tried, as installed and without "+cpu" or the like; what isn't there
    is left out."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return found


def other_versions(found: Probed) -> str:
    """Which libraries are installed in other versions than methods were probed with; empty for
    none."""
    here = installed()
    return ", ".join(
        f"{name} {here.get(name, 'missing')} in place of {version}"
        for name, version in found.versions.items()
        if here.get(name) != version
    )


def _known() -> Probed:
    return read(PROBED.read_text(encoding="utf-8")) if PROBED.exists() else Probed(installed())


def known_methods(names: Sequence[str]) -> list[Method]:
    """Methods by their names.

    Raises:
        UserError: there is no such method.
    """
    every = all_methods()
    if unknown := [name for name in names if name not in every]:
        near = difflib.get_close_matches(unknown[0], every, 3)
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(
            f"no method {', '.join(map(repr, unknown))}", f"{meant}peftmark methods lists them"
        )
    return [every[name] for name in names]


def _chosen(names: Sequence[str], missing: bool, known: Probed) -> list[str]:
    """The methods to be probed.

    Raises:
        UserError: there is no such method, or the file was made with other libraries.
    """
    known_methods(names)
    every = list(all_methods())
    if not names and not missing:
        return every
    if other := other_versions(known):
        raise UserError(f"{PROBED.name} was made with other libraries: {other}", f"run {AGAIN}")
    return [key for key in every if key in names or (missing and lacking(known, key))]


def lacking(known: Probed, key: str) -> list[str]:
    """The base formats that a method has no answer for; all without an entry."""
    one = known.methods.get(key)
    found = {} if one is None else one.sits_on
    return [b for b in QUANTIZATIONS if b not in found or found[b].reason == NOT_TRIED]


def probe(keys: Sequence[str], known: Probed, missing: bool = False) -> None:
    """Probe methods and write each into the file as it comes.

    Args:
        missing: whether what is known of them stays, and only new base formats are tried.
    """
    from peftmark.lab.capability_grounds import grounds
    from peftmark.lab.capability_trials import probe_method, with_bases

    found: dict[str, Capabilities] = dict(known.methods)
    with grounds() as on:
        for number, key in enumerate(keys, 1):
            bases = lacking(known, key) if missing and key in found else []
            found[key] = with_bases(key, found[key], bases, on) if bases else probe_method(key, on)
            print(f"{number} of {len(keys)}: {key}", flush=True)
            write_all({PROBED: written(Probed(installed(), in_order(found)))})


def in_order(found: Mapping[str, Capabilities]) -> dict[str, Capabilities]:
    """Those of methods that there are, in the catalogue's order."""
    return {key: found[key] for key in all_methods() if key in found}


def main(arguments: Sequence[str] | None = None) -> None:
    """Probe and write."""
    parser = argparse.ArgumentParser(prog=AGAIN)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="default: all")
    parser.add_argument(
        "--missing", action="store_true", help="only methods and base formats the file lacks"
    )
    options = parser.parse_args(arguments)
    known = _known()
    try:
        keys = _chosen(options.methods, options.missing, known)
    except UserError as error:
        parser.error(f"{error.what}; {error.remedy}")
    whole = not options.methods and not options.missing
    probe(keys, Probed(installed()) if whole else known, options.missing)


if __name__ == "__main__":
    main()
