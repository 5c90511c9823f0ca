"""A report's scores as a paper prints them: cells by tasks, as Markdown, LaTeX, HTML or CSV.

Every figure is the report's: the same aggregates, the same digits, the same verdicts.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape as html_escape

from peftmark import __version__
from peftmark.advice import rates_lines, shared_rows_lines
from peftmark.analysis import comparison
from peftmark.analysis.comparison import Difference
from peftmark.analysis.stats import NEARLY_ZERO
from peftmark.analysis.table import MEAN, ResultTable, Score, overall_score, task_score
from peftmark.catalog.methods import Cell
from peftmark.catalog.metrics import sign_of
from peftmark.core.errors import UserError
from peftmark.core.shown import quoted, visible
from peftmark.render import latex, markdown, words
from peftmark.render.page import Entry
from peftmark.report import missing, quality, score_entries, summary, validity
from peftmark.report.rows import plain_value

ARROWS = {"higher": "↑", "lower": "↓"}
JUDGED = "every other cell (paired by seed, Holm over all comparisons, 5\u00a0%)"
BOLD = f"Bold: shown to be better than {JUDGED}."
NOT_BOLD = f"Nothing is bold: no cell is shown to be better than {JUDGED}."


@dataclass(frozen=True)
class Figure:
    """One cell on one task, or over all of them.

    Attributes:
        task: empty for the mean over tasks.
        metric: its title; what the mean is of, for the mean.
        better: the better side.
        mean, half_width, low, high: unrounded; the interval is the 95 % t-interval over seeds,
            within what the metric can be; None where there is none.
        n: seeds it rests on, of `planned`.
        best: whether it is shown to be better than every other cell.
        text: as the report has it.
        note: n, where it isn't that of the table; or why there is no figure.
    """

    cell: str
    task: str
    metric: str
    better: str
    mean: float | None
    half_width: float | None
    low: float | None
    high: float | None
    n: int
    planned: int
    best: bool
    text: str
    note: str = ""


@dataclass(frozen=True)
class PaperTable:
    """The table.

    Attributes:
        caption: a sentence each.
        columns: title, and metric with an arrow to its better side, of each task and of the mean.
        rows: the figures of a cell, in the order of the columns.
        baseline: those of a constant guess.
        label: for LaTeX's references.
    """

    caption: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Figure, ...], ...]
    baseline: tuple[Figure, ...]
    label: str

    @property
    def lines(self) -> tuple[tuple[Figure, ...], ...]:
        """The rows, and the baseline as the last."""
        return (*self.rows, self.baseline)


def rendered(table: ResultTable, form: str) -> str:
    """The table as text.

    Raises:
        UserError: another format.
    """
    if form not in FORMATS:
        raise UserError(f"format {quoted(form)} is unknown", f"Formats: {', '.join(FORMATS)}.")
    return FORMATS[form](paper_table(table))


def facts(table: ResultTable) -> dict[str, object]:
    """The same as plain data."""
    made = paper_table(table)
    return {
        "caption": " ".join(made.caption),
        "figures": [asdict(figure) for row in made.lines for figure in row],
    }


def paper_table(everything: ResultTable) -> PaperTable:
    """What is printed, whatever the format; cells that can't run here are left out."""
    table = everything.without(everything.unsupported)
    seeds = [s.estimate.n for s in _scores(table) if s.estimate is not None]
    usual = max(set(seeds), key=lambda n: (seeds.count(n), n), default=0)
    by_task, pairs = comparison.by_task(table), comparison.pairwise(table)
    best: dict[str, Cell | None] = {t: _best_on(table, t, by_task) for t in table.tasks}
    first = [c for c, place in comparison.ranks(table, pairs).items() if place == (1, 1)]
    best[""] = first[0] if first else None
    rows = tuple(
        tuple(_figure(table, cell, task, usual, best[task] == cell) for task in _columns(table))
        for cell in table.cells
        if table.of(cell)
    )
    job = table.jobs[0]
    return PaperTable(
        caption=tuple(
            _caption(
                table, usual, any(best[task] for task in _columns(table)), everything.unsupported
            )
        ),
        columns=tuple(_head(table, task) for task in _columns(table)),
        rows=rows,
        baseline=_baseline(table),
        label=f"tab:{job.suite}-{job.profile}",
    )


def _columns(table: ResultTable) -> tuple[str, ...]:
    """The tasks, and an empty name for their mean where that is of several and means anything."""
    mean = len(table.tasks) > 1 and not table.scale.why_none
    return (*table.tasks, *([""] if mean else []))


def _scores(table: ResultTable) -> Iterator[Score]:
    for cell in table.cells:
        yield overall_score(table, cell)
        yield from (task_score(table, cell, task) for task in table.tasks)


def _best_on(
    table: ResultTable, task: str, found: Mapping[tuple[Cell, str], Difference]
) -> Cell | None:
    """The cell that is shown to be better on a task than every other that has a score there.

    Verdicts on a task are against the reference, and hold together: what is above the reference is
    above all that is below it.
    """
    scored = [c for c in table.cells if task_score(table, c, task).by_seed]
    others = {c: found[c, task].better for c in scored if (c, task) in found}
    if table.reference not in scored or len(others) != len(scored) - 1 or not others:
        return None
    above = [c for c, better in others.items() if better]
    if any(better is None for better in others.values()) or len(above) > 1:
        return None
    return above[0] if above else table.reference


def _figure(table: ResultTable, cell: Cell, task: str, usual: int, best: bool) -> Figure:
    if task:
        score, metric = task_score(table, cell, task), table.example(task).metric
        gap = missing.gap(table.of(cell, task))
    else:
        score, metric = overall_score(table, cell), table.scale.metric
        gap = missing.overall_gap(table, cell)
    entry, found = score_entries.score_entry(score, gap, metric), score.estimate
    # Seeds that are all alike have no interval, as one seed has none.
    known = found is not None and (found.half_width or 0.0) > NEARLY_ZERO
    return Figure(
        cell=words.title(cell),
        task=task,
        **_measured(table, task),
        mean=None if found is None else found.mean,
        half_width=found.half_width if found is not None and known else None,
        low=found.low if found is not None and known else None,
        high=found.high if found is not None and known else None,
        n=len(score.by_seed),
        planned=score.planned,
        best=best and found is not None,
        text=entry.text,
        note=_note(entry, score, usual),
    )


def _measured(table: ResultTable, task: str) -> dict[str, str]:
    """Metric and better side of a column."""
    if not task:
        return {"metric": table.averaged, "better": "higher"}
    metric = table.example(task).metric
    better = "lower" if sign_of(metric) < 0 else "higher"
    return {"metric": words.metric_title(metric), "better": better}


def _baseline(table: ResultTable) -> tuple[Figure, ...]:
    """A constant guess, which has no seeds."""
    return tuple(
        Figure(
            cell=quality.BASELINE,
            task=task,
            **_measured(table, task),
            mean=value,
            half_width=None,
            low=None,
            high=None,
            n=0,
            planned=0,
            best=False,
            text=words.MISSING if value is None else words.score(metric, value),
        )
        for task, (metric, value) in zip(_columns(table), quality.baselines(table), strict=False)
    )


def _note(entry: Entry, score: Score, usual: int) -> str:
    """What is said beside a figure."""
    if entry.kind != "number":
        return entry.note
    seeds = len(score.by_seed)
    return "" if seeds == usual == score.planned else f"n = {seeds} of {score.planned}"


def _head(table: ResultTable, task: str) -> tuple[str, str]:
    told = _measured(table, task)
    arrow = ARROWS[told["better"]]
    return (task, f"{told['metric']} {arrow}") if task else (MEAN, arrow)


def _caption(
    table: ResultTable, usual: int, any_best: bool, unsupported: Sequence[Cell]
) -> Iterator[str]:
    job = table.jobs[0]
    models = words.listing(list(dict.fromkeys(j.model_name for j in table.jobs)))
    devices = words.listing(sorted({j.device for j in table.jobs}))
    yield (
        "Score on the evaluation rows after the last step: mean ± half of the 95\u00a0% t-interval "
        f"over n = {words.plural(usual, 'seed')}, which does not cover the choice of rows. Suite "
        f"{job.suite} version {job.suite_version}, profile {job.profile}; {models}, {devices}."
    )
    used = {_measured(table, task)["better"] for task in table.tasks}
    yield f"{', '.join(f'{ARROWS[side]} {side} is better' for side in sorted(used))}."
    if table.scale.why_none:
        yield f"There is no {MEAN}: {table.scale.why_none}."
    elif table.averaged != MEAN and "" in _columns(table):
        yield f"The {MEAN} is of the {table.averaged}."
    yield BOLD if any_best else NOT_BOLD
    yield f"The {quality.BASELINE}: {quality.baseline_words(table)}."
    if unsupported:
        names = words.some([words.title(cell) for cell in unsupported])
        yield f"Left out, since they can't run there: {names}."
    told = [f"{alarm}." for alarm, _ in validity.loud(validity.look(table))]
    told += [shared_rows_lines.sentence(table), rates_lines.sentence(table), summary.warning(table)]
    yield from (text for text in told if text)


# --- formats ------------------------------------------------------------------------------------


def _with_note(figure: Figure) -> str:
    return f"{figure.text} ({figure.note})" if figure.note else figure.text


def _as_markdown(made: PaperTable) -> str:
    def entry(figure: Figure) -> str:
        text = markdown.escape(_with_note(figure))
        return f"**{text}**" if figure.best else text

    heads = ["cell", *(f"{title}<br>{hint}" for title, hint in map(_escaped, made.columns))]
    lines = [heads, ["---", *(["---:"] * len(made.columns))]]
    lines += [[markdown.escape(row[0].cell), *map(entry, row)] for row in made.lines]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{markdown.escape(' '.join(made.caption))}\n"


def _escaped(column: tuple[str, str]) -> tuple[str, str]:
    return markdown.escape(column[0]), markdown.escape(column[1])


def _as_latex(made: PaperTable) -> str:
    def entry(figure: Figure) -> str:
        if figure.mean is None:
            return latex.across("--")
        return latex.number(_with_note(figure), bold=figure.best)

    def line(name: str, entries: Iterator[str]) -> str:
        return f"{' & '.join([name, *entries])} \\\\"

    titles, hints = zip(*made.columns, strict=True)
    width = len(made.columns)
    caption = " ".join([*made.caption, *_dashes(made)])
    names = (row[0].cell for row in (*made.rows, made.baseline))
    rare = latex.beyond("".join([caption, *titles, *hints, *names]))
    needs = "\\usepackage{booktabs}"
    if rare:
        needs += f" and, for {' '.join(rare)}, LuaLaTeX or XeLaTeX with a font that has them"
    rules = [f"\\cmidrule(lr){{{2 * i + 2}-{2 * i + 3}}}" for i in range(width)]
    return "\n".join(
        [
            f"% made by peftmark {__version__}; needs {needs}",
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{latex.escape(caption)}}}",
            f"\\label{{{re.sub('[^a-z0-9:_-]', '-', made.label)}}}",
            f"\\begin{{tabular}}{{l{' r@{}l' * width}}}",
            "\\toprule",
            line("", (latex.across(latex.escape(title)) for title in titles)),
            line("", (latex.across(f"\\small {latex.escape(hint)}") for hint in hints)),
            " ".join(rules),
            *(line(latex.escape(row[0].cell), map(entry, row)) for row in made.rows),
            "\\midrule",
            line(latex.escape(made.baseline[0].cell), map(entry, made.baseline)),
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
            "",
        ]
    )


def _dashes(made: PaperTable) -> Iterator[str]:
    """Why there is no figure where LaTeX has a dash."""
    gaps = [f for row in made.rows for f in row if f.mean is None]
    why = [f"{f.cell} on {f.task or MEAN}: {f.note or f.text}" for f in gaps]
    if why:
        yield f"--: no figure ({'; '.join(why)})."


def _as_html(made: PaperTable) -> str:
    def entry(figure: Figure) -> str:
        text = html_escape(_with_note(figure))
        return f"<td>{f'<strong>{text}</strong>' if figure.best else text}</td>"

    heads = "".join(
        f'<th scope="col">{html_escape(title)}<br><small>{html_escape(hint)}</small></th>'
        for title, hint in made.columns
    )
    rows = [
        f'<tr><th scope="row">{html_escape(row[0].cell)}</th>{"".join(map(entry, row))}</tr>'
        for row in made.lines
    ]
    caption = f"<caption>{html_escape(' '.join(made.caption))}</caption>"
    head = f'<thead><tr><th scope="col">cell</th>{heads}</tr></thead>'
    return visible(
        "\n".join(["<table>", caption, head, "<tbody>", *rows, "</tbody>", "</table>", ""])
    )


def _as_csv(made: PaperTable) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    figures = [asdict(figure) for row in made.lines for figure in row]
    writer.writerow(figures[0].keys())
    writer.writerows([map(plain_value, figure.values()) for figure in figures])
    return text.getvalue()


FORMATS: Mapping[str, Callable[[PaperTable], str]] = {
    "markdown": _as_markdown,
    "latex": _as_latex,
    "csv": _as_csv,
    "html": _as_html,
}
"""Format -> what writes it."""
