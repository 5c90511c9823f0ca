"""`python -m peftmark.docgen.architectures_page` tries every architecture of
`peftmark.catalog.tried_architectures` and writes what came out into docs/architectures.md.

It takes some minutes on one core and downloads nothing: the models are tiny and random.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peftmark.catalog.tried_architectures import METHODS, TRIED, Class
from peftmark.core.files import write_all

PAGE = Path("docs") / "architectures.md"
_MADE_BY = "written by `python -m peftmark.docgen.architectures_page`; don't edit."
TRIALS = (f"<!-- Trials: {_MADE_BY} -->\n", "<!-- End of trials. -->\n")
TARGETS = (f"<!-- Targets: {_MADE_BY} -->\n", "<!-- End of targets. -->\n")
CLASSES: tuple[Class, ...] = ("classifier", "language model")
WORDS = ("query-value", "attention", "all-linear")
"""A recipe's words for targets, from few layers to all."""

HEAD = ("architecture", "class", "layers adapted", *(title for title, _, _ in METHODS))


@dataclass
class Reasons:
    """Why something is refused, each once and numbered from 1."""

    texts: list[str] = field(default_factory=list)

    def mark(self, text: str) -> str:
        """The number of a reason, as a cell shows it."""
        if text not in self.texts:
            self.texts.append(text)
        return f"no ({self.texts.index(text) + 1})"

    def lines(self) -> list[str]:
        """The numbered reasons."""
        return [f"{number}. {text}" for number, text in enumerate(self.texts, 1)]


def expected_rows() -> list[tuple[str, Class]]:
    """(architecture, class) of every row that the page has, in its order."""
    return [(tried.title, made) for tried in TRIED.values() for made in CLASSES]


def shown(error: float) -> str:
    """A difference of logits in a cell."""
    return f"{error:.0e}" if error else "0"


def _try(key: str, made: Class, reasons: Reasons) -> list[str]:
    """The cells of a row after its first two."""
    from peftmark.lab.architecture_trials import library_says, trials

    if made not in TRIED[key].classes:
        said = _first(library_says(key, made))
        mark = reasons.mark(f"transformers has no such class: `{said}`")
        return ["-", *[mark] * len(METHODS)]
    cells, adapted = [], 0
    quantised = {title: quantization for title, _, quantization in METHODS}
    for title, tried in trials(key, made):
        adapted = max(adapted, tried.adapted)
        if tried.error is not None:
            cells.append(shown(tried.error))
            continue
        said = _first(library_says(key, made, quantised[title]))
        cells.append(reasons.mark(f"{tried.reason}. transformers says: `{said}`"))
    return [str(adapted), *cells]


def _first(text: str) -> str:
    """The first sentence of a text."""
    return re.split(r"(?<=\.)\s", text)[0]


def trials_table(cells: Mapping[tuple[str, Class], Sequence[str]], reasons: Sequence[str]) -> str:
    """The table of what was tried, with its reasons."""
    rows = [HEAD, *((*row, *cells[row]) for row in expected_rows())]
    return "\n".join([*_table(rows), "", *reasons, ""])


def targets_table() -> str:
    """What the words for targets mean in each architecture."""
    from peftmark.lab.architecture_trials import target_names

    def rows() -> Iterator[tuple[str, ...]]:
        for key, tried in TRIED.items():
            names = [target_names(key, tried.classes[0], word) for word in WORDS]
            more = tuple(name for name in names[2] if name not in names[1])
            yield tried.title, *(", ".join(f"`{n}`" for n in part) for part in (*names[:2], more))

    head = ("architecture", "`query-value`", "`attention`", "`all-linear` beside these")
    return "\n".join([*_table([head, *rows()]), ""])


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]


def put(page: str, marks: tuple[str, str], table: str) -> str:
    """The page with a table between its marks.

    Raises:
        ValueError: the page has no such marks.
    """
    start, end = page.find(marks[0]), page.find(marks[1])
    if start < 0 or end < start:
        raise ValueError(f"{PAGE} has no marks {marks[0].strip()} ... {marks[1].strip()}")
    return f"{page[: start + len(marks[0])]}\n{table}\n{page[end:]}"


def between(page: str, marks: tuple[str, str]) -> list[list[str]]:
    """The rows of the table between marks, its head first."""
    text = page[page.index(marks[0]) : page.index(marks[1])]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def main() -> None:
    """Try everything and write the page below the working directory."""
    reasons = Reasons()
    cells = {
        (tried.title, made): _try(key, made, reasons)
        for key, tried in TRIED.items()
        for made in CLASSES
    }
    page = put(PAGE.read_text(encoding="utf-8"), TRIALS, trials_table(cells, reasons.lines()))
    write_all({PAGE: put(page, TARGETS, targets_table())})


if __name__ == "__main__":
    main()
