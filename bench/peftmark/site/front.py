"""The first page: three answers, the chart, how sure, at which scale."""

from __future__ import annotations

from collections.abc import Sequence

from peftmark.render import words
from peftmark.report import summary, tiles
from peftmark.site import text
from peftmark.site.answers import Answer
from peftmark.site.claims_page import standing_text
from peftmark.site.evidence import Run
from peftmark.site.run_pages import address, picture, report_of

QUESTION = (
    "Which parameter-efficient fine-tuning method should I use, and what does it really cost?"
)


def front(answers: Sequence[Answer], runs: Sequence[Run], claims: Sequence[tuple[str, int]]) -> str:
    """The page.

    Args:
        answers: to the three questions.
        runs: every published run, those of most weight first.
        claims: how many published claims stand how.
    """
    shown = _shown(answers, runs)
    return text.page(
        f"# {QUESTION}",
        "Three answers from published results, each with how sure it is and the scale it was "
        f"measured at. What is undecided says so.{_so_far(runs)}",
        '<div class="pm-answers" markdown="1">',
        *(_card(answer) for answer in answers),
        "</div>",
        *(_evidence(shown) if shown else _nothing()),
        *_more(runs, claims),
        hide=["navigation", "toc"],
    )


def _shown(answers: Sequence[Answer], runs: Sequence[Run]) -> Run | None:
    """The run whose chart is shown: that of the first answer which rests on one."""
    return next((a.run for a in answers if a.run is not None), next(iter(runs), None))


def _card(answer: Answer) -> str:
    look = "open" if answer.next else "sure"
    lines = [
        f'<section class="pm-answer pm-{look}" markdown="1">',
        f"## {text.escape(answer.question)}",
        f'<p class="pm-word">{text.plain(answer.word)}</p>',
        text.escape(answer.text),
    ]
    if answer.next:
        lines.append(f"To decide it: {text.escape(answer.next)}")
    if answer.run is not None:
        run = answer.run
        lines.append(
            f'<p class="pm-scale">Measured at: {text.plain(run.scale)}. '
            f"{text.plain(_trust(run))}.</p>\n\n"
            f"{text.link(f'Results and report: {run.name}', address(run))}{_claim(answer)}"
        )
    return "\n\n".join([*lines, "</section>"])


def _trust(run: Run) -> str:
    """Whether its numbers can be trusted, and what speaks against it."""
    tile = tiles.trust(run.table, run.material.findings)
    wrong = [sign.text for sign in tile.signs if sign.state != "good"]
    return f"{tile.title}: {tile.value}{f' ({words.listing(wrong)})' if wrong else ''}"


def _at_full_scale(run: Run) -> str:
    reduced = run.table.jobs[0].scale != "full"
    return " Scores and orderings may differ at full scale." if reduced else ""


def _so_far(runs: Sequence[Run]) -> str:
    """That all is of one small model, where it is; figures of one model say little of another."""
    models = {run.model.key: run.model for run in runs if run.model}
    reduced = all(run.table.jobs[0].scale != "full" for run in runs)
    if len(models) != 1 or not reduced:
        return ""
    (model,) = models.values()
    size = words.short(model.parameters / 1e6)
    return (
        f" So far everything is of one model of {size} million parameters, trained briefly: "
        "don't carry it over to large language models."
    )


def _claim(answer: Answer) -> str:
    if not answer.claim:
        return ""
    place = f"evidence/claims.md#{answer.claim.lower()}"
    return f", {text.link(f'claim {answer.claim}', place)}"


def _evidence(run: Run) -> list[str]:
    table = run.material.table
    return [
        "## Score against memory",
        picture(run, ""),
        "## How sure",
        text.escape(summary.finding(table)),
        text.grid(summary.verdicts(table)),
        f"{text.link('The whole report', report_of(run))}, and "
        f"{text.link('how we measure', 'evidence/how-we-measure.md')}.",
        "## At which scale",
        text.escape(f"{run.scale}.{_at_full_scale(run)}"),
        text.link("Does it carry over to larger models?", "evidence/carry-over.md"),
    ]


def _nothing() -> list[str]:
    return ["## Nothing measured yet", "No rows are published, so there is no chart to show."]


def _more(runs: Sequence[Run], claims: Sequence[tuple[str, int]]) -> list[str]:
    counts = standing_text(claims)
    total = sum(n for _, n in claims)
    places = [
        f"- {text.link('Claims of papers and guides', 'evidence/claims.md')}: of {total} "
        f"{text.escape(counts)}.",
        f"- {text.link('Runs', 'evidence/index.md')}: {words.plural(len(runs), 'published run')}, "
        "with report and rows.",
        f"- {text.link('Methods', 'methods/index.md')}: what each trains, its paper, its measured "
        "trade and our verdict.",
        f"- {text.link('Memory of large models', 'docs/memory-tables.md')}: predicted, from 1 to "
        "70 billion parameters.",
        f"- {text.link('Measure your own', 'docs/start.md')}: two commands.",
    ]
    return ["## More", "\n".join(places)] if total else []
