"""`python -m peftmark.docgen.evidence_page` writes into docs/evidence.md which profiles were run
for claims, which were not, and what those would take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from peftmark.catalog.models import MODELS
from peftmark.claims.ledger import Claim, ClaimTest, load_claims
from peftmark.core.files import write_all
from peftmark.record.job import Job, Record
from peftmark.render.words import plural
from peftmark.storage.published import PUBLISHED, ROWS
from peftmark.storage.rows_file import read_rows_file
from peftmark.suite.checks import suite_folders
from peftmark.suite.expand import expand
from peftmark.suite.load import Suite, load_suite

PAGE = Path("docs") / "evidence.md"
NOTE = "written by `python -m peftmark.docgen.evidence_page`; don't edit."
HERE = f"<!-- Runnable: {NOTE} -->", "<!-- End of runnable. -->"
LEFT_OUT = f"<!-- Left out: {NOTE} -->", "<!-- End of left out. -->"
WORKERS = 2
NOTHING = ("nothing",)
"""What a profile needs that two CPU cores and packages can run."""


@dataclass(frozen=True)
class Part:
    """A profile of a suite, what it would take, and what was run of it.

    Attributes:
        jobs: all of it, trials included, the repeated one left out.
        published: how many of them have an ok row that comes with peftmark.
        claims: that its rows test.
    """

    suite: str
    profile: str
    needs: str
    jobs: tuple[Job, ...]
    published: int
    claims: tuple[str, ...]

    @property
    def here(self) -> bool:
        """Whether it needs no GPU and no hub."""
        return self.needs in NOTHING


def parts(root: Path) -> list[Part]:
    """Every profile that tests a claim, in the order of the suites."""
    claims = load_claims(suite_folders(None))
    ran = _published(root)
    names = sorted({name for claim in claims.values() for name in claim.suites})
    return [
        part
        for suite in map(load_suite, names)
        for part in _of_suite(suite, claims, ran)
        if part.claims
    ]


def _of_suite(
    suite: Suite, claims: Mapping[str, Claim], ran: Mapping[str, Record]
) -> Iterator[Part]:
    for name, profile in suite.profiles.items():
        found = expand(suite, name, "cpu" if profile.needs in NOTHING else "cuda")
        jobs = tuple(j for j in (*found.jobs, *found.waits) if j.purpose != "repeat")
        done = sum(
            (r.job.suite, r.job.profile, r.job.purpose != "repeat", r.ok)
            == (suite.name, name, True, True)
            for r in ran.values()
        )
        tests = tuple(c.id for c in claims.values() if any(_tested(t, jobs) for t in c.tests or ()))
        yield Part(suite.name, name, profile.needs, jobs, done, tests)


def _tested(test: ClaimTest, jobs: Sequence[Job]) -> bool:
    """Whether a profile with these jobs has what a test of rows compares."""
    if not test.measured or not test.belongs_to(jobs[0].suite, jobs[0].profile):
        return False
    has = set(test.cells) <= {job.cell for job in jobs}
    return has and set(test.tasks or ()) <= {job.task for job in jobs}


def _published(root: Path) -> dict[str, Record]:
    files = sorted((root / "results" / PUBLISHED).glob(f"*/{ROWS}"))
    return {id_: row for file in files for id_, row in read_rows_file(file).records.items()}


def seconds(root: Path) -> dict[str, float]:
    """Purpose -> median wall seconds of a published job of an encoder on a CPU."""
    found: dict[str, list[float]] = {}
    for row in _published(root).values():
        if row.ok and row.job.device == "cpu" and not MODELS[row.job.model].causal:
            found.setdefault(row.job.purpose, []).append(row.wall_seconds)
    return {purpose: median(values) for purpose, values in found.items()}


def _minutes(part: Part, taken: Mapping[str, float]) -> str:
    """Minutes of two cores for what has no published row yet; empty for other models."""
    if any(MODELS[job.model].causal for job in part.jobs):
        return "not known: a language model"
    whole = sum(taken.get(job.purpose, taken["report"]) for job in part.jobs)
    left = whole * max(0, len(part.jobs) - part.published) / len(part.jobs)
    return f"{left / WORKERS / 60:.0f}"


def here_lines(found: Sequence[Part], taken: Mapping[str, float]) -> Iterator[str]:
    """One row for each profile that two CPU cores can run."""
    yield "| suite | profile | claims it tests | jobs | published | minutes still to run |"
    yield "|---|---|---|---|---|---|"
    for part in (p for p in found if p.here):
        cells = (part.suite, part.profile, ", ".join(part.claims), str(len(part.jobs)))
        left = "0" if part.published >= len(part.jobs) else _minutes(part, taken)
        yield f"| {' | '.join(cells)} | {part.published} | {left} |"


def left_out_lines(found: Sequence[Part], claims: Mapping[str, Claim]) -> Iterator[str]:
    """Claims that no profile here tests, with what would, and those that nothing tests."""
    here = {name for part in found if part.here for name in part.claims}
    elsewhere = {name: [p for p in found if name in p.claims] for name in claims}
    gpu = {n: p for n, p in elsewhere.items() if n not in here and p}
    never = [claim for claim in claims.values() if claim.untestable]
    yield f"**{plural(len(gpu), 'claim')} that only a GPU or the hub can test:**"
    yield ""
    for name, mine in gpu.items():
        which = ", ".join(f"`{p.suite}`, `{p.profile}` ({len(p.jobs):,} jobs)" for p in mine)
        yield f"- {name}: {which}"
    yield ""
    yield f"**{plural(len(never), 'claim')} that no suite can test:**"
    yield ""
    for claim in never:
        yield f"- {claim.id}: {claim.untestable}"


def page(text: str, root: Path) -> str:
    """The page with both lists made anew.

    Raises:
        ValueError: a mark is missing.
    """
    for mark in (*HERE, *LEFT_OUT):
        if mark not in text:
            raise ValueError(f"{PAGE} has no {mark}")
    found, taken = parts(root), seconds(root)
    lists = (
        (HERE, here_lines(found, taken)),
        (LEFT_OUT, left_out_lines(found, load_claims(suite_folders(None)))),
    )
    for (start, end), lines in lists:
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = "\n".join([f"{before}{start}", "", *lines, "", f"{end}{after}"])
    return text


def main() -> None:
    """Write the page, in the folder that the command is given in."""
    write_all({PAGE: page(PAGE.read_text(encoding="utf-8"), Path())})


if __name__ == "__main__":
    main()
