"""Loads exports as somebody without peftmark does, and says what they make of rows.

Run as a program: folders of exports and a file of rows beside each come in as JSON on standard
input, and the logits go out into files. Nothing of peftmark can be imported here.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path


class NoPeftmark:
    """Refuses to find peftmark."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "peftmark":
            raise ImportError("peftmark is not installed here")


def logits(folder: str, base: str | None, rows: str, to: str) -> None:
    """Write what the model of a folder says of rows."""
    import torch
    from safetensors.torch import load_file, save_file

    load = runpy.run_path(str(Path(folder) / "load.py"))["load"]
    model = load() if base is None else load(base, None)
    with torch.inference_mode():
        found = model(**load_file(rows)).logits.float()
    save_file({"logits": found.contiguous()}, to)


def main() -> None:
    """Load every export that is asked for."""
    sys.meta_path.insert(0, NoPeftmark())
    try:
        import peftmark  # noqa: F401
    except ImportError:
        pass
    else:
        raise SystemExit("peftmark could be imported")
    for one in json.load(sys.stdin):
        logits(**one)
    print(sum(name.partition(".")[0] == "peftmark" for name in sys.modules))


if __name__ == "__main__":
    main()
