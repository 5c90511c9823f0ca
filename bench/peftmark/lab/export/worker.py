"""Process that loads a kept adapter, so that whoever asks loads no torch.

A line of JSON comes in on standard input and one goes out: an answer, or what is wrong and its
remedy. What libraries print goes to standard error.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peftmark.catalog.task import Example
from peftmark.core.errors import UserError
from peftmark.lab.errors import Unsupported
from peftmark.lab.worker import quiet_libraries
from peftmark.sources.assets import Places


def main() -> None:
    """Do what is asked: `export`, `predict` or `measure`."""
    asked = json.load(sys.stdin)
    with redirect_stdout(sys.stderr):
        try:
            quiet_libraries()
            found = _DOES[asked["do"]](asked)
        except UserError as error:
            found = {"fault": error.what, "remedy": error.remedy}
        except Unsupported as error:
            found = {"fault": str(error), "remedy": ""}
    print(json.dumps(found))


def opened_of(asked: dict[str, Any]) -> Any:
    """The kept adapter that is asked for.

    Raises:
        UserError: it can't be read, or its base isn't to be had.
        Unsupported: this machine or these libraries can't load it.
    """
    from peftmark.lab.export.opened import opened

    return opened(Path(asked["folder"]), _places(asked))


def _places(asked: dict[str, Any]) -> Places:
    mirror = Path(asked["mirror"]) if asked["mirror"] else None
    return Places(mirror, tuple(asked["sources"]), Path(asked["cache"]))


def _export(asked: dict[str, Any]) -> dict[str, Any]:
    """Write an export into an empty folder, as `peftmark.lab.export.write` does."""
    from peftmark.lab.export.write import write

    target, merged, with_base = Path(asked["target"]), asked["merged"], asked["with_base"]
    return vars(write(opened_of(asked), target, merged, with_base))


def _predict(asked: dict[str, Any]) -> dict[str, Any]:
    """What the adapter says of rows, in their order."""
    from peftmark.lab.export.predict import predict

    return {"said": predict(opened_of(asked), [_row(one) for one in asked["rows"]])}


def _measure(asked: dict[str, Any]) -> dict[str, Any]:
    """What the adapter moved, and what several of it on one base hold; a part that can't be
    measured is its reason. Where they are asked for, attention, and two adapters fused."""
    from peftmark.lab.export.attention import attention
    from peftmark.lab.export.several import several
    from peftmark.lab.export.two import two
    from peftmark.lab.export.weight_change import weight_change

    one, places = opened_of(asked), _places(asked)
    found: dict[str, Any] = {}
    # What is asked for by name comes first: refused, it is all that is said.
    if asked["other"] is not None:
        other = opened_of({**asked, "folder": asked["other"]})
        found["two"] = asdict(two(one, other, asked["weight"], places))
    if asked["attention"] is not None:
        found["attention"] = asdict(attention(one, places, asked["attention"]))
    for name, measure in (("change", weight_change), ("several", several)):
        try:
            found[name] = {**asdict(measure(one)), "reason": ""}
        except Unsupported as error:
            found[name] = {"reason": str(error)}
    return found


def _row(values: dict[str, Any]) -> Example:
    """The inverse of what rows are in JSON, where tuples are lists."""
    turns = tuple((role, said) for role, said in values.get("turns", ()))
    return Example(
        values["text"], values.get("pair"), 0, choices=tuple(values.get("choices", ())), turns=turns
    )


_DOES = {"export": _export, "predict": _predict, "measure": _measure}


if __name__ == "__main__":
    main()
