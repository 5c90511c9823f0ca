"""Results in the format of another tool, for `peftmark export --format`."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from peftmark.core.errors import Exit, UserError

if TYPE_CHECKING:
    from peftmark.record.job import Record

METHOD_COMPARISON = "peft-method-comparison"


def export_results(options: argparse.Namespace) -> int:
    """Finished rows as files of another tool, in a folder that is new."""
    from peftmark.core.files import new_folder, write_all
    from peftmark.storage.method_comparison_export import exported

    fit, left = _rows(options)
    files = exported(fit)
    with new_folder(options.to) as made:
        write_all({made / path: text for path, text in files.items()})
        write_all({made / "README.md": _readme(options.suite, left)})
    if options.json:
        facts = {"folder": str(options.to), "files": sorted(files), "left_out": left}
        print(json.dumps(facts, indent=2))
        return Exit.OK
    print(f"{len(files):,} results in {options.to}, with what they mean in README.md beside them.")
    for why, count in left.items():
        print(f"Left out: {count:,}: {why}.")
    return Exit.OK


def _rows(options: argparse.Namespace) -> tuple[list[Record], dict[str, int]]:
    """The rows to write, and how many are left out for what reason.

    Raises:
        UserError: there is none.
    """
    from peftmark.analysis.machines import machines_of
    from peftmark.core.files import SUITE_NAME
    from peftmark.core.shown import quoted
    from peftmark.storage.method_comparison_export import unfit
    from peftmark.storage.store import Store
    from peftmark.storage.unread import no_results

    if not SUITE_NAME.fullmatch(options.suite):
        raise UserError(f"no suite is called {quoted(options.suite)}", "See: peftmark list.")
    store = Store(options.results, options.suite)
    contents = store.read()
    reported = [r for r in contents.rows if r.job.purpose == "report"]
    newest = max(reported, key=lambda r: (r.finished_at, r.job.job_id), default=None)
    if newest is None:
        run = f"Run them first: peftmark run {options.suite}"
        raise no_results(store.folder, contents, run)
    profile = options.profile or newest.job.profile
    mine = [r for r in reported if r.job.profile == profile]
    if not mine:
        known = ", ".join(sorted({r.job.profile for r in reported}))
        raise UserError(f"--profile: no row of profile {quoted(profile)}", f"There are: {known}.")
    machines = machines_of(mine)
    of_main = list(machines.by_machine[machines.main].values())
    left = Counter(why for r in of_main if (why := unfit(r)))
    if apart := len(mine) - len(of_main):
        left["of another machine, whose times can't stand beside these"] = apart
    fit = [r for r in of_main if not unfit(r)]
    if not fit:
        raise UserError(
            f"{store.folder}, profile {profile}: no row can be such a result ({_reasons(left)})",
            "Only finished runs scored by accuracy or exact match can. Nothing was written.",
        )
    return fit, dict(left)


def _reasons(left: Mapping[str, int]) -> str:
    return "; ".join(f"{count:,}: {why}" for why, count in left.items())


def _readme(suite: str, left: Mapping[str, int]) -> str:
    from peftmark import __version__
    from peftmark.storage.method_comparison_export import NOT_MEASURED

    lines: Sequence[str] = (
        f"# Results of suite {suite}, by peftmark {__version__}",
        "",
        "One JSON file a run, in the format of `method_comparison` in huggingface/peft, a folder a",
        "task. They are no runs of that benchmark: model, task, recipe and meters are peftmark's.",
        "",
        "- `test accuracy` is the task's own metric after the last step, named in",
        "  `meta_info.peftmark` with task, cell and job.",
        "- `train_time` is that of all training steps, evaluation apart, `total_time` the job's.",
        "- `accelerator_memory_max` is the most that torch's allocator reserved in training.",
        f"- {NOT_MEASURED} stands where the app wants a number and nothing was measured;",
        "  `meta_info.peftmark.not_measured` names each. A `file_size` of 99999999 is the same.",
        "- `forgetting` is in nats a token, on another text than the benchmark's.",
        *(f"- Left out: {count:,}: {why}." for why, count in left.items()),
    )
    return "\n".join([*lines, ""])
