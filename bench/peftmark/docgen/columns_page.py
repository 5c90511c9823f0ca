"""`python -m peftmark.docgen.columns_page` writes the measured figures into docs/columns.md.

Every section there has one table, made of the fields that name it; the text around stays. Columns
of the job itself are written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from peftmark.core.files import write_all
from peftmark.record.field import Field, Section
from peftmark.record.fields import FIELDS

PAGE = Path("docs") / "columns.md"
START = "<!-- Fields of {}: written by `python -m peftmark.docgen.columns_page`; don't edit. -->\n"
END = "<!-- End of fields. -->\n"
SECTIONS: tuple[Section, ...] = get_args(Section)
_PART = re.compile(f"{re.escape(START).replace(re.escape('{}'), '(.+?)')}.*?{re.escape(END)}", re.S)
_FORMS = {"strings": "list", "curve": "list", "numbers": "list"}


def table(fields: Sequence[Field]) -> str:
    """One row a field."""
    lines = [
        "| column | name | unit | measured | what it is | null when |",
        "|---|---|---|---|---|---|",
        *(f"| {' | '.join(_row(field))} |" for field in fields),
    ]
    return "\n".join([*lines, ""])


def _row(field: Field) -> tuple[str, ...]:
    unit = field.unit or _FORMS.get(field.type, "")
    if field.type == "json":
        unit = ", ".join(filter(None, ("JSON", field.unit)))
    better = f"{field.better} is better" if field.better else ""
    return (
        f"`{field.key}`",
        field.title,
        "; ".join(filter(None, (unit, better))) or "-",
        f"{field.phase}: {field.meter}",
        field.summary,
        field.null or "never",
    )


def with_fields(page: str) -> str:
    """A page whose tables between the marks are what the fields say now.

    Raises:
        ValueError: a section of the fields has no marks, or marks have no section.
    """
    found = [match[1] for match in _PART.finditer(page)]
    if sorted(found) != sorted(SECTIONS):
        raise ValueError(
            f"{PAGE} has marks for {', '.join(found) or 'nothing'}; every section of "
            f"record/field.py needs one pair: {', '.join(SECTIONS)}"
        )
    return _PART.sub(lambda match: _part(match[1]), page)


def _part(section: str) -> str:
    fields = [field for field in FIELDS.values() if field.section == section]
    return f"{START.format(section)}\n{table(fields)}\n{END}"


def main() -> None:
    """Write the page below the working directory."""
    write_all({PAGE: with_fields(PAGE.read_text(encoding="utf-8"))})


if __name__ == "__main__":
    main()
