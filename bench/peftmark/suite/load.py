"""From a suite's file to a checked suite; nothing else is done.

A suite names a model, tasks, method cells, seeds and layers of training recipes, which
`peftmark.suite.recipes` folds into recipes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from peftmark.catalog.absent import Kind
from peftmark.catalog.models import MODELS, Model
from peftmark.catalog.plugins import plugin_of
from peftmark.catalog.task import Task
from peftmark.catalog.tasks import TASKS
from peftmark.core.errors import SuiteError
from peftmark.core.files import SUITE_NAME
from peftmark.core.shown import quoted
from peftmark.core.strict_yaml import read_yaml
from peftmark.record.job import RadarAxis, ReportOptions
from peftmark.record.plugin import check_here, used
from peftmark.suite.checks import check, reference_of, suite_folders
from peftmark.suite.entries import entries_of
from peftmark.suite.faults import fault_lines, refused
from peftmark.suite.names import Declared, declare, with_plugins
from peftmark.suite.schema import MethodEntry, Profile, SuiteFile
from peftmark.suite.short_form import fill

RESERVED = ("baselines", "external", "history", "published", "reproduced", "versions")
"""Folders in the results folder that are no suite's."""


@dataclass(frozen=True)
class Suite:
    """A checked suite: every cell of every profile resolves to a recipe.

    Attributes:
        claims: ids of the claims that its rows test.
        path: its file.
        own: the tasks of its own whose rows were read (`with_tasks`).
        filled: what its file leaves out and was filled in, a line each.
        models: the models of its own that were read (`with_models`).
        raw: its plain values, before anything was filled in.
        plugged: the tasks and models among those of its own that plug-ins declare.
    """

    name: str
    version: int
    summary: str
    report: ReportOptions
    profiles: dict[str, Profile]
    file: SuiteFile
    claims: tuple[str, ...] = ()
    path: Path = Path()
    own: Mapping[str, Task] = field(default_factory=dict)
    filled: tuple[str, ...] = ()
    models: Mapping[str, Model] = field(default_factory=dict)
    raw: Any = field(default=None, repr=False, compare=False)
    plugged: frozenset[tuple[Kind, str]] = frozenset()

    def places_of(self, kind: Kind, name: str) -> tuple[Path, ...]:
        """Where files and folders that a task or a model of its own names are looked for: those of
        a plug-in's in its package alone.

        Raises:
            UserError: it is a plug-in's that isn't installed.
        """
        if (kind, name) not in self.plugged:
            return self.places
        check_here(used([(kind, name)]))
        plugin = plugin_of(kind, name)
        assert plugin is not None
        return (plugin.folder,)

    @property
    def places(self) -> tuple[Path, ...]:
        """Where files and folders of the user's own that it names are looked for, in order: as
        typed from where one works, then beside its file."""
        return tuple(dict.fromkeys([Path(), self.path.parent]))

    def task(self, name: str) -> Task:
        """A task by its name: the suite's own, or the catalogue's.

        Raises:
            KeyError: one of its own whose rows were not read.
        """
        return self.own[name] if name in self.file.tasks else TASKS[name]

    def model(self, name: str) -> Model:
        """A model by its name: the suite's own, or the catalogue's.

        Raises:
            KeyError: one of its own that was not read.
        """
        return self.models[name] if name in self.file.models else MODELS[name]

    def own_models(self, profile: str) -> list[str]:
        """The models of its own among those of a profile."""
        wanted = needed_models(self.profiles[profile], self.methods(profile))
        return [name for name in wanted if name in self.file.models]

    def with_models(self, own: Mapping[str, Model]) -> Suite:
        """The suite with models of its own that are known: filled in for them, and checked.

        Raises:
            SuiteError: with every fault that only the models could tell.
        """
        models = {**self.models, **own}
        if not own or models == self.models:
            return self
        raw, filled = fill(self.raw, self.name, MODELS | models)
        suite = _validated(with_plugins(raw)[0])
        faults = check(suite, self.name, None, known=self.own, models=MODELS | models)
        if faults:
            raise refused(self.path, faults, "Nothing was started.")
        found = _suite(suite, self.path, filled, self.raw)
        return replace(found, own=self.own, models=models, plugged=self.plugged)

    def own_tasks(self, profile: str) -> list[str]:
        """The tasks of its own among those of a profile."""
        return [name for name in self.profiles[profile].tasks if name in self.file.tasks]

    def with_tasks(self, own: Mapping[str, Task]) -> Suite:
        """The suite with tasks of its own whose rows are known, checked with them.

        Raises:
            SuiteError: with every fault that only their rows could tell.
        """
        known = {**self.own, **own}
        faults = check(self.file, self.name, None, known=known, models=MODELS | dict(self.models))
        if faults:
            raise refused(self.path, faults, "Nothing was started.")
        return replace(self, own=known)

    def methods(self, profile: str) -> list[MethodEntry]:
        """The method entries of a profile."""
        return entries_of(self.file, self.profiles[profile])


def suite_names(own: Path | None = None) -> list[str]:
    """Names of all suites found, sorted."""
    files = (p for folder in suite_folders(own) for p in folder.glob("*.yaml"))
    return sorted({p.stem for p in files if SUITE_NAME.fullmatch(p.stem)})


def find_suite(name: str, own: Path | None = None) -> Path:
    """The file of a suite by name; a path, or a link out of its folder, is refused."""
    known = ", ".join(suite_names(own)) or "none"
    if not SUITE_NAME.fullmatch(name):
        raise SuiteError(
            f"suite {quoted(name)}: a suite is named by lower-case letters, digits, - and _, "
            "at most 64, never by a path",
            f"Known suites: {known}. For a folder of your own use --suites DIR.",
        )
    if name in RESERVED:
        raise SuiteError(
            f"no suite can be named {name!r}", "Its results folder has another meaning."
        )
    for folder in suite_folders(own):
        path = folder / f"{name}.yaml"
        try:
            there = path.is_file()
        except OSError as error:
            raise SuiteError(f"{folder} can't be read: {error.strerror or error}") from error
        if there:
            if path.resolve().parent != folder.resolve():
                raise SuiteError(f"suite {name!r}: {path} is a link that leaves its folder")
            return path
    raise SuiteError(f"there is no suite {name!r}", f"Known suites: {known}.")


def load_suite(name: str, own: Path | None = None) -> Suite:
    """Read and check a suite.

    Raises:
        SuiteError: with every fault of the file, one a line: path, value found, values allowed.
    """
    path = find_suite(name, own)
    plain = declare(read_yaml(path))
    raw, filled = fill(plain, name)
    raw, plugged = with_plugins(raw)
    try:
        suite = _validated(raw)
        faults = check(suite, name, own)
    except ValidationError as error:
        faults = [*fault_lines(error), *_faults_of_the_rest(raw, error, name, own)]
    if filled:
        faults = _of_short_form(faults)
    if faults:
        raise refused(path, faults, "Nothing was started.")
    return replace(_suite(suite, path, filled, plain), plugged=plugged)


def _suite(suite: SuiteFile, path: Path, filled: tuple[str, ...], plain: Any) -> Suite:
    return Suite(
        name=suite.suite,
        version=suite.version,
        summary=suite.summary,
        report=ReportOptions(
            reference=reference_of(suite),
            radar={k: RadarAxis(a.worst, a.best, a.scale) for k, a in suite.radar.items()},
        ),
        profiles=dict(suite.profiles),
        file=suite,
        claims=tuple(suite.claims),
        path=path,
        filled=filled,
        raw=plain,
    )


def _of_short_form(faults: Sequence[str]) -> list[str]:
    """Faults as they are in a short suite, which has no profiles."""
    found = [fault.removeprefix("profiles.default.") for fault in faults]
    keys = [fault.partition(":")[0] for fault in found]
    return [
        fault
        for at, fault in enumerate(found)
        if not (keys[at] in ("tasks", "summary") and keys[at] in keys[:at])
    ]


def _validated(raw: Any) -> SuiteFile:
    """A suite of plain values; what it declares decides which names it may use."""
    declared = (raw.get(key) if isinstance(raw, dict) else None for key in ("tasks", "models"))
    tasks, models = (tuple(map(str, one)) if isinstance(one, dict) else () for one in declared)
    return SuiteFile.model_validate(raw, context=Declared(tasks, models))


def _faults_of_the_rest(raw: Any, error: ValidationError, name: str, own: Path | None) -> list[str]:
    """Faults of meaning in what is left without the parts that have faults of shape.

    What is only missing because it was taken out is not told.
    """
    rest = copy.deepcopy(raw)
    told = any({"model", "models"} & set(item["loc"]) for item in error.errors())
    models: Mapping[str, Model] = {} if told else MODELS
    for _ in range(3):  # a list that lost its only item has to go as well, and so on upwards
        _take_out(rest, error)
        try:
            found = check(_validated(rest), name, own, models=models)
        except ValidationError as next_error:
            error = next_error
            continue
        induced = ("missing", "set nowhere", "is not a cell")
        return [fault for fault in found if not any(text in fault for text in induced)]
    return []


def _take_out(raw: Any, error: ValidationError) -> None:
    """Remove what the faults point at; from the back, so that no list index moves."""
    places = ([part for part in item["loc"] if part != "[key]"] for item in error.errors())
    for keys in sorted(places, key=lambda keys: [f"{k:>9}" for k in keys], reverse=True):
        parent = raw
        with suppress(KeyError, IndexError, TypeError):
            for key in keys[:-1]:
                parent = parent[key]
            del parent[keys[-1]]


def needed_tasks(profile: Profile, tasks: Iterable[str] | None = None) -> list[str]:
    """The tasks whose rows a profile's jobs read, the unrelated text's last.

    Args:
        tasks: those of the profile that are to run; None for all.
    """
    wanted = list(profile.tasks if tasks is None else dict.fromkeys(tasks))
    return [*wanted, *([profile.unrelated] if profile.unrelated and wanted else [])]


def needed_models(profile: Profile, entries: Sequence[MethodEntry]) -> list[str]:
    """The models that a profile's jobs train, the profile's own first."""
    return list(dict.fromkeys([profile.model, *(profile.model_of(e) for e in entries)]))
