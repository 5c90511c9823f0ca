"""The first page: three answers, the chart, how sure, at which scale."""

from __future__ import annotations

from collections.abc import Sequence

from peftmark.render import words
from peftmark.report import summary
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
        "Three answers from rows that anybody can read, each with how sure it is and the scale it "
        "was measured at. What is undecided says so.",
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
            f'<p class="pm-scale">Measured at: {text.plain(run.scale)}.</p>\n\n'
            f"{text.link('The rows and their report', address(run))}{_claim(answer)}"
        )
    return "\n\n".join([*lines, "</section>"])


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
        text.escape(f"{run.scale}. {summary.warning(table)}".strip()),
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
