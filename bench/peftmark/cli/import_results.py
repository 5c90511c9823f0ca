"""The command `import`: published results, and what they can't be compared with."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from peftmark.cli.options import add_results
from peftmark.core.errors import Exit, UserError

if TYPE_CHECKING:
    from peftmark.storage.external import ExternalRow
    from peftmark.storage.peft_method_comparison import Skipped

NAME = "import"
HELP = "bring in published results, to be shown and never judged"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Whose results, where they are, and where they go."""
    sub.add_argument("source", choices=["peft-method-comparison"], help="whose results")
    sub.add_argument("folder", type=Path, metavar="DIR", help="where its files are")
    add_results(sub)


def run(options: argparse.Namespace) -> int:
    """Published results into the results folder, as rows that nothing judges."""
    from peftmark.storage.external import write_external
    from peftmark.storage.peft_method_comparison import (
        REMEDY,
        TASK,
        Skipped,
        read_method_comparison,
    )

    found, skipped = read_method_comparison(options.folder)
    # Pages that show imported rows speak of that benchmark's task alone.
    rows = [row for row in found if row.task == TASK]
    skipped += [
        Skipped(r.file, "another task, exported by peftmark") for r in found if r.task != TASK
    ]
    if not rows:
        raise UserError(
            f"{options.folder} holds no result of a language model: {_skips(skipped)}", REMEDY
        )
    path = write_external(options.results, rows)
    if options.json:
        facts = {
            "file": str(path),
            "rows": len(rows),
            "statuses": dict(Counter(row.status for row in rows)),
            "skipped": dict(Counter(s.why for s in skipped)),
            "nulls": dict(_nulls(rows)),
        }
        print(json.dumps(facts, indent=2))
    else:
        print("\n".join(_text(path, rows, skipped)))
    return Exit.OK


def _text(path: Path, rows: Sequence[ExternalRow], skipped: Sequence[Skipped]) -> Iterator[str]:
    from peftmark.render import words
    from peftmark.report.external import TITLE, caveats, origins

    statuses = Counter(row.status for row in rows)
    counts = ", ".join(f"{n:,} {status}" for status, n in statuses.most_common())
    yield f"{words.plural(len(rows), 'row')} ({counts}) in {path}, in place of earlier ones."
    if skipped:
        yield f"Left out: {_skips(skipped)}."
    yield f"Made with {words.some(origins(rows))}."
    if nulls := [f"{name} in {n:,}" for name, n in _nulls(rows)]:
        yield f"Rows without a figure: {', '.join(nulls)}. Each row has the reason."
    yield "Not comparable with what peftmark measures:"
    for text in caveats(rows):
        yield f"  - {text}"
    yield f'Reports of language models show them under "{TITLE}"; nothing judges them.'


def _skips(skipped: Sequence[Skipped]) -> str:
    """How many files were left out, by what they are, such as "31 files (image generation 31)"."""
    counts = Counter(s.why for s in skipped).most_common()
    noun = "file" if len(skipped) == 1 else "files"
    return f"{len(skipped):,} {noun} ({', '.join(f'{why} {n:,}' for why, n in counts)})"


def _nulls(rows: Sequence[ExternalRow]) -> Iterator[tuple[str, int]]:
    """Field -> rows that lack it; a field that no row could have is left out."""
    for field in fields(rows[0]):
        lacking = sum(getattr(row, field.name) is None for row in rows)
        if lacking and field.name not in ("baseline", "size_option"):
            yield field.name, lacking
