"""Plug-ins by entry points: found, held to the checks, hashed, told of when they can't be used."""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from dataclasses import replace

import pytest

import example_plugin
from factory import make_environment, make_job
from peftmark.catalog import plugins
from peftmark.catalog.method import ANY, Method, Option
from peftmark.catalog.methods import METHODS, all_methods, cell_title, method_of
from peftmark.catalog.metrics import METRICS, metric_of, sign_of
from peftmark.catalog.models import MODELS
from peftmark.catalog.plugin_code import code_hash, files_of
from peftmark.catalog.plugin_rows import carried, plugin_faults, row_faults, row_from
from peftmark.catalog.quantizations import QUANTIZATIONS, quantization_of
from peftmark.catalog.tasks import TASKS
from peftmark.core.errors import SuiteError, UserError
from peftmark.machine.environment import of_job
from peftmark.record.job import Job
from peftmark.record.plugin import UsedPlugin, check_here, missing, note, used
from peftmark.suite.compatibility import _task_fault
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from places import ROOT, SUITES
from plugged import load, package, uninstall

EXAMPLE = "peftmark-example 1.0"
KEYS = [
    ("quantization", "int8-whole"),
    ("metric", "worst-recall"),
    ("method", "norms"),
    ("model", "example-bert"),
    ("task", "two-halves"),
]
METRIC = """
from peftmark.catalog.metrics import Metric
PEFTMARK_API = 1
def miss(**changes):
    given = dict(key="miss", title="misses", direction="lower", low=0.0, high=float("inf"),
                 summary="rows missed", kinds=("classification",), code="one_plugin.lab:miss")
    return Metric(**given | changes)
"""
LAB = {"one_plugin/lab.py": "def miss(references, predictions):\n    return 0.0\n"}


@pytest.fixture
def example(site):
    example_plugin.install(site)
    load()
    return site


def metric(site, changes="", module=METRIC, key="miss", **more):
    """A package with one metric, whose function is called with some changes."""
    text = f"{module}\ndef it():\n    return miss({changes})\n"
    package(site, text, "metrics", {key: "it"}, extra=LAB, **more)
    [found] = plugins.all_found()
    return found


# --- found ----------------------------------------------------------------------------------------


def test_the_example_of_the_page_is_found_with_all_five_and_no_fault(example):
    assert [(p.kind, p.key, p.origin, p.fault) for p in plugins.all_found()] == [
        (kind, key, EXAMPLE, "") for kind, key in KEYS
    ]
    assert METHODS["norms"].title == "norm tuning" and "norms" in all_methods()
    assert METRICS["worst-recall"].high == 1.0
    assert QUANTIZATIONS["int8-whole"].bits == 8
    # A method that sits on any quantization sits on this one, and one that names its own doesn't.
    assert "int8-whole" in METHODS["lora"].quantizations
    assert METHODS["pissa"].quantizations == ("none",)
    assert METHODS["loftq"].quantizations == ("nf4", "fp4")
    assert "torch" not in str(example_plugin.shown()["peftmark_example/rows.py"])


def test_without_being_asked_for_nothing_is_looked_for(site):
    example_plugin.install(site)
    assert "norms" not in METHODS and "peftmark_example" not in sys.modules
    plugins.load(only={("method", "norms")})
    assert [p.key for p in plugins.all_found()] == ["norms"]
    plugins.unload()
    assert "norms" not in METHODS and "int8-whole" not in METHODS["lora"].quantizations


def test_a_name_says_where_it_comes_from(example):
    found = plugins.origins("method", METHODS)
    assert found["norms"] == {"package": "peftmark-example", "version": "1.0"}
    assert found["lora"]["package"] == "peftmark"
    assert found.keys() == METHODS.keys()


def test_commands_list_plug_ins_with_their_packages(example, peftmark):
    code, said = peftmark("list", "--json")
    told = json.loads(said)
    assert code == 0
    for kind, key in KEYS:
        assert told["from"][f"{kind}s"][key] == {"package": "peftmark-example", "version": "1.0"}
        assert told[f"{kind}s"][key].endswith(f" [{EXAMPLE}]")
    assert told["from"]["methods"]["lora"]["package"] == "peftmark"
    _, said = peftmark("methods", "--json")
    assert json.loads(said)["from"]["norms"]["version"] == "1.0"
    _, said = peftmark("methods")
    assert re.search(r"^norms +norm tuning +- +not counted", said, re.M)
    assert f"norms is of the package {EXAMPLE}." in said
    _, said = peftmark("methods", "--markdown")
    assert f"Zhao et al. 2023, arXiv 2312.11420; package {EXAMPLE} |" in said


# --- checks ---------------------------------------------------------------------------------------


def test_peftmarks_own_rows_are_held_to_the_same_checks():
    tables = {"method": METHODS, "metric": METRICS, "quantization": QUANTIZATIONS}
    found = [
        f"{key}: {fault}"
        for kind, table in tables.items()
        for key, row in table.items()
        for fault in row_faults(kind, row)
    ]
    assert not found, "\n".join(found)


PLAIN = Method("novel", "novel", "lora", "rank", "a summary", "a paper", code="a.b:c")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"title": ""}, "title: a line"),
        ({"title": "\x1b[31mred"}, "title: a line"),
        ({"summary": "x" * 201}, "summary: at most 200 characters, 201"),
        ({"family": "novel"}, "family: found 'novel'"),
        ({"family": "reference"}, "family 'reference' is peftmark's own"),
        ({"size": "depth"}, "size: found 'depth'"),
        ({"settings": ("beta",)}, "settings: found 'beta'"),
        ({"sits_on": ("int3",)}, "sits_on: found 'int3'"),
        ({"sits_on": "nf4"}, "sits_on: found 'nf4'; a tuple"),
        ({"hooks": ("now",)}, "hooks: found 'now'"),
        ({"size": None, "budget": True}, "budget: a method without"),
        ({"trains": False}, "a plug-in's method trains"),
        ({"options": (Option("a", 3, (0, 2), "-"),)}, "options, a: its default is 3"),
        ({"options": (Option("a", 1, (0, 2), "-"),) * 2}, "options: two have"),
        ({"options": ("a",)}, "options: found str"),
        ({"key": "other"}, "its key is 'other'"),
        ({"code": "a.b"}, "code: found 'a.b'"),
    ],
)
def test_a_method_that_lacks_something_is_noticed(changes, says):
    row = replace(PLAIN, **changes)
    found = [*row_faults("method", row), *plugin_faults("method", "novel", row)]
    assert any(fault.startswith(says) for fault in found), found
    assert not [*row_faults("method", PLAIN), *plugin_faults("method", "novel", PLAIN)]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ("direction='up'", "direction: found 'up'"),
        ("low=1.0, high=0.0", "low, high: found 1.0, 0.0"),
        ("kinds=()", "kinds: name the kinds"),
        ("kinds=('novel',)", "kinds: found 'novel'"),
        ("key='accuracy'", "its key is 'accuracy'"),
        ("code='json:dumps'", "is no file of its package, so no hash would cover it"),
        ("code='one_plugin.lab:absent'", "lab.py has no absent"),
        ("code='one_plugin.gone:miss'", "there is no module one_plugin.gone"),
        ("low=None", "low, high: found None"),
        ("kinds=None", "kinds: found None"),
    ],
)
def test_a_metric_that_lacks_something_is_refused_with_package_and_entry_point(
    site,
    changes,
    says,
):
    found = metric(site, changes)
    assert found.row is None and says in found.fault
    start = "plug-in one-plugin 2.0, entry point [peftmark.metrics] miss = one_plugin.rows:it: "
    assert found.told.startswith(start)
    assert "miss" not in METRICS and plugins.fault_of("metric", "miss") == found.told


BROKEN = [
    ("raise RuntimeError('no\\nsuch\\x1b thing')", "it raised RuntimeError: no such"),
    ("import sys; sys.exit(3)", "it raised SystemExit: 3"),
    ("import no_such_module", "it raised ModuleNotFoundError"),
    ("PEFTMARK_API = 2", "written for version 2 of the plug-in interface, and this peftmark has"),
    ("del PEFTMARK_API", "doesn't say PEFTMARK_API = 1"),
    ("miss = lambda: 'a metric'", "it returned builtins.str, not a peftmark.catalog.metrics."),
    ("def miss(): raise ValueError('never')", "it raised ValueError: never"),
]


@pytest.mark.parametrize(("more", "says"), BROKEN)
def test_a_plug_in_that_fails_is_told_of_and_ends_nothing_else(site, capsys, more, says):
    before = [job.job_id for job in expand(load_suite("smoke", SUITES), "offline", "cpu").jobs]
    found = metric(site, module=f"{METRIC}\nprint('hello')\n{more}\n")
    assert says in found.fault and found.told.isprintable()
    assert [j.job_id for j in expand(load_suite("smoke", SUITES), "offline", "cpu").jobs] == before
    assert not capsys.readouterr().out  # what it prints is no answer of ours


def test_a_name_that_is_taken_is_nobodys(site):
    before = METRICS["accuracy"]
    found = metric(site, "key='accuracy'", key="accuracy")
    assert found.fault == "peftmark has a metric of this name; it needs another"
    assert METRICS["accuracy"] is before


def test_a_name_that_two_packages_give_is_nobodys(site):
    metric(site)
    assert metric_of("miss") is not None
    package(site, METRIC, "metrics", {"miss": "miss"}, name="one_plugin_more")
    assert "another installed package has an entry point of this name" in plugins.fault_of(
        "metric", "miss"
    )
    assert metric_of("miss") is None


def test_a_row_that_loads_torch_is_refused(site, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    found = metric(site, module=f"{METRIC}\nimport sys\nsys.modules['torch'] = sys\n")
    sys.modules.pop("torch")
    assert found.fault == "it loads torch, which only the code that a row names may"


@pytest.mark.parametrize("path", ["/etc/passwd", "../rows.csv", "a/../../rows.csv", "~/rows.csv"])
def test_rows_of_a_package_cannot_lie_outside_of_it(site, path):
    module = (
        "from peftmark.own.declared import OwnTask\nPEFTMARK_API = 1\n"
        f"def it():\n    return OwnTask(kind='language', train=[{path!r}], text='a')\n"
    )
    package(site, module, "tasks", {"far": "it"})
    assert f"found {path!r}; paths are relative" in plugins.fault_of("task", "far")


def test_what_asks_for_a_broken_plug_in_ends_with_its_message(site, tmp_path, peftmark):
    package(site, "import no_such_module", "methods", {"broken": "it"})
    (tmp_path / "suites").mkdir()
    text = "model: minilm-l6\ntasks: [trec]\nmethods: [{method: broken}]\nrecipe: {steps: 4}\n"
    (tmp_path / "suites" / "mine.yaml").write_text(f"suite: mine\n{text}")
    code, said = peftmark("plan", "mine")
    assert code == 2 and said.count("plug-in one-plugin 2.0") == 1
    assert "[peftmark.methods] broken = one_plugin.rows:it: it raised ModuleNotFoundError" in said
    assert not (tmp_path / "results").exists()


def test_a_task_with_a_metric_of_a_broken_plug_in_says_what_is_broken(site):
    metric(site, module=f"{METRIC}\nimport no_such_module\n")
    task = replace(TASKS["sst-2"], own=True, metric="miss", also=())
    assert "metrics] miss = one_plugin.rows:it: it raised Mod" in _task_fault(
        MODELS["minilm-l6"], task
    )


def test_the_doctor_lists_good_and_broken_ones(example, monkeypatch):
    from peftmark.run import doctor

    package(example, "import no_such_module", "methods", {"broken": "it"})
    found = {one.what: one for one in doctor._plugins()}
    assert found["plug-in method norms"].found == EXAMPLE
    assert not found["plug-in method broken"].ok and not found["plug-in method broken"].needed
    assert "no_such_module" in found["plug-in method broken"].found


# --- code -----------------------------------------------------------------------------------------


def hashed(found):
    return found.code, sorted(files_of(found.installed, found.target.partition(":")[0]))


def test_every_file_of_a_package_is_hashed_and_nothing_else(example):
    files = ["__init__.py", "halves.csv", "lab.py", "rows.py"]
    names = [f"peftmark_example/{name}" for name in files]
    wanted = hashlib.sha256()
    for name in names:
        digest = hashlib.sha256((example / name).read_bytes()).hexdigest()
        wanted.update(f"{name}\0{digest}\n".encode())
    found = plugins.plugin_of("method", "norms")
    assert hashed(found) == (wanted.hexdigest()[:16], names)


def test_an_editable_package_has_the_hash_of_an_installed_one(example):
    before = hashed(plugins.plugin_of("method", "norms"))
    example_plugin.install(example, listed=False)
    (example / "peftmark_example" / ".hidden").write_text("-")
    (example / "peftmark_example" / "__pycache__").mkdir(exist_ok=True)
    (example / "peftmark_example" / "__pycache__" / "lab.pyc").write_text("-")
    load()
    assert hashed(plugins.plugin_of("method", "norms")) == before


@pytest.mark.parametrize("name", ["rows.py", "lab.py", "halves.csv"])
def test_any_changed_file_is_another_hash_and_another_job(example, name):
    asked = [("method", "norms")]
    [before] = used(asked)
    path = example / "peftmark_example" / name
    path.write_text(f"{path.read_text()}\n")
    load()
    [after] = used(asked)
    assert (before.code != after.code) and before.row == after.row
    ids = {make_job(method="norms", plugins=(one,)).job_id for one in (before, after)}
    assert len(ids) == 2


def test_one_file_is_hashed_alone(site):
    (site / "lonely.py").write_text("x = 1\n")
    (site / "stranger.py").write_text("x = 2\n")
    example_plugin.distribute(site, "lonely", "1", "", [])
    from importlib import metadata

    found = files_of(metadata.distribution("lonely"), "lonely")
    assert [*found] == ["lonely.py"] and len(code_hash(found)) == 16
    assert files_of(metadata.distribution("lonely"), "absent") == {}


# --- what a job carries ---------------------------------------------------------------------------


def test_a_job_without_plug_ins_says_nothing_of_them(example):
    assert used([("method", "lora"), ("metric", "accuracy"), ("quantization", "nf4")]) == ()
    assert "plugins" not in json.loads(make_job().to_json())


def test_a_job_survives_json_with_its_plug_ins(example):
    names = [("method", "norms"), ("quantization", "int8-whole"), ("metric", "worst-recall")]
    job = make_job(method="norms", plugins=used([*names, ("method", "lora")]))
    assert [(p.kind, p.key) for p in job.plugins] == sorted(names)
    assert Job.from_json(job.to_json()) == job
    told = json.loads(job.to_json())["plugins"][0]
    assert told["distribution"] == "peftmark-example" and told["row"]["title"] == "norm tuning"
    assert told["code"] == plugins.plugin_of("method", "norms").code


@pytest.mark.parametrize("kind", ["method", "metric", "quantization"])
def test_every_row_is_itself_again_after_json(kind):
    tables = {"method": METHODS, "metric": METRICS, "quantization": QUANTIZATIONS}
    for key, row in tables[kind].items():
        told = json.loads(json.dumps(carried(kind, row), allow_nan=False))
        assert row_from(kind, key, told) == row, key


def test_what_another_peftmark_says_of_a_row_is_read_as_far_as_it_is_known():
    told = carried("metric", METRICS["rmse"]) | {"novel": [1, 2]}
    assert row_from("metric", "rmse", told) == METRICS["rmse"]
    assert row_from("metric", "rmse", told | {"direction": "sideways"}) is None
    assert row_from("method", "lora", {"title": "LoRA"}) is None


def test_an_environment_has_versions_and_hash_of_what_a_job_uses(example):
    environment = make_environment(sources={"peft": "abc"})
    assert of_job(environment, make_job()) is environment
    [one] = used([("method", "norms")])
    found = of_job(environment, make_job(plugins=(one,)))
    assert found.versions["peftmark-example"] == "1.0"
    assert found.sources == {"peft": "abc", "peftmark-example": one.code}


# --- not installed any more -----------------------------------------------------------------------


def gone(site, **changes):
    """What a stored row said of the metric of a package that was uninstalled."""
    metric(site, "low=-1.0")
    [one] = used([("metric", "miss")])
    uninstall(site, forgetting=True)
    assert metric_of("miss") is None
    return replace(one, **changes)


def test_a_metric_keeps_its_direction_when_its_package_is_gone(site):
    one = gone(site)
    note([one])
    assert sign_of("miss") == -1.0
    assert (metric_of("miss").low, metric_of("miss").high) == (-1.0, math.inf)
    assert "miss" not in METRICS
    assert used([("metric", "miss")]) == (one,)  # so that a plan has the ids that its rows have


def test_the_newest_row_says_what_a_plug_in_was(site):
    one = gone(site)
    other = replace(one, code="f" * 16)
    note([one])
    note([other])
    assert used([("metric", "miss")]) == (one,)
    note([other], newest=True)
    assert used([("metric", "miss")]) == (other,)


def test_a_row_that_cannot_be_read_leaves_the_name_alone(site):
    note([gone(site, row={"direction": "sideways"})])
    assert metric_of("miss") is None and sign_of("miss") == 1.0


def test_what_would_run_without_its_package_is_refused_with_the_package(site):
    one = gone(site)
    with pytest.raises(UserError, match="metric miss is of the package one-plugin, which isn't"):
        check_here([one])
    assert [*missing([one, one])] == [
        "metric miss is of the package one-plugin, which isn't installed here: what is said of "
        "them is what the rows say, and they can't be run"
    ]


def test_other_code_than_was_planned_with_is_refused(example):
    [one] = used([("method", "norms")])
    check_here([one])
    with pytest.raises(UserError, match="is not what the job was planned with"):
        check_here([replace(one, code="0" * 16)])
    with pytest.raises(UserError, match="is not what the job was planned with"):
        check_here([replace(one, distribution="another")])


def test_a_name_that_peftmark_has_now_is_its_own_whatever_rows_say(site):
    note([gone(site, key="accuracy", kind="metric")])
    assert sign_of("accuracy") == 1.0
    assert used([("metric", "accuracy")]) == ()


def test_what_would_run_with_a_broken_package_is_refused_with_the_reason(site):
    one = gone(site)
    metric(site, module=f"{METRIC}\nimport no_such_module\n")
    with pytest.raises(UserError, match=r"metric miss: plug-in one-plugin 2.0.*no_such"):
        check_here([one])


def test_titles_come_from_the_rows(example):
    stored = used([("method", "norms"), ("quantization", "int8-whole")])
    uninstall(example, forgetting=True)
    assert cell_title("norms", None, "int8-whole") == "norms + int8-whole"  # nobody knows them
    note(stored)
    assert cell_title("norms", None, "int8-whole") == "norm tuning + int8, no outliers"
    assert method_of("norms").source.startswith("Zhao")
    assert quantization_of("int8-whole").reload_tolerance == 0.2


def test_the_page_is_linked():
    for page in ("README.md", "CONTRIBUTING.md"):
        assert "(docs/plugins.md)" in (ROOT / page).read_text(encoding="utf-8"), page


def test_a_suite_that_has_the_name_itself_means_its_own(example, tmp_path):
    folder = tmp_path / "suites"
    folder.mkdir()
    text = "suite: mine\nmodel: minilm-l6\nmethods: [lora]\nrecipe: {steps: 4}\ntasks: "
    own = "{two-halves: {kind: classification, train: mine.csv, text: a, label: b}}\n"
    (folder / "mine.yaml").write_text(f"{text}[two-halves]\n")
    suite = load_suite("mine", folder)
    assert suite.plugged == {("task", "two-halves")}
    assert suite.file.tasks["two-halves"].metric == "worst-recall"
    assert suite.places_of("task", "two-halves") == (example / "peftmark_example",)
    (folder / "mine.yaml").write_text(text + own)
    suite = load_suite("mine", folder)
    assert not suite.plugged and suite.file.tasks["two-halves"].train == ("mine.csv",)
    (folder / "mine.yaml").write_text(f"{text}[two-thirds]\n")
    with pytest.raises(SuiteError, match="did you mean two-halves"):
        load_suite("mine", folder)


def test_any_is_every_quantization_there_is():
    assert replace(PLAIN, sits_on=ANY).quantizations == tuple(QUANTIZATIONS)
    assert UsedPlugin("method", "x", "y", "z").here is False
