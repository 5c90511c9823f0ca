"""Every method on three kinds of task: what an export is, and that it is the trained model.

Prints the table of docs/adapters.md. Jobs are tiny ones; every export is loaded in one process in
which peftmark can't be imported.
"""

from __future__ import annotations

from itertools import product

import pytest
import transformers

import tiny
import tiny_causal
from exports import Export, loaded_outside
from peftmark.catalog.methods import cell_title
from peftmark.lab import recipe
from peftmark.lab.export.check import exact_logits, probe_rows
from peftmark.lab.export.opened import opened
from peftmark.lab.export.predict import predict
from peftmark.lab.export.write import write
from peftmark.lab.models import Unsupported
from peftmark.sources.assets import Places

KINDS = {"tiny-class": "classes", "tiny-score": "scores", "tiny-answer": "answers"}
ASKED = [
    ("lora", "nf4"),
    ("adalora", "nf4"),
    ("two-stage", "none"),
    ("hybrid", "none"),
    ("hybrid", "nf4"),
    ("prefix-tuning", "none"),
    ("dora", "none"),
    ("dora", "nf4"),
]
"""On every kind of task."""
MORE = [
    ("lora", "none"),
    ("lora", "int8"),
    ("lora", "int8-torchao"),
    ("rslora", "none"),
    ("pissa", "none"),
    ("eva", "none"),
    ("kasa", "none"),
    ("milora", "none"),
    ("mica", "none"),
    ("init-ab", "none"),
    ("lora-fa", "none"),
    ("velora", "none"),
    ("loft", "none"),
    ("lily", "none"),
    ("hira", "none"),
    ("loftq", "nf4"),
    ("adalora", "none"),
    ("ia3", "none"),
    ("full", "none"),
    ("head", "none"),
    ("head", "nf4"),
    ("bitfit", "none"),
    ("bitfit", "nf4"),
    ("bitfit-lora", "nf4"),
    ("diff-pruning", "none"),
    ("p-tuning-v2", "none"),
    ("prompt-tuning", "none"),
    ("adapter", "none"),
    ("unipelt", "none"),
    ("peft:vera", "none"),
    ("peft:ln_tuning", "none"),
]
"""On classes alone."""
CASES = [*product(KINDS, ASKED), *((task, one) for task, one in product(["tiny-class"], MORE))]


@pytest.fixture
def everywhere(tmp_path, monkeypatch):
    """A mirror for each sort of model, with three layers, which the hybrid needs."""
    monkeypatch.setitem(tiny.SMALL, "num_hidden_layers", 3)
    llama = tiny_causal.CONFIGS["llama"]().to_dict() | {"num_hidden_layers": 3}
    monkeypatch.setitem(tiny_causal.CONFIGS, "llama", lambda: transformers.LlamaConfig(**llama))

    def install(task):
        causal = task == "tiny-answer"
        kind = tiny_causal if causal else tiny
        mirror = tmp_path / kind.__name__ / "mirror"
        if not mirror.is_dir():
            kind.install(mirror, monkeypatch)
        else:
            kind.install(tmp_path / f"again{len(list(tmp_path.iterdir()))}", monkeypatch)
        return kind, Places(mirror, ("mirror",), tmp_path / "cache")

    return install


def job_of(kind, task, method, quantization):
    steps = {"steps": 24} if method == "two-stage" else {}  # of which AdaLoRA has half
    if kind is tiny:
        return tiny.job(method, quantization, task, **steps)
    return tiny_causal.job(method, task, quantization, **steps)


def said_again(one, kind, places, done):
    """How many evaluation rows `predict` says the same of as the row of the job."""
    if kind is not tiny:
        return ""
    rows = tiny.work(places, one.job).eval.examples
    said = [row["prediction"] for row in predict(one, rows)]
    if one.task.labels:
        said = [one.task.labels.index(label) for label in said]
    same = sum(abs(a - b) < 1e-4 for a, b in zip(said, done.predictions, strict=True))
    return f"{same} of {len(rows)}"


def exported(one, target, merged):
    """The form of an export, or why it is refused."""
    target.mkdir(parents=True)
    try:
        return write(one, target, merged).form, ""
    except Unsupported as error:
        return "merged" if merged else "export", f"refused: {error}"


def lines_of(number, everywhere, tmp_path, loads):
    """Lines of the table for a case: title, task, form, what `predict` says, number in `loads`."""
    task, (method, quantization) = CASES[number]
    kind, places = everywhere(task)
    job = job_of(kind, task, method, quantization)
    names = cell_title(job.method, None, job.quantization), KINDS[task]
    folder = tmp_path / "left" / str(number)
    try:
        done = recipe.run(job, places, lambda message: None, folder)
    except Unsupported as error:
        return [[*names, "not run", str(error), None]]
    assert done.reload_max_error < 1e-5  # what is opened is what was in memory
    one, lines = opened(folder, places), []
    for merged in (False, True):
        target = tmp_path / "exports" / f"{number}{merged}"
        form, refused = exported(one, target, merged)
        if merged and form == "model" == lines[0][2]:
            continue  # the same as without
        said = refused or ("" if merged else said_again(one, kind, places, done))
        at = None
        if not refused:
            at, rows = len(loads), probe_rows(one)
            base = None if form == "model" else str(one.files)
            loads.append(Export(target, base, rows, exact_logits(one, rows)))
        lines.append([*names, "model, merged" if merged and not refused else form, said, at])
    return lines


def table(lines, apart):
    """The lines as Markdown: a column for each kind of task, below it what is refused and why."""
    kinds = list(dict.fromkeys(task for _, task, *_ in lines))
    rows, reasons = {}, {}
    for title, task, form, said, at in lines:
        row = rows.setdefault((title, form), {})
        row[task] = form if form == "not run" else "refused" if at is None else f"{apart[at]:.1e}"
        if at is None:
            reasons.setdefault(said.removeprefix("refused: "), {})[f"{title} ({form})"] = None
    yield f"\n| cell | form | {' | '.join(kinds)} |"
    yield f"|---|---|{'---|' * len(kinds)}"
    for (title, form), row in rows.items():
        if set(row.values()) - {"refused", "not run"}:
            yield f"| {title} | {form} | {' | '.join(row.get(kind, '') for kind in kinds)} |"
    yield ""
    for reason, titles in reasons.items():
        yield f"- {', '.join(titles)}: {reason}."


@pytest.mark.slow
@pytest.mark.usefixtures("unprobed")
@pytest.mark.parametrize("part", [range(len(ASKED) * len(KINDS)), range(24, len(CASES))])
def test_the_table_of_exports(part, everywhere, tmp_path, capsys):
    lines, loads, broken = [], [], []
    for number in part:
        try:
            found = lines_of(number, everywhere, tmp_path, loads)
        except Exception as error:
            broken.append((CASES[number], error))
            continue
        lines += found
        with capsys.disabled():
            print(found, flush=True)  # a run takes minutes
    apart = loaded_outside(tmp_path, loads)
    with capsys.disabled():
        print(*table(lines, apart), sep="\n")
    assert not broken
    assert max(apart) < 1e-4
    told = [said.split(" of ") for *_, said, at in lines if at is not None and said]
    assert told and all(same == count for same, count in told)
