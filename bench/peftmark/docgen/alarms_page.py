"""`python -m peftmark.docgen.alarms_page` writes into docs/alarms.md what the alarms are, and how
often each was false over the runs that come with the project."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from peftmark.analysis.alarms import Count, count, together
from peftmark.catalog.alarms import ALARMS
from peftmark.core.files import write_all
from peftmark.record.job import Record
from peftmark.render.words import plural
from peftmark.storage.rows_file import read_rows_file

PAGE = Path("docs") / "alarms.md"
NOTE = "written by `python -m peftmark.docgen.alarms_page`; don't edit."
TABLE = f"<!-- Alarms: {NOTE} -->", "<!-- End of alarms. -->"
COUNTS = f"<!-- Counts: {NOTE} -->", "<!-- End of counts. -->"
STORED = (
    "docs/alarms/*.parquet",
    "results/published/*/rows.parquet",
)
"""Files of rows that come with the project."""


def alarm_lines() -> Iterator[str]:
    """One row an alarm."""
    yield "| alarm | what it says | figure | raised | source, and what of it is ours | what to do |"
    yield "|---|---|---|---|---|---|"
    for alarm in ALARMS.values():
        columns = ", ".join(f"`{name}`" for name in alarm.columns)
        yield (
            f"| `{alarm.key}` | {alarm.title} | {alarm.figure} ({columns}) | {alarm.rule} | "
            f"{alarm.source}: {alarm.said} | {alarm.action} |"
        )


def stored(root: Path) -> Iterator[tuple[str, list[Record]]]:
    """Each file of rows with its rows, in order."""
    for pattern in STORED:
        for path in sorted(root.glob(pattern)):
            yield path.relative_to(root).as_posix(), list(read_rows_file(path).records.values())


def count_lines(files: Iterable[tuple[str, list[Record]]]) -> Iterator[str]:
    """The counts of all files together, each by itself, and what each file holds."""
    every = list(files)
    found = together([count(rows) for _, rows in every])
    yield "| alarm | measured in | raised | right | false | no other seed | missed | so |"
    yield "|---|---|---|---|---|---|---|---|"
    for one in found:
        yield _count_line(one)
    yield ""
    for name, rows in every:
        [first, *_] = count(rows)
        runs = first.measured + sum(first.unmeasured.values())
        suites = ", ".join(sorted({f"{row.job.suite}:{row.job.profile}" for row in rows}))
        yield f"- `{name}`: {plural(runs, 'reported run')} of `{suites}`"


def _count_line(found: Count) -> str:
    every = found.measured + sum(found.unmeasured.values())
    numbers = (found.raised, found.right, found.false, found.untold, found.missed)
    shown = [str(n) if found.measured else "-" for n in numbers]
    cells = [f"`{found.alarm.key}`", f"{found.measured} of {every} runs", *shown, found.verdict]
    return f"| {' | '.join(cells)} |"


def page(text: str, root: Path) -> str:
    """The page with both tables made anew.

    Raises:
        ValueError: a mark is missing.
    """
    for (start, end), lines in ((TABLE, alarm_lines()), (COUNTS, count_lines(stored(root)))):
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"{PAGE} has no {start if not found else end}")
        text = "\n".join([f"{before}{start}", "", *lines, "", f"{end}{after}"])
    return text


def main() -> None:
    """Write the page, in the folder that the command is given in."""
    write_all({PAGE: page(PAGE.read_text(encoding="utf-8"), Path())})


if __name__ == "__main__":
    main()
