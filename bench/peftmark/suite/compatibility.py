"""Which models can be put to which tasks by which methods: faults of a profile that mixes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from peftmark.catalog.lora_methods import FROM_WHOLE
from peftmark.catalog.methods import method_of
from peftmark.catalog.metrics import metric_faults, metric_of
from peftmark.catalog.models import MODELS, Model
from peftmark.catalog.plugins import declaration, fault_of
from peftmark.catalog.prompts import prompt_of
from peftmark.catalog.task import Task, read_by
from peftmark.catalog.tasks import TASKS
from peftmark.suite.entries import entries_of
from peftmark.suite.schema import MethodEntry, Profile, SuiteFile


def check_reading(
    profile: Profile,
    entries: Sequence[MethodEntry],
    where: str,
    models: Mapping[str, Model] = MODELS,
    task_of: Callable[[str], Task] = TASKS.__getitem__,
) -> Iterator[str]:
    """Faults of models, tasks and methods that don't go together, one a line.

    Args:
        models: those that are known, the suite's own among them; others are not looked at.
        task_of: the task of a name, the suite's own among them.
    """
    names = list(dict.fromkeys(profile.model_of(entry) for entry in entries))
    there = [models[name] for name in names if name in models]
    for model in there:
        for task in profile.tasks:
            if fault := _task_fault(model, task_of(task)):
                yield f"{where}.tasks.{task}: {fault}"
    for index, entry in enumerate(entries):
        known = models.get(profile.model_of(entry))
        if known is None:
            continue
        at = f"{where}, methods[{index}] ({entry.method})"
        if fault := _method_fault(known, entry.method):
            yield f"{at}: {fault}"
        elif fault := _form_fault(known, entry):
            yield f"{at}.quantization: {fault}"
    if len(there) == len(names):
        yield from _unrelated_faults(profile, any(model.causal for model in there), where)
    for task, entry_of in profile.tasks.items():
        if entry_of.new_tokens is not None and task_of(task).kind != "instruction":
            yield f"{where}.tasks.{task}.new_tokens: no answers are written, remove it"


def check_shown_as(suite: SuiteFile, models: Mapping[str, Model]) -> Iterator[str]:
    """Faults of tasks that say how a language model is shown a row where none reads them: the words
    would be a part of the jobs' identity and change nothing else.

    Args:
        models: those that are known; what is put to others isn't looked at.
    """
    for name, task in suite.tasks.items():
        given = [key for key in ("template", "words") if key in task.model_fields_set]
        if given and declaration("task", name) is not None:  # written for any model that reads it
            continue
        put_to = dict.fromkeys(
            profile.model_of(entry)
            for profile in suite.profiles.values()
            if name in profile.tasks
            for entry in entries_of(suite, profile)
        )
        if given and put_to and all(key in models and not models[key].causal for key in put_to):
            yield (
                f"tasks.{name}.{given[0]}: read by causal language models alone, and the task is "
                f"put to no other model than {', '.join(put_to)}; remove {' and '.join(given)}"
            )


def _task_fault(model: Model, task: Task) -> str | None:
    for key in (task.metric, *task.also):
        if metric_of(key) is None and (broken := fault_of("metric", key)):
            return broken
    if task.metric and (fault := next(metric_faults(task), None)):
        return fault
    kind = read_by(task, model.causal)
    if kind is None:
        fits = [t.key for t in TASKS.values() if read_by(t, model.causal) is not None]
        if task.own:
            other = [m.key for m in MODELS.values() if read_by(task, m.causal) is not None]
            return (
                f"a task of kind {task.kind} is not for the {model.read_as} {model.key}; models "
                f"that read it: {', '.join(other)}"
            )
        return f"not for the {model.read_as} {model.key}; its tasks: {', '.join(fits)}"
    spoken = kind in ("ranking", "multiple-choice", "instruction")
    if spoken and prompt_of(task) is None:
        return f"has no prompt for the {model.read_as} {model.key}"
    return None


def _method_fault(model: Model, name: str) -> str | None:
    method = method_of(name)
    if method is None:
        return None
    if model.causal:
        why = method.not_causal
        return f"{model.key} is a {model.read_as}, {why}" if why else None
    if not method.trains and not method.fits:
        return f"{model.key} is an encoder, whose untrained head says nothing; take head"
    return None


def _form_fault(model: Model, entry: MethodEntry) -> str | None:
    """What is wrong with an entry's quantizations where a model's weights are quantised already."""
    form, method = model.stored_as, method_of(entry.method)
    if not form or method is None or method.fits == "words":
        return None
    if entry.method in FROM_WHOLE:
        return (
            f"{entry.method} starts from weights before they were quantised, and those of "
            f"{model.key} are {form} already: leave it out"
        )
    if entry.quantization == [form]:
        return None
    found = (
        f"found [{', '.join(entry.quantization)}]; the weights of {model.key} are {form} already"
    )
    if form not in method.quantizations:
        return f"{found}, which {entry.method} can't be put on: leave it out"
    return f"{found}: write quantization: [{form}]"


def double_fault(model: Model, double: bool | None) -> str | None:
    """What is wrong with whether a cell's block constants are quantised, for a model whose weights
    are quantised already."""
    if not model.stored_as or double is None or double == model.stored_double:
        return None
    how = "quantised" if model.stored_double else "not quantised"
    return (
        f"double_quantization: found {str(double).lower()}; block constants of the weights of "
        f"{model.key} are {how}: write recipe: {{double_quantization: "
        f"{str(model.stored_double).lower()}}}"
    )


def _unrelated_faults(profile: Profile, causal: bool, where: str) -> Iterator[str]:
    name = profile.unrelated
    texts = ", ".join(t.key for t in TASKS.values() if t.kind == "language")
    if name is None:
        if causal:
            yield (
                f"{where}.unrelated: missing; what a causal language model forgets is measured on "
                f"a language task that isn't trained on: {texts}"
            )
        return
    if not causal:
        yield f"{where}.unrelated: no cell has a causal language model, remove it"
    elif TASKS[name].kind != "language":
        yield f"{where}.unrelated: found {name!r}; allowed: {texts}"
    elif name in profile.tasks:
        yield f"{where}.unrelated: found {name!r}, which is a task of the profile"
