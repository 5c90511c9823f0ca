"""`python -m peftmark.docgen.architecture_page` writes the folders into docs/architecture.md.

Levels are those that the tests hold imports to; what a folder is for is the first line of its
package's docstring; what it imports is read from its source.
"""

from __future__ import annotations

import ast
from pathlib import Path

from peftmark.core.files import PACKAGE, write_all
from peftmark.docgen.structure import LEVELS, arrows, tree

PAGE = Path("docs") / "architecture.md"
START = "<!-- Folders: written by `python -m peftmark.docgen.architecture_page`; don't edit. -->\n"
END = "<!-- End of folders. -->\n"
WIDTH = 76


def folders_text() -> str:
    """Picture and table of the folders, as Markdown."""
    return f"{_picture()}\n{_table()}"


def _picture() -> str:
    """The levels from the top down, one line each, in a block of fixed width."""
    names = ["   ".join(level) for level in reversed(LEVELS)]
    rule = f"+{'-' * WIDTH}+"
    lines = [rule, *(line for name in names for line in (f"|{name.center(WIDTH)}|", rule))]
    return "\n".join(["```", *lines, "```", ""])


def _table() -> str:
    graph = arrows()
    place = [folder for level in LEVELS for folder in level]
    lines = ["| level | folder | what it is | imports from |", "|---|---|---|---|"]
    for number, level in enumerate(LEVELS):
        for folder in level:
            others = sorted(graph[folder], key=place.index)
            below = ", ".join(f"`{name}`" for name in others) or "nothing of ours"
            lines.append(f"| {number} | `{folder}` | {_purpose(folder)} | {below} |")
    return "\n".join([*lines, ""])


def _purpose(folder: str) -> str:
    """First line of a folder's docstring, without its full stop."""
    text = ast.get_docstring(tree(PACKAGE / folder / "__init__.py")) or ""
    return text.split("\n")[0].removesuffix(".")


def with_folders(page: str) -> str:
    """A page whose part between the marks is what the code says now."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{folders_text()}\n{END}{after}"


def main() -> None:
    """Write the page below the working directory."""
    write_all({PAGE: with_folders(PAGE.read_text(encoding="utf-8"))})


if __name__ == "__main__":
    main()
