"""`python -m peftmark.docgen.time_page` writes into docs/time.md how far predicted steps are from
published ones (`peftmark.duration.published_steps`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from peftmark.core.files import write_all
from peftmark.duration.published_steps import GROUPS, timed_steps
from peftmark.sources.assets import default_cache

PAGE = Path("docs") / "time.md"
START, END = "<!-- published: begin -->", "<!-- published: end -->"


def table(cache: Path | None) -> Iterator[str]:
    """The lines between the marks."""
    found = timed_steps(cache)
    yield "| step | published | predicted | off by |"
    yield "|---|---|---|---|"
    for group in GROUPS:
        yield f"| *{group.title}* | | | |"
        for one in found:
            if one.group is not group:
                continue
            row = one.row
            if one.seconds is None:
                yield f"| {row.what} | {_ms(row.seconds)} | not predicted: {one.missing} | |"
                continue
            reason = f" ({row.reason})" if row.reason else ""
            off = f"{one.off:+.0%}".replace("-", "−")
            yield f"| {row.what} | {_ms(row.seconds)} | {_ms(one.seconds)} | {off}{reason} |"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms"


def with_table(page: str, cache: Path | None) -> str:
    """The page with the table between its marks."""
    before, rest = page.split(START)
    _, after = rest.split(END)
    return "\n".join([f"{before}{START}", *table(cache), f"{END}{after}"])


def main() -> None:
    """Write the page."""
    page = PAGE.read_text(encoding="utf-8")
    write_all({PAGE: with_table(page, default_cache())})


if __name__ == "__main__":
    main()
