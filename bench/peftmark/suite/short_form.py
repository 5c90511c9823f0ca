"""What a short suite leaves out, filled in.

A suite of one's own is whole with a model, a task and a list of methods. What it leaves out gets
the values of this file, each with where it comes from, before anything is checked: they are part
of the jobs' identity like values that were written down. A suite that writes `profiles` is taken
as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from peftmark.catalog.method import Method
from peftmark.catalog.methods import PREFIX, known_method, method_of
from peftmark.catalog.models import MODELS, Model
from peftmark.catalog.plugins import declaration
from peftmark.catalog.tasks import TASKS
from peftmark.core.shown import quoted, short
from peftmark.suite.schema_runs import rates_around

SEEDS = [0, 1, 2]
"""Three are the fewest that give an interval worth showing."""
RADAR: Mapping[str, Mapping[str, Any]] = {
    "quality": {"worst": 0.0, "best": 1.0},
    "speed": {"worst": 0.25, "best": 4.0, "scale": "log"},
    "memory": {"worst": 4.0, "best": 0.25, "scale": "log"},
    "energy": {"worst": 4.0, "best": 0.25, "scale": "log"},
    "parameters": {"worst": 30.0, "best": 0.033, "scale": "log"},
    "steps_to_target": {"worst": 4.0, "best": 0.25, "scale": "log"},
}
"""Anchors of the shipped suites: a constant guess and a perfect one, ratios of four and thirty."""
UNRELATED = "editorials"
"""The packaged text that tells what a causal language model forgets, as in suite instruct."""
RECIPE: Mapping[str, Any] = {"precision": "bf16", "batch_size": 16, "epochs": 5, "warmup": "15%"}
"""As in suite glue's small profiles; epochs are this file's own choice, made for hundreds to some
thousand rows."""
CAUSAL_EPOCHS = 3
"""Passes of a causal language model, as in suite instruct's profile full-cosine."""
LOW_WEIGHTS = 300_000_000
"""Parameters from which a base of the user's own is stored in bf16, as the field loads such."""
LARGE = 80_000_000
"""Parameters from which an encoder gets the rates of the papers, which are of base size."""


@dataclass(frozen=True)
class Rates:
    """Learning rates of a method.

    Attributes:
        small: for encoders below `LARGE`; from suites glue and methods, chosen on learning curves
            of MiniLM-L6 (docs/recipes.md).
        base: for larger encoders; None where no paper or suite has one.
        causal: for causal language models; from suite instruct, chosen on SmolLM2-135M.
    """

    small: float
    base: float | None = None
    causal: float | None = None


RATES: Mapping[str, Rates] = {
    # Base: RoBERTa's own recipe (arXiv 1907.11692, appendix C).
    "full": Rates(2e-4, 2e-5, 1e-4),
    "head": Rates(5e-3, 1e-3),
    # Base: the LoRA paper for RoBERTa-base (arXiv 2106.09685, appendix D).
    "lora": Rates(2e-3, 5e-4, 1e-3),
    "rslora": Rates(2e-3, 5e-4, 1e-3),
    "dora": Rates(2e-3, 5e-4, 1e-3),
    "pissa": Rates(1e-3),
    "olora": Rates(5e-4),
    "lora-plus": Rates(5e-4),
    "eva": Rates(2e-3),
    "corda": Rates(1e-3),
    "lora-ga": Rates(1e-3),
    "kasa": Rates(2e-3),
    # Base: the AdaLoRA paper, between its tasks' rates (arXiv 2303.10512, table 8).
    "adalora": Rates(4e-3, 1e-3, 4e-3),
    "two-stage": Rates(2e-3),
    "bitfit": Rates(1e-2),
    "ia3": Rates(2e-2),
    "adapter": Rates(5e-3),
    "prefix-tuning": Rates(1e-3),
    "p-tuning-v2": Rates(2e-2),
    "prompt-tuning": Rates(1e-2),
    "p-tuning": Rates(1e-2),
    "unipelt": Rates(5e-3),
    "bitfit-lora": Rates(2e-3),
    "adapter-lora": Rates(2e-3),
}
SIZES: Mapping[str, int] = {"rank": 8, "width": 64, "tokens": 20}
"""Size by what it is, as in suite methods."""
ALPHA: Mapping[str, float] = {"adalora": 64, "unipelt": 8}
"""Alpha where it isn't twice the rank, as in suites glue and methods."""
SCHEDULE: Mapping[str, Any] = {
    "init_ratio": 1.5,
    "tinit": "10%",
    "tfinal": "30%",
    "delta_t": 5,
    "orthogonal_weight": 0.1,
}
"""AdaLoRA's, in shares of the steps, as in suite methods."""

PROFILE: Mapping[str, Any] = {
    "needs": "nothing",
    "scale": "full",
    "sources": ["mirror", "package", "hub"],
}
"""Of the one profile: its rows are all there are, and come from wherever they can."""
GRID = (0.25, 0.5, 1, 2)
"""Rates that trials try, over the one that is filled in without them."""
PENALTIES = [0, 0.1]
"""Weights of AdaLoRA's penalty that trials try: none, and that of its paper."""

Plain = dict[str, Any]


def batch_of_few(rows: int) -> int | None:
    """The batch that a short suite has to say where there are fewer training rows than a batch has;
    None where there are enough."""
    return None if rows >= RECIPE["batch_size"] else 1 << (rows.bit_length() - 1)


def fill(raw: Any, name: str, models: Mapping[str, Model] = MODELS) -> tuple[Any, tuple[str, ...]]:
    """A suite's plain values with what it leaves out, and a line for each thing filled in.

    What isn't of the right shape is left as it is, for the types to tell.

    Args:
        raw: as read from the file.
        name: of the suite.
        models: what is known of models by their names, the user's own among them. Of one that is
            not known yet, nothing that depends on it is filled in.
    """
    if not isinstance(raw, dict) or "profiles" in raw or not {"model", "tasks"} <= raw.keys():
        return raw, ()
    found = dict(raw)
    told: list[str] = []

    def left_out(key: str, value: Any, why: str) -> None:
        if key not in found:
            found[key] = value
            told.append(f"{key}: {_word(value)} ({why})")

    model, seeds = found.pop("model"), found.pop("seeds", None)
    runs = {key: found.pop(key) for key in ("tuning", "decide") if key in found}
    known = models.get(model) if isinstance(model, str) else None
    tasks = _tasks(found)
    shared = found.get("recipe", {})
    left_out("suite", name, "the file's name")
    left_out("version", 1, "the first")
    left_out("summary", f"Methods compared on {', '.join(tasks)}.", "the tasks")
    left_out("radar", {k: dict(v) for k, v in RADAR.items()}, "as in the shipped suites")
    if isinstance(found.get("methods"), list):
        found["methods"] = [
            _entry(item, models.get(str(_named(item, model))), shared, "tuning" in runs, told)
            for item in found["methods"]
        ]
        if "reference" not in found:
            told.append(
                "reference: the first cell of the first method that trains an adapter, or else of "
                "the first"
            )
    if isinstance(shared, dict):
        more = _recipe(shared, known)
        found["recipe"] = {**shared, **more}
        told += [f"recipe.{k}: {v}" for k, v in more.items()]
    if seeds is None:
        seeds = SEEDS
        told.append(f"seeds: {seeds}")
    told.append("profile: default, with scale full, and sources mirror, package, hub")
    profile: Plain = {"summary": found["summary"], **PROFILE, "model": model, "seeds": seeds}
    profile |= {"tasks": tasks, **runs}
    _unrelated(found, profile, known, told)
    found["profiles"] = {"default": profile}
    return found, tuple(told)


def _unrelated(found: Plain, profile: Plain, known: Model | None, told: list[str]) -> None:
    """Move the text that forgetting is measured on into the profile of a causal model."""
    if known is not None and known.causal:
        if "unrelated" not in found:
            told.append(f"unrelated: {UNRELATED} (the packaged text, as in suite instruct)")
        profile["unrelated"] = found.pop("unrelated", UNRELATED)
    elif known is None and "unrelated" in found:
        profile["unrelated"] = found.pop("unrelated")


def _recipe(shared: Plain, model: Model | None) -> Plain:
    """What the recipe that all methods share leaves out."""
    usual: Plain = dict(RECIPE)
    if model is not None and model.causal:
        usual["epochs"] = CAUSAL_EPOCHS
    if shared.get("weights") in ("bf16", "fp16"):
        usual["precision"] = shared["weights"]  # such a base computes in its own type
    if "steps" in shared:
        del usual["epochs"]
    return {k: v for k, v in usual.items() if k not in shared}


def _named(item: Any, model: Any) -> Any:
    """The name of an entry's model: its own, or the suite's."""
    return (item.get("model") if isinstance(item, dict) else None) or model


def _tasks(found: Plain) -> Plain:
    """Task -> entry in the profile; a list of names at the top becomes nothing but that."""
    tasks = found["tasks"]
    if isinstance(tasks, list):
        del found["tasks"]
        return {str(task): {} for task in tasks}
    if isinstance(tasks, dict):
        entries: Plain = {}
        declared: Plain = {}
        for name, value in tasks.items():
            of_profile = {"target"} & value.keys() if isinstance(value, dict) else ()
            entries[str(name)] = {key: value[key] for key in of_profile}
            rest = {k: v for k, v in value.items() if k not in of_profile} if of_profile else value
            if rest or (name not in TASKS and declaration("task", str(name)) is None):
                declared[name] = rest
        found["tasks"] = declared
        return entries
    return {}


def _entry(item: Any, model: Model | None, shared: Any, tuned: bool, told: list[str]) -> Any:
    """A method of the list with size, learning rate and what else it needs.

    Args:
        tuned: whether trials choose settings, so that it needs a grid.
    """
    entry = {"method": item} if isinstance(item, str) else item
    if not _known(entry):
        return entry
    own = entry.get("recipe", {})
    if not isinstance(own, dict) or not isinstance(shared, dict):
        return entry
    method = known_method(entry["method"])
    more = dict(_left_out(method.key, entry, model, {**shared, **own}))
    recipe = {**more.pop("recipe", {}), **own}
    if tuned and not entry.keys() & {"tune", "learning_rates"}:
        more |= _grid(method, {**shared, **recipe})
    if more or recipe != own:
        said = [f"{k} {_word(v)}" for k, v in more.items()]
        said += [f"{k} {_word(v)}" for k, v in recipe.items() if k not in own]
        told.append(f"{method.key}: {', '.join(said)}")
    return {**entry, **more, **({"recipe": recipe} if recipe else {})}


def _known(entry: Any) -> bool:
    """Whether an entry names a method there is; YAML's keys and values may be of any type."""
    named = entry.get("method") if isinstance(entry, dict) else None
    return isinstance(named, str) and not named.startswith(PREFIX) and method_of(named) is not None


def _left_out(
    key: str, entry: Plain, model: Model | None, given: Plain
) -> Iterator[tuple[str, Any]]:
    method = known_method(key)
    if method.size is not None and not any(name in entry for name in ("size", "budget", *SIZES)):
        yield method.size, [SIZES[method.size]]
    recipe: Plain = {}
    if method.freezes and _is_large(model) and "weights" not in given and _in_bf16(entry, given):
        recipe["weights"] = "bf16"
    if not method.trains:
        yield "recipe", recipe
        return
    rate = _rate(key, model)
    if "learning_rate" not in given and rate is not None:
        recipe["learning_rate"] = rate
    if "targets" in method.settings and "targets" not in given:
        recipe["targets"] = "all-linear"
    if "alpha" in method.settings and "alpha" not in given:
        recipe["alpha"] = ALPHA.get(key, 2 * SIZES["rank"])
    if method.schedule and "adalora" not in given:
        recipe["adalora"] = dict(SCHEDULE)
    yield "recipe", recipe


def _grid(method: Method, recipe: Plain) -> Plain:
    """What trials try of a method: rates around its own, and AdaLoRA's penalty."""
    rate = recipe.get("learning_rate")
    if not method.trains or not isinstance(rate, int | float):
        return {}
    grid: Plain = {"learning_rate": rates_around(rate, GRID)}
    if method.key == "adalora":
        grid["adalora.orthogonal_weight"] = list(PENALTIES)
    return {"tune": grid}


def _is_large(model: Model | None) -> bool:
    """Whether it is the user's own, and so large that the field stores it in 16 bits."""
    return model is not None and model.own and model.parameters >= LOW_WEIGHTS


def _in_bf16(entry: Plain, given: Plain) -> bool:
    """Whether an entry computes in bf16 on every task."""
    by_task = entry.get("task_recipe", {})
    layers = [given, *(by_task.values() if isinstance(by_task, dict) else ())]
    asked = [one.get("precision", "bf16") for one in layers if isinstance(one, dict)]
    return set(asked) == {RECIPE["precision"]}


def _rate(key: str, model: Model | None) -> float | None:
    rates = RATES.get(key)
    if rates is None or model is None:
        return None
    if model.causal:
        return rates.causal
    return rates.base if model.parameters >= LARGE else rates.small


def _word(value: Any) -> str:
    """A value as it would stand in the file."""
    return short(value) if isinstance(value, str) else quoted(value)
