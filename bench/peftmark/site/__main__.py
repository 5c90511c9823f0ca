"""`python -m peftmark.site --mkdocs PATH` builds the static site; `make site` calls it."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from peftmark.core.errors import Exit, UserError
from peftmark.core.files import PACKAGE
from peftmark.site.build import Order, build


def main() -> int:
    """Build the site and say how long it took; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m peftmark.site", description=__doc__)
    parser.add_argument("--mkdocs", type=Path, required=True, help="the program mkdocs")
    parser.add_argument("--out", type=Path, default=Path("build") / "site", help="its folder")
    parser.add_argument(
        "--repository",
        default="",
        metavar="URL",
        help="what a path is put after, such as https://HOST/OWNER/NAME/blob/COMMIT, for links to "
        "files that are no page",
    )
    options = parser.parse_args()
    start = time.monotonic()

    def told(text: str) -> None:
        print(f"{time.monotonic() - start:4.0f} s  {text}", file=sys.stderr, flush=True)

    try:
        order = Order(PACKAGE.parents[1], options.out, options.mkdocs, options.repository)
        page = build(order, told)
    except UserError as error:
        print(f"peftmark: {error}", file=sys.stderr)
        return int(error.code)
    told(f"wrote {page}")
    return int(Exit.OK)


if __name__ == "__main__":
    sys.exit(main())
