"""Reports of made-up rows for tests, and finding one's way in them."""

from dataclasses import replace

from factory import REPORT_OPTIONS, make_failure
from peftmark.render import page
from peftmark.report import view
from peftmark.report import write as report
from peftmark.report.report_input import ReportInput


def write(folder, records, planned=None, **changes):
    planned = [r.job for r in records] if planned is None else planned
    arguments = {"summary": "a demo", "options": REPORT_OPTIONS, **changes}
    paths = report.write(ReportInput(records, planned, **arguments), folder)
    texts = (p for p in paths if p.suffix != ".parquet")
    return {p.relative_to(folder).as_posix(): p.read_text("utf-8") for p in texts}


def fail(record, status="out_of_memory", reason="asked for 2 GiB"):
    return replace(record, outcome=make_failure(status, reason))


def on(records, cell, task=None):
    return [r for r in records if r.job.cell == cell and task in (None, r.job.task)]


def grid(shown, caption):
    first = [shown.first.table] if shown.first and shown.first.table else []
    grids = [*first, *(g for s in shown.sections for g in s.grids())]
    return next(g for g in grids if caption in g.caption)


def row(shown, caption, name):
    return next(r for r in grid(shown, caption).rows if r[0].text == name)


def show(records, planned=None, options=REPORT_OPTIONS):
    planned = [r.job for r in records] if planned is None else planned
    return view.page(ReportInput(records, planned, options, "a demo"))


def section(shown, key):
    return next(s for s in shown.sections if s.key == key)


def paragraphs(shown, key):
    blocks = section(shown, key).blocks
    return " ".join(b.text for b in blocks if isinstance(b, page.Paragraph))


def column(found, entries, title):
    return entries[[c.title for c in found.columns].index(title)]
