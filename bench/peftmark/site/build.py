"""The whole site: its sources from published rows, docs and code, then MkDocs over them."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from peftmark.catalog.methods import METHODS
from peftmark.claims.ledger import Claim, load_claims
from peftmark.claims.paper import NOTHING, Paper, gather
from peftmark.core.errors import UserError
from peftmark.docgen.methods_page import known_counts
from peftmark.site import rooms
from peftmark.site.answers import answers
from peftmark.site.cards import cards, place
from peftmark.site.carry_over import carry_over_page
from peftmark.site.claims_page import claims_page, counts
from peftmark.site.evidence import EXAMPLE, Run, lines_of, runs_of, sources
from peftmark.site.front import front
from peftmark.site.reference import command_line, exit_code_page, how_we_measure, suite_keys
from peftmark.site.run_pages import address, charts, report_of, run_page, suites_page
from peftmark.sources.assets import default_cache
from peftmark.suite.checks import suite_folders
from peftmark.suite.load import load_suite, suite_names

HERE = Path(__file__).parent
ASSETS = "assets"
HOME = "index.md"
REPORTS = "reports"


@dataclass(frozen=True)
class Order:
    """What to build.

    Attributes:
        root: the project's folder.
        out: the folder that gets the site; what is in it is replaced.
        mkdocs: the program.
        repository: address that a path of the repository is put after, for links to what is no
            page; empty to leave such links out.
    """

    root: Path
    out: Path
    mkdocs: Path
    repository: str = ""

    @property
    def source(self) -> Path:
        """The folder that MkDocs reads."""
        return self.out.with_name(f"{self.out.name}-src")


Told = Callable[[str], None]


def build(order: Order, told: Told = lambda text: None) -> Path:
    """Build the site; its first page.

    Raises:
        UserError: rows, a suite or a page of the docs can't be read, or MkDocs finds a fault.
    """
    if not (order.root / "docs").is_dir():
        raise UserError(
            f"{order.root} has no folder docs", "Run `make site` in a checkout of the project."
        )
    with tempfile.TemporaryDirectory() as work:
        runs = runs_of(sources(order.root), order.root, Path(work))
        told(f"{len(runs)} published runs")
        pages = evidence_pages(runs, told) | rooms.docs(
            order.root, order.repository, _example(runs)
        )
        shutil.rmtree(order.source, ignore_errors=True)
        for run in runs:
            run.write_report(order.source / REPORTS / run.profile)
            told(f"report of {run.name}")
    for name in rooms.files(order.root):
        _copy(order.root / name, order.source / name)
    shutil.copytree(HERE / ASSETS, order.source / ASSETS)
    for name, content in pages.items():
        path = order.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    config = order.source.with_name("mkdocs.yml")
    config.write_text(_config(order, runs), encoding="utf-8")
    told(f"{len(pages)} pages; MkDocs")
    _mkdocs(order, config)
    # MkDocs would make pages of the reports' Markdown, so it is kept from reading that.
    shutil.copytree(order.source / REPORTS, order.out / REPORTS, dirs_exist_ok=True)
    # The page for what is not found takes its files from the root of a host; a folder has none.
    for path in (*order.out.rglob("*.map"), order.out / "404.html"):
        path.unlink()
    return order.out / "index.html"


def evidence_pages(runs: Sequence[Run], told: Told = lambda text: None) -> dict[str, str]:
    """Every page that is made from rows, predictions and code, by its place."""
    folders = suite_folders(None)
    ledger = load_claims(folders)
    lines = lines_of(ledger.values(), runs, _paper([*ledger.values()], folders, told))
    suites = {name: load_suite(name) for name in suite_names(None)}
    found = {
        HOME: front(answers(runs, lines), runs, counts(lines)),
        "evidence/index.md": suites_page(suites, runs),
        "evidence/claims.md": claims_page(lines, runs),
        "evidence/carry-over.md": carry_over_page(runs, suites, lines),
        "evidence/how-we-measure.md": how_we_measure(),
        "reference/command-line.md": command_line(),
        "reference/suite-keys.md": suite_keys(),
        "reference/exit-codes.md": exit_code_page(),
    }
    for run in runs:
        found |= {address(run): run_page(run), **charts(run)}
    return found | cards(known_counts(), runs)


def _paper(claims: Sequence[Claim], folders: Sequence[Path], told: Told) -> Paper:
    """What needs no rows; predictions that aren't kept yet are made."""

    def heard(done: int, total: int) -> None:
        if done == total and total:
            told(f"{total} predictions")

    return gather(claims, folders, None, default_cache(), heard=heard) if claims else NOTHING


def _example(runs: Sequence[Run]) -> dict[str, str]:
    """Where the files of the example stand: they are those of its run's report."""
    found = next((run for run in runs if EXAMPLE in run.sources), None)
    if found is None:
        return {}
    here, there = EXAMPLE.parent.as_posix(), report_of(found).removesuffix("index.html")
    return {f"{here}/{name}": f"{there}{name}" for name in EXAMPLE_FILES}


EXAMPLE_FILES = ("index.html", "rows.parquet", "rows.csv")


def nav(root: Path, runs: Sequence[Run]) -> rooms.Nav:
    """The menu: answers, evidence and methods, then the docs in their rooms."""
    first = {"Answers": HOME}
    made = {
        "Evidence": [
            ("Suites and runs", "evidence/index.md"),
            *((run.name, address(run)) for run in runs),
            ("Claims", "evidence/claims.md"),
            ("Does it carry over?", "evidence/carry-over.md"),
            ("How we measure", "evidence/how-we-measure.md"),
        ],
        "Reference": [
            ("Options of every command", "reference/command-line.md"),
            ("Keys of a suite", "reference/suite-keys.md"),
            ("Exit codes", "reference/exit-codes.md"),
        ],
    }
    methods: dict[str, object] = {
        "Methods": ["methods/index.md", *({m.title: place(m)} for m in METHODS.values())]
    }
    found = rooms.nav(root, lambda room: made.get(room, []))
    return [dict[str, object](first), found[0], methods, *found[1:]]


def _config(order: Order, runs: Sequence[Run]) -> str:
    """The configuration of MkDocs: what is fixed, and what depends on the pages, as JSON, which is
    YAML too."""
    fixed = (HERE / "mkdocs.yml").read_text(encoding="utf-8")
    of_pages = {
        "docs_dir": str(order.source.absolute()),
        "site_dir": str(order.out.absolute()),
        "nav": nav(order.root, runs),
    }
    return fixed + "".join(f"{key}: {json.dumps(value)}\n" for key, value in of_pages.items())


def _mkdocs(order: Order, config: Path) -> None:
    command = [str(order.mkdocs), "build", "--clean", "--quiet", "--config-file", str(config)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise UserError(f"MkDocs finds a fault:\n{said}", "Fix the page that it names.")


def _copy(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, to)
