"""`python -m peftmark.docgen.data_types_page` computes the errors of 4-bit data types on trained
weights, and writes them into the ledger of claims and docs/data-types.md.

It needs the weights of the packaged encoders (fetched once). One of them is fine-tuned for it, all
weights on one task, in a minute or two.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftmark.catalog.models import MODELS
from peftmark.catalog.tasks import TASKS
from peftmark.claims.weight_errors import ERRORS, ErrorsFile, FineTuned, WeightErrors
from peftmark.core.files import write_all
from peftmark.sources.assets import Places, default_cache, model_files

if TYPE_CHECKING:
    from peftmark.record.job import Job

PAGE = Path("docs") / "data-types.md"
SUITES = Path("suites")
LEDGER = SUITES / ERRORS
KINDS = {
    "nf4": "NF4",
    "nf4_double": "NF4, double",
    "fp4": "FP4",
    "fp4_double": "FP4, double",
    "int4": "int4",
}
OF = ("minilm-l6", "mpnet-base")
"""Encoders that packages hold as they were trained; SmolLM2's packaged ones went through 4 bits."""
TUNED = ("glue", "offline", "trec", 0)
"""Suite, profile, task and seed of the run that fine-tunes all weights."""
RATE = 2e-4
"""Its learning rate, whatever the profile's is by now."""

HEAD = """\
# 4-bit data types on trained weights

Scope: how far the weights of packaged encoders, as published and fine-tuned, lie from what a 4-bit
type makes of them, for claim C08. Limits: an error of weights, not of a model's scores or
perplexity; encoders of 11 and 85 million weights, not language models; one fine-tuned one, of one
run.

Written by `python -m peftmark.docgen.data_types_page`, which computes everything again, the
fine-tuning included, and keeps the figures in `suites/claims/weight-errors.yaml`; don't edit.

Every type is told alike: the {block} weights of a block are divided by the largest magnitude among
them, its constant, and each becomes the nearest level of the type. Levels of NF4 and FP4 are
bitsandbytes'; int4 is a uniform symmetric grid of 15 levels, -7/7 to 7/7, and no quantization that
a suite can name. Double: the constants less their mean become 8-bit floats in blocks of 256, by
bitsandbytes' own code. The error is that of all matrices in the layers together: the root mean
squared difference over the root mean square of the weights, which is the Frobenius norm of the
difference over that of the weights. In brackets the largest difference of a weight, in root mean
squares of the weights.
"""
TUNED_TEXT = """
Fine-tuned: {title} with every weight trained on {task} for {steps} steps at rate {rate:g}
(otherwise as `{suite}`, profile `{profile}`, seed {seed}), which moved these weights by
{moved:.2%} of their norm.
"""
BESIDE = """
## Beside what was claimed

| claimed | by | here |
|---|---|---|
| perplexity of LLaMA-65B on WikiText-2: 5.21 in 16 bits, 5.34 in NF4 (+2.5 %), 6.87 in int4 (+31.9 %), so that int4 loses 12.8 times as much | the article, as of the QLoRA paper | not perplexity: int4's error of weights is {ratio:.2f} times NF4's |
| constants in 8 bits are off by less than 1e-4 (root mean square) | the article | {constants} |
| double quantization changes the result by less than 0.1 % | the article, of perplexity | {doubled:+.2%} of NF4's error at most |
"""  # noqa: E501


def compute() -> ErrorsFile:
    """The errors on every model's weights, as published and fine-tuned."""
    from peftmark.lab.quantization.weight_error import linear_weights

    files = {name: _weights_file(name) for name in OF}
    models = {name: WeightErrors(**_figures(linear_weights(file))) for name, file in files.items()}
    job = _job()
    with tempfile.TemporaryDirectory(prefix="peftmark-") as scratch:
        tuned = _fine_tuned(job, Path(scratch) / "left")
        before, after = linear_weights(files[job.model]), linear_weights(tuned)
        facts = FineTuned(
            task=job.task,
            steps=job.recipe.steps,
            moved=_rounded(_moved(before, after)),
            **_figures(linear_weights(tuned)),
        )
    return ErrorsFile(models=models, fine_tuned={job.model: facts})


def _weights_file(name: str) -> Path:
    places = Places(None, ("package",), default_cache())
    return model_files(MODELS[name], places).path / MODELS[name].weights_file


def _figures(weights: Iterable[Any]) -> dict[str, Any]:
    from peftmark.lab.quantization.weight_error import BLOCK, errors

    found = errors(weights, KINDS)
    return {
        "weights": found.count,
        "block": BLOCK,
        **{kind: round(value, 5) for kind, value in found.relative.items()},
        "largest": {kind: round(value, 3) for kind, value in found.largest.items()},
        "constants": _rounded(found.constants),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _job() -> Job:
    from peftmark.suite.expand import expand
    from peftmark.suite.load import load_suite

    suite, profile, task, seed = TUNED
    jobs = expand(load_suite(suite, SUITES), profile, "cpu").jobs
    wanted = ("full", task, seed, "report")
    job = next(j for j in jobs if (j.method, j.task, j.seed, j.purpose) == wanted)
    return replace(job, recipe=replace(job.recipe, learning_rate=RATE))


def _fine_tuned(job: Job, outbox: Path) -> Path:
    """Train every weight; the file of those that were trained."""
    from peftmark.lab import recipe

    places = Places(None, ("package",), default_cache())
    done = recipe.run(job, places, lambda message: None, outbox)
    if done.status != "ok":
        raise RuntimeError(f"job {job.job_id} ended as {done.status}: {done.status_reason}")
    return next(outbox.glob("*.safetensors"))


def _moved(before: Iterable[Any], after: Iterable[Any]) -> float:
    """The norm of what changed over the norm before. Both files name the matrices in one order."""
    change = power = 0.0
    for old, new in zip(before, after, strict=True):
        change += float((new - old).double().square().sum())
        power += float(old.double().square().sum())
    return float((change / power) ** 0.5)


# --- writing -------------------------------------------------------------------------------------


def ledger(found: ErrorsFile) -> str:
    """The figures as the ledger of claims reads them."""
    lines = [
        "# Errors of 4-bit data types on trained weights: docs/data-types.md says what they are.",
        "# Written by `python -m peftmark.docgen.data_types_page`; don't edit.",
        "models:",
        *(line for name, one in found.models.items() for line in _entry(name, one)),
        "fine_tuned:",
        *(line for name, one in found.fine_tuned.items() for line in _entry(name, one)),
    ]
    return "\n".join([*lines, ""])


def _entry(name: str, one: WeightErrors) -> list[str]:
    lines = [f"  {name}:"]
    if isinstance(one, FineTuned):
        lines += [f"    task: {one.task}", f"    steps: {one.steps}", f"    moved: {one.moved}"]
    lines += [f"    weights: {one.weights}", f"    block: {one.block}"]
    lines += [f"    {kind}: {one.of(kind):.5f}" for kind in KINDS]
    largest = ", ".join(f"{kind}: {one.largest[kind]:.3f}" for kind in KINDS)
    return [*lines, f"    largest: {{{largest}}}", f"    constants: {one.constants:.3g}"]


def page(found: ErrorsFile) -> str:
    """The page of the documentation."""
    block = next(iter(found.models.values())).block
    heads = ["model", "weights", *KINDS.values(), "NF4 / FP4", "NF4 / int4"]
    table = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    table += [_row(MODELS[name].title, one) for name, one in found.models.items()]
    table += [
        _row(f"{MODELS[name].title}, fine-tuned", one) for name, one in found.fine_tuned.items()
    ]
    parts = [HEAD.format(block=block), *table]
    for name, one in found.fine_tuned.items():
        suite, profile, _, seed = TUNED
        told = TUNED_TEXT.format(
            title=MODELS[name].title, task=TASKS[one.task].title, steps=one.steps, suite=suite,
            profile=profile, seed=seed, moved=one.moved, rate=RATE,
        )  # fmt: skip
        parts.append(told.rstrip("\n"))
    every = {**_titled(found.models), **_titled(found.fine_tuned, ", fine-tuned")}
    beside = BESIDE.format(
        ratio=max(one.int4 / one.nf4 for one in every.values()),
        constants="; ".join(f"{title}: {one.constants:.1e}" for title, one in every.items()),
        doubled=max(one.nf4_double / one.nf4 - 1 for one in every.values()),
    )
    return "\n".join([*parts, beside])


def _titled(errors: Mapping[str, WeightErrors], more: str = "") -> dict[str, WeightErrors]:
    return {f"{MODELS[name].title}{more}": one for name, one in errors.items()}


def _row(title: str, one: WeightErrors) -> str:
    figures = " | ".join(f"{one.of(kind):.2%} ({one.largest[kind]:.1f})" for kind in KINDS)
    ratios = f"{one.nf4 / one.fp4:.3f} | {one.nf4 / one.int4:.3f}"
    return f"| {title} | {one.weights:,} | {figures} | {ratios} |"


def main() -> None:
    """Write both files below the working directory."""
    found = compute()
    write_all({LEDGER: ledger(found), PAGE: page(found)})


if __name__ == "__main__":
    main()
