"""`python -m peftmark.docgen.exit_codes` writes the exit codes into docs/commands.md, docs/gate.md
and docs/ci.md."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

from peftmark.core.errors import Exit
from peftmark.core.files import write_all

START = "<!-- Exit codes: written by `python -m peftmark.docgen.exit_codes`; don't edit. -->\n"
END = "<!-- End of exit codes. -->\n"

CI: Mapping[Exit, str] = {
    Exit.OK: "pass",
    Exit.BUG: "fail; report it",
    Exit.USAGE: "fail; the message says what to fix",
    Exit.REGRESSION: "fail; fix it, or accept a new baseline with the reason",
    Exit.UNDECIDED: "fail, or pass by `allow-undecided` where a person reads the comment; more "
    "seeds decide",
    Exit.NOT_COMPARABLE: "fail; accept a baseline with the change, made on the machine that judges",
    Exit.INCOMPLETE: "fail; the report has the reasons",
    Exit.NOT_REPEATABLE: "fail; no other number of that run can be trusted",
    Exit.CORRUPT: "fail; restore it from git",
    Exit.NUMBERS_CHANGED: "fail; find out why, or declare it: `peftmark gate SUITE --expect-change "
    '"why"`',
    Exit.INTERRUPTED: "run it again",
    Exit.TERMINATED: "run it again",
}
"""What each code asks of continuous integration."""


def table() -> str:
    """Every code with its meaning and what CI should do, as Markdown."""
    lines = ["| code | meaning | a gate says | what CI should do |", "|---|---|---|---|"]
    lines += [f"| {c.value} | {c.meaning} | {c.verdict} | {CI[c]} |" for c in Exit]
    return "\n".join([*lines, ""])


def sentence() -> str:
    """Every code with its meaning, as a paragraph."""
    text = f"Exit codes: {'; '.join(f'`{c.value}` {c.meaning}' for c in Exit)}."
    return textwrap.fill(text, 100, break_on_hyphens=False) + "\n"


PAGES: Mapping[Path, Callable[[], str]] = {
    Path("docs") / "commands.md": sentence,
    Path("docs") / "gate.md": table,
    Path("docs") / "ci.md": table,
}
"""Page -> what stands between the marks."""


def with_codes(page: str, text: str) -> str:
    """A page whose part between the marks is what the code says now."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{text}\n{END}{after}"


def main() -> None:
    """Write the pages below the working directory."""
    write_all(
        {path: with_codes(path.read_text(encoding="utf-8"), make()) for path, make in PAGES.items()}
    )


if __name__ == "__main__":
    main()
