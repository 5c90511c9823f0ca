"""The workflows: what they may do, that inputs agree, and their scripts against stand-ins."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from gated import make_side
from peftmark.cli import parser
from peftmark.core.errors import Exit
from peftmark.gate import show
from peftmark.gate.judge import judge
from peftmark.gate.policy import Policy
from places import ROOT
from waiting import PATIENCE

GITHUB = ROOT / ".github"
DOC = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
PINNED = re.compile(r"uses: ([\w.-]+/[\w./-]+)@([0-9a-f]{40}) # v\d+\.\d+\.\d+")
OWN = "$/.github/actions/gate"
JOB_ONLY = {"runner", "timeout-minutes"}
"""Inputs of the reusable workflow that a composite action can't have."""


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


FILES = [*sorted((GITHUB / "workflows").glob("*.y*ml")), GITHUB / "actions" / "gate" / "action.yml"]
NAMES = [str(path.relative_to(GITHUB)) for path in FILES]
CI, GATE, COMMENT, NIGHTLY, PYTHONS, RELEASE, SITE = (
    load(GITHUB / "workflows" / f"{name}.yml")
    for name in ("ci", "gate", "gate-comment", "nightly", "pythons", "release", "site")
)
ACTION = load(FILES[-1])
WORKFLOWS = {path.stem: load(path) for path in FILES[:-1]}


def triggers(workflow):
    return workflow[True]  # YAML 1.1 reads the key `on` as a boolean


def jobs(workflow):
    return workflow["jobs"].values()


def steps(document):
    """Every step of a workflow or of the composite action."""
    if "runs" in document:
        return document["runs"]["steps"]
    return [step for job in jobs(document) for step in job["steps"]]


def step(document, name):
    (found,) = [found for found in steps(document) if found.get("name") == name]
    return found


def actions(document, name):
    return [found for found in steps(document) if found.get("uses", "").startswith(f"{name}@")]


# --- what they may do ---------------------------------------------------------------------------


def test_these_are_the_files():
    assert NAMES == [
        "workflows/ci.yml",
        "workflows/gate-comment.yml",
        "workflows/gate.yml",
        "workflows/nightly.yml",
        "workflows/pythons.yml",
        "workflows/release.yml",
        "workflows/site.yml",
        "actions/gate/action.yml",
    ]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_action_is_pinned_to_a_commit_that_its_version_stands_beside(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("uses:") == len(PINNED.findall(text)) + text.count(f"uses: {OWN}\n")


def test_an_action_has_one_commit_everywhere():
    commits = {}
    for path in FILES:
        for name, commit in PINNED.findall(path.read_text(encoding="utf-8")):
            commits.setdefault(name, set()).add(commit)
    assert set(commits) == {
        "actions/cache",
        "actions/checkout",
        "actions/deploy-pages",
        "actions/download-artifact",
        "actions/setup-python",
        "actions/upload-artifact",
        "actions/upload-pages-artifact",
        "pypa/gh-action-pypi-publish",
    }
    assert all(len(found) == 1 for found in commits.values())


def test_permissions_are_least_and_only_the_comment_and_the_release_have_more():
    reading = (CI, GATE, NIGHTLY, PYTHONS)
    for document in reading:
        assert document["permissions"] == {"contents": "read"}
        for job in jobs(document):
            assert job.get("permissions", {"contents": "read"}) == {"contents": "read"}
    assert COMMENT["permissions"] == RELEASE["permissions"] == {}
    assert [job["permissions"] for job in jobs(COMMENT)] == [
        {"actions": "read", "contents": "read", "pull-requests": "write"}
    ]
    assert {name: job["permissions"] for name, job in RELEASE["jobs"].items()} == {
        "build": {"contents": "read"},
        "publish": {"id-token": "write"},
    }
    # A page is put out by a job that runs no code of this repository.
    assert SITE["permissions"] == {"contents": "read"}
    assert "permissions" not in SITE["jobs"]["build"]
    assert SITE["jobs"]["deploy"]["permissions"] == {"id-token": "write", "pages": "write"}
    assert not [found for found in SITE["jobs"]["deploy"]["steps"] if "run" in found]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_no_dangerous_trigger_and_no_secret(path):
    text = path.read_text(encoding="utf-8")
    assert "pull_request_target" not in text
    assert "secrets" not in text


def test_only_the_trusted_workflow_starts_after_another():
    assert {name for name, found in WORKFLOWS.items() if "workflow_run" in triggers(found)} == {
        "gate-comment"
    }
    assert triggers(COMMENT)["workflow_run"]["workflows"] == [CI["name"]]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_no_expression_stands_in_a_script(path):
    scripts = [found["run"] for found in steps(load(path)) if "run" in found]
    assert bool(scripts) != (path.stem == "gate")  # what is called has none of its own
    assert not [script for script in scripts if "${{" in script]


def test_every_script_stops_at_its_first_failure_in_a_pipe_too():
    """`bash` named as the shell has pipefail; the default has not."""
    for name in WORKFLOWS.keys() - {"gate"}:
        assert WORKFLOWS[name]["defaults"] == {"run": {"shell": "bash"}}
    for found in steps(ACTION):
        assert "run" not in found or found["shell"] == "bash"


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_every_job_ends_in_time_on_a_named_system(name):
    for job in jobs(WORKFLOWS[name]):
        assert job["timeout-minutes"]
        assert not job["runs-on"].endswith("latest")
    assert triggers(GATE)["workflow_call"]["inputs"]["timeout-minutes"]["default"] > 0


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_no_checkout_leaves_its_token_behind(path):
    for found in actions(load(path), "actions/checkout"):
        assert found["with"]["persist-credentials"] is False


# --- every night --------------------------------------------------------------------------------


def test_all_tests_run_every_night_and_by_hand_and_then_what_ci_runs_with_more_seeds():
    assert set(triggers(NIGHTLY)) == {"schedule", "workflow_dispatch"}
    ((minute, hour, *days),) = [found["cron"].split() for found in triggers(NIGHTLY)["schedule"]]
    assert minute.isdecimal() and hour.isdecimal() and days == ["*"] * 3
    assert step(NIGHTLY, "Test")["run"] == "make test-all"
    smoke = step(NIGHTLY, "Run the smoke suite through the gate")
    assert smoke["if"] == "${{ !cancelled() }}"
    lines = [line.strip() for line in smoke["run"].splitlines()]
    ci = [line.strip() for line in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()]
    assert ci.index("make test") < ci.index('wait "$lint"'), "lint is waited for, and its exit"
    after = [line for line in ci[ci.index('wait "$lint"') + 1 :] if not line.startswith("#")]
    assert after.pop(-2) == ".ci/browser"
    look = step(NIGHTLY, "Look at every page in a browser")
    assert (look["run"], look["if"]) == (".ci/browser --thorough", "${{ !cancelled() }}")
    more = {
        "PROFILE=offline": "PROFILE=nightly",
        "baselines/smoke": "baselines/nightly/smoke",
        "policy.yaml": "policy-nightly.yaml",
    }
    for one, other in more.items():
        after = [line.replace(one, other) for line in after]
    assert lines == after


def test_two_published_rows_are_run_again_every_night():
    found = step(NIGHTLY, "Reproduce")
    assert found["run"] == "make reproduce SUITE=adalora-tuned"
    assert (ROOT / "results" / "published" / "adalora-tuned" / "rows.parquet").is_file()
    assert "if" not in found and "continue-on-error" not in found


def test_ci_runs_the_tests_that_look_at_no_clock():
    lines = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    assert "make test" in lines
    makefile = (ROOT / "Makefile").read_text("utf-8")
    (test,), (all_of_them,) = (
        re.findall(rf"^{name}: .*\n\t@\S+ -m pytest -m '([^']+)'", makefile, re.MULTILINE)
        for name in ("test", "test-all")
    )
    assert (test, all_of_them) == ("not gpu and not slow", "not gpu")


# --- the package --------------------------------------------------------------------------------


def test_what_is_published_is_what_was_built_and_used_and_nothing_runs_beside_its_identity():
    assert triggers(RELEASE) == {"push": {"tags": ["v*"]}}
    build, publish = RELEASE["jobs"]["build"]["steps"], RELEASE["jobs"]["publish"]
    assert [found["run"] for found in build if "run" in found][-2:] == [
        ".ci/package -c constraints.txt",
        ".venv/bin/python -m pytest tests/unit/test_package.py",
    ]
    (kept,) = [found["with"] for found in build if "upload-artifact" in found.get("uses", "")]
    taken, sent = publish["steps"]
    assert taken["with"] == {"name": kept["name"], "path": kept["path"]}
    assert (kept["path"], kept["if-no-files-found"]) == ("dist/", "error")
    assert sent.keys() == {"uses"}, "no token, no other index: the identity alone"
    assert (publish["needs"], publish["environment"]) == ("build", "pypi")


def test_the_release_restores_nothing_from_a_cache():
    assert not actions(RELEASE, "actions/cache")
    assert all("cache" not in found.get("with", {}) for found in steps(RELEASE))


def test_the_package_is_tried_alike_on_every_python_and_before_a_release():
    tried = [[found.get("run") for found in steps(one)] for one in (PYTHONS, RELEASE)]
    for runs in tried:
        install = runs.index("make .venv/.installed PYTHON=python")
        assert runs[install + 1] == ".ci/package -c constraints.txt"


@pytest.fixture
def tagged(shell):
    """Hold a tag to a project that says it has version 1.2.0."""

    def run(tag, heading, version="1.2.0"):
        (shell.work / "pyproject.toml").write_text(
            f'[project]\nversion = "{version}"\n', encoding="utf-8"
        )
        (shell.work / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n", encoding="utf-8")
        return shell.run(step(RELEASE, "Compare the tag with the version and its changes"),
                         GITHUB_REF_NAME=tag)  # fmt: skip

    return run


@pytest.mark.heavy
def test_a_tag_is_a_release_of_its_own_version_whose_changes_are_told(tagged):
    assert tagged("v1.2.0", "## 1.2.0 (2026-12-24)").returncode == 0
    for tag, heading, said in [
        ("v1.2.1", "## 1.2.1 (2026-12-24)", "pyproject.toml says version 1.2.0"),
        ("v1.2", "## 1.2.0 (2026-12-24)", "pyproject.toml says version 1.2.0"),
        ("v1.2.0", "## 1.2.0 (unreleased)", "no heading '## 1.2.0 (YEAR-MONTH-DAY)'"),
        ("v1.2.0", "## 1x2.0 (2026-12-24)", "no heading '## 1.2.0 (YEAR-MONTH-DAY)'"),
    ]:
        ended = tagged(tag, heading)
        assert ended.returncode == 1 and said in ended.stdout


# --- the trusted workflow -----------------------------------------------------------------------


def test_the_trusted_workflow_runs_no_code_but_its_own_commit():
    (checkout,) = actions(COMMENT, "actions/checkout")
    assert checkout["with"] == {
        "repository": "${{ job.workflow_repository }}",
        "ref": "${{ job.workflow_sha }}",
        "persist-credentials": False,
    }
    names = [found.get("name") for found in steps(COMMENT)]
    assert names.index("Know which peftmark this is") < names.index(checkout["name"])
    # What a run of a pull request may have filled is not restored.
    assert not actions(COMMENT, "actions/cache")
    assert all("cache" not in found.get("with", {}) for found in steps(COMMENT))


def test_the_event_reaches_the_trusted_workflow_as_environment_only():
    for found in steps(COMMENT):
        assert "github.event" not in json.dumps({k: v for k, v in found.items() if k != "env"})


def test_the_step_that_reads_foreign_data_has_no_token():
    (job,) = jobs(COMMENT)
    assert "env" not in COMMENT
    assert "env" not in job
    assert "env" not in step(COMMENT, "Render the comment")


def test_the_artefact_is_the_one_that_gates_keep():
    kept = [
        [found["with"]["name"] for found in actions(document, "actions/upload-artifact")]
        for document in (CI, NIGHTLY, ACTION)
    ]
    assert kept == [["peftmark-gate", "peftmark-results"]] * 3
    assert "name=peftmark-gate" in step(COMMENT, "Take gate.json out of the artefact")["run"]
    for document in (CI, NIGHTLY, ACTION):
        for found in actions(document, "actions/upload-artifact"):
            assert found["if"] == "${{ always() }}"
            assert found["with"]["overwrite"] is True  # a job that is started again


def closure(names):
    """The modules of these distributions and of all that they need."""
    modules = {}
    for module, owners in metadata.packages_distributions().items():
        for owner in owners:
            modules.setdefault(normal(owner), set()).add(module)
    found, waiting = set(), [normal(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found or name not in modules:
            continue
        found.add(name)
        needs = [need for need in metadata.requires(name) or [] if "extra ==" not in need]
        waiting += [normal(re.match(r"[\w.-]+", need).group()) for need in needs]
    return set().union(*(modules[name] for name in found))


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


BLOCK = """
import sys
from importlib import metadata
blocked = set(metadata.packages_distributions()) - set(sys.argv[1].split(","))
class Blocked:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in blocked and top != "bench":
            raise ModuleNotFoundError(f"the job of the comment does not install {top}", name=top)
sys.meta_path.insert(0, Blocked())
from peftmark.cli.parser import main
main(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.heavy
def test_the_comment_needs_no_package_but_those_its_job_installs(tmp_path):
    script = step(COMMENT, "Render the comment")["run"]
    assert "--require-hashes --no-deps -r .ci/comment.lock" in script
    lock = (ROOT / ".ci/comment.lock").read_text(encoding="utf-8")
    packages = re.findall(r"^([\w-]+)==", lock, re.MULTILINE)
    found = show.to_json(judge(make_side(), make_side(), Policy()))
    file = tmp_path / "gate.json"

    def ended(content, code):
        file.write_text(content, encoding="utf-8")
        modules = ",".join(closure(packages))
        run = subprocess.run(
            [sys.executable, "-c", BLOCK, modules, "comment", str(file)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert run.returncode == code, run.stderr
        return run.stdout

    comment = ended(found, 0)
    assert comment.startswith("<!-- ")
    assert comment.partition("\n")[0].endswith(" -->")
    assert ended(found[:-20], 8) == ""


# --- inputs -------------------------------------------------------------------------------------


def test_the_action_has_the_inputs_of_the_reusable_workflow():
    called = triggers(GATE)["workflow_call"]["inputs"]
    own = ACTION["inputs"]
    assert set(called) == {*own, *JOB_ONLY}
    for name, facts in own.items():
        assert facts["description"] == called[name]["description"]
        assert facts.get("required", False) == called[name].get("required", False)
        default = called[name].get("default")
        assert facts.get("default") == (str(default).lower() if default is False else default)


def test_every_input_is_handed_on_and_used():
    (last,) = [found for found in steps(GATE) if found.get("uses") == OWN]
    assert last["with"] == {name: f"${{{{ inputs.{name} }}}}" for name in ACTION["inputs"]}
    (job,) = jobs(GATE)
    for name in JOB_ONLY:
        assert f"inputs.{name}" in json.dumps({**job, "steps": []})
    for name in ACTION["inputs"]:
        assert f"${{{{ inputs.{name} }}}}" in json.dumps(ACTION["runs"])
    for found in steps(ACTION):
        for variable in found.get("env", {}):
            assert f"${variable}" in found["run"] or f"${{{variable}" in found["run"]


# --- the document -------------------------------------------------------------------------------


def examples():
    return [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", DOC, re.DOTALL)]


def calls():
    """Every use of this repository in the document: the file it names, and what it is given."""
    for example in examples():
        for job in example.get("jobs", {}).values():
            for found in [job, *job.get("steps", [])]:
                name, _, commit = found.get("uses", "").partition("@")
                if name.startswith("OWNER/peftmark/"):
                    assert commit == "<commit>"
                    yield name.removeprefix("OWNER/peftmark/"), found


def test_the_examples_name_files_and_inputs_that_exist():
    found = list(calls())
    assert [path for path, _ in found] == [
        ".github/workflows/gate.yml",
        ".github/actions/gate",
        ".github/workflows/gate-comment.yml",
    ]
    for path, use in found:
        inputs = {
            ".github/workflows/gate.yml": triggers(GATE)["workflow_call"]["inputs"],
            ".github/actions/gate": ACTION["inputs"],
            ".github/workflows/gate-comment.yml": {},
        }[path]
        assert (ROOT / path).exists()
        given = use.get("with", {})
        assert set(given) <= set(inputs)
        assert {name for name, facts in inputs.items() if facts.get("required")} <= set(given)


def test_a_caller_of_the_comment_gives_what_it_needs():
    (given,) = [use["permissions"] for path, use in calls() if path.endswith("gate-comment.yml")]
    (job,) = jobs(COMMENT)
    assert given == job["permissions"]
    caller, _, comment = [example for example in examples() if "jobs" in example]
    assert triggers(comment)["workflow_run"]["workflows"] == [caller["name"]]


def test_the_table_has_every_input_with_its_default():
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.+?) \|", DOC, re.MULTILINE))
    inputs = triggers(GATE)["workflow_call"]["inputs"]
    assert list(rows) == list(inputs)
    for name, facts in inputs.items():
        default = facts.get("default")
        if default or default is False:
            assert rows[name] == f"`{str(default).lower()}`"
        else:
            # Left empty: the words in the table say what then happens.
            assert (rows[name] == "required") == facts.get("required", False)


def test_the_table_has_every_exit_code_once():
    rows = re.findall(r"^\| (\d+) \| .+ \| .+ \|$", DOC, re.MULTILINE)
    assert [int(row) for row in rows] == list(Exit)


def test_the_example_for_gitlab_keeps_what_the_gate_writes():
    (job,) = [example["gate"] for example in examples() if "gate" in example]
    assert job["artifacts"]["when"] == "always"
    assert job["artifacts"]["reports"]["junit"].startswith(job["artifacts"]["paths"][0])
    assert job["allow_failure"] == {"exit_codes": [4]}
    assert set(job["cache"]["paths"]) == {".cache/"}


# --- scripts ------------------------------------------------------------------------------------


class Shell:
    """Runs the script of a step as a runner would, with stand-ins for the programs it calls."""

    def __init__(self, folder):
        self.folder = folder
        self.work = folder / "work"
        self.temp = folder / "temp"
        self.bin = folder / "bin"
        for made in (self.work, self.temp, self.bin):
            made.mkdir()
        self.output = folder / "output"
        self.output.touch()

    def stand_in(self, path, body):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{sys.executable}\n{CALLED}{body}", encoding="utf-8")
        path.chmod(0o755)

    def run(self, found, **environment):
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", found["run"]],
            cwd=self.work,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={
                "PATH": f"{self.bin}:{os.environ['PATH']}",
                "HOME": str(self.folder),
                "RUNNER_TEMP": str(self.temp),
                "GITHUB_OUTPUT": str(self.output),
                "GITHUB_REPOSITORY": "some/repository",
                "CALLS": str(self.folder / "calls"),
                "GITHUB_ACTION_PATH": str(GITHUB / "actions" / "gate"),
                **environment,
            },
        )

    def calls(self):
        path = self.folder / "calls"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def outputs(self):
        return dict(line.split("=", 1) for line in self.output.read_text().splitlines())


CALLED = """
import json, os, sys
with open(os.environ["CALLS"], "a") as calls:
    print(json.dumps(sys.argv[1:]), file=calls)
"""


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


RUN = step(ACTION, "Run the suite and compare it with the baseline")
INPUTS = {
    "SUITE": "smoke",
    "PROFILE": "",
    "AGAINST": "results/baselines",
    "POLICY": "",
    "ALLOW_UNDECIDED": "false",
}


@pytest.fixture
def gate(shell):
    shell.stand_in(
        shell.temp / "peftmark-venv" / "bin" / "peftmark",
        'sys.exit(int(os.environ["RAN" if sys.argv[1] == "run" else "VERDICT"]))',
    )

    def run(ran, verdict, **inputs):
        return shell.run(RUN, RAN=str(ran), VERDICT=str(verdict), **{**INPUTS, **inputs})

    return run


@pytest.mark.heavy
@pytest.mark.parametrize("verdict", range(9))
def test_the_code_of_the_gate_is_that_of_the_job(gate, verdict):
    assert gate(0, verdict).returncode == verdict


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("ran", "verdict", "expected"),
    [
        (6, 0, 6),
        (7, 0, 7),
        (6, 3, 3),
        (7, 3, 3),
        (6, 4, 4),
        (6, 6, 6),
        (7, 7, 7),
    ],
)
def test_a_run_with_failed_jobs_is_judged_and_never_passes(gate, shell, ran, verdict, expected):
    assert gate(ran, verdict).returncode == expected
    assert [call[0] for call in shell.calls()] == ["run", "gate"]


@pytest.mark.heavy
@pytest.mark.parametrize("ran", [1, 2, 130, 143])
def test_a_run_without_results_is_not_judged(gate, shell, ran):
    assert gate(ran, 0).returncode == ran
    assert [call[0] for call in shell.calls()] == ["run"]


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("ran", "verdict", "expected"),
    [
        (0, 4, 0),
        (6, 4, 6),
        (7, 4, 7),
        (0, 3, 3),
        (0, 5, 5),
        (0, 0, 0),
    ],
)
def test_undecided_passes_where_that_is_allowed_and_nothing_else(gate, ran, verdict, expected):
    assert gate(ran, verdict, ALLOW_UNDECIDED="true").returncode == expected


@pytest.mark.heavy
def test_inputs_are_one_word_each_and_results_are_new(gate, shell):
    hostile = "a b; touch stolen $(touch stolen) `touch stolen` --again *"
    inputs = dict.fromkeys(("SUITE", "PROFILE", "AGAINST", "POLICY"), hostile)
    assert gate(0, 0, **inputs).returncode == 0
    work = shell.temp / "peftmark-gate"
    both = [
        hostile,
        f"--results={work}/results",
        f"--reports={work}/reports",
        f"--profile={hostile}",
    ]
    assert shell.calls() == [
        ["run", *both],
        ["gate", *both, f"--against={hostile}", f"--policy={hostile}"],
    ]
    assert not list(shell.work.iterdir())


@pytest.mark.heavy
def test_what_is_left_out_is_not_passed_on(gate, shell):
    assert gate(0, 0).returncode == 0
    run, compared = shell.calls()
    assert compared == ["gate", *run[1:], "--against=results/baselines"]
    assert len(run) == 4


@pytest.mark.heavy
def test_the_command_line_takes_what_the_action_hands_over(gate, shell):
    assert gate(0, 0, PROFILE="p q", POLICY="r").returncode == 0
    run, compared = (parser._parser().parse_args(call) for call in shell.calls())
    for options in (run, compared):
        assert (options.suite, options.profile) == ("smoke", "p q")
        assert options.results == shell.temp / "peftmark-gate" / "results"
        assert options.reports == shell.temp / "peftmark-gate" / "reports"
    assert (compared.against, compared.policy) == (Path("results/baselines"), Path("r"))


INSTALL = step(ACTION, "Install peftmark and the library under test")
VENV = """
from pathlib import Path
if sys.argv[1:3] == ["-m", "venv"]:
    made = Path(sys.argv[3]) / "bin" / "python"
    made.parent.mkdir(parents=True)
    made.write_text(Path(__file__).read_text())
    made.chmod(0o755)
"""


@pytest.mark.heavy
@pytest.mark.parametrize("library", ["", ".", "peft @ git+https://some.host/peft", "--pre; ls"])
def test_peftmark_is_pinned_and_the_library_under_test_takes_the_place_of_its_own(shell, library):
    shell.stand_in(shell.bin / "python", VENV)
    ended = shell.run(INSTALL, INSTALL=library)
    assert ended.returncode == 0, ended.stderr
    venv, hashed, torch, own, *under_test = shell.calls()
    root = f"{GITHUB}/actions/gate/../../.."
    assert venv == ["-m", "venv", str(shell.temp / "peftmark-venv")]
    assert hashed[-4:] == ["--require-hashes", "--no-deps", "-r", f"{root}/.ci/requirements.lock"]
    assert torch[-3:] == ["-c", f"{root}/constraints.txt", "torch"]
    assert own[-2:] == ["--no-deps", root]
    if not library:
        assert under_test == []
        return
    first, again = under_test
    assert first[-2:] == ["--", library]
    assert again[-4:] == ["--force-reinstall", "--no-deps", "--", library]


@pytest.mark.heavy
def test_the_cache_is_named_after_the_pinned_versions(shell):
    assert shell.run(step(ACTION, "Name the cache")).returncode == 0
    assert re.fullmatch(r"[0-9a-f]{16}", shell.outputs()["pinned"])


@pytest.mark.heavy
def test_a_workflow_that_does_not_know_its_own_commit_stops(shell):
    found = step(COMMENT, "Know which peftmark this is")
    assert shell.run(found, SOURCE="OWNER/peftmark", COMMIT="0" * 40).returncode == 0
    for source, commit in [("", "0" * 40), ("OWNER/peftmark", ""), ("OWNER/peftmark", "main")]:
        ended = shell.run(found, SOURCE=source, COMMIT=commit)
        assert ended.returncode == 2
        assert "::error::" in ended.stdout


# The stand-in for `gh`: answers by the last part of the path, each from a file.
GH = """
import shutil
from pathlib import Path
(path,) = [word for word in sys.argv[2:] if word.startswith("repos/")]
if "--input" in sys.argv:
    Path(os.environ["ANSWERS"], "posted").write_bytes(sys.stdin.buffer.read())
else:
    name = path.partition("?")[0].rpartition("/")[2]
    with open(Path(os.environ["ANSWERS"], name), "rb") as answer:
        shutil.copyfileobj(answer, sys.stdout.buffer)
"""


@pytest.fixture
def github(shell, monkeypatch):
    """Run a step of the comment's job; keywords are answers of GitHub, capitals variables."""
    for tool in ("jq", "unzip"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing here; GitHub's runners have it")
    shell.stand_in(shell.bin / "gh", GH)
    answers = shell.folder / "answers"
    answers.mkdir()

    def run(name, **given):
        for key, value in given.items():
            if key.islower():
                text = value if isinstance(value, bytes) else json.dumps(value).encode()
                (answers / key).write_bytes(text)
        variables = {key: value for key, value in given.items() if key.isupper()}
        return shell.run(step(COMMENT, name), ANSWERS=str(answers), GH_TOKEN="t", **variables)

    return run


HEAD = {"HEAD_OWNER": "somebody", "HEAD_BRANCH": 'main"; touch stolen $(ls)', "HEAD_SHA": "a" * 40}


def pull(number, commit="a" * 40):
    return {"number": number, "head": {"sha": commit}}


@pytest.mark.heavy
def test_the_pull_request_is_the_open_one_with_this_commit(github, shell):
    ended = github("Find the pull request", pulls=[pull(3, "b" * 40), pull(7)], **HEAD)
    assert ended.returncode == 0, ended.stderr
    assert shell.outputs() == {"number": "7"}
    (call,) = shell.calls()
    assert f"head=somebody:{HEAD['HEAD_BRANCH']}" in call
    assert not list(shell.work.iterdir())


@pytest.mark.heavy
@pytest.mark.parametrize(
    "pulls",
    [
        [],
        [pull(3, "b" * 40)],
        [pull(3), pull(7)],
        [pull("7\nnumber=1")],
    ],
    ids=["none", "newer-commit", "two", "no-number"],
)
def test_without_exactly_one_such_pull_request_nothing_is_posted(github, shell, pulls):
    ended = github("Find the pull request", pulls=pulls, **HEAD)
    assert ended.returncode == 0
    assert "::notice::" in ended.stdout
    assert shell.outputs() == {}


TAKE = "Take gate.json out of the artefact"


def artefacts(*found):
    return {
        "artifacts": [
            {"id": number, "size_in_bytes": size, "expired": expired}
            for number, size, expired in found
        ]
    }


def packed(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path.read_bytes()


@pytest.mark.heavy
def test_one_file_is_taken_out_of_the_newest_artefact(github, shell, tmp_path):
    content = packed(tmp_path / "a.zip", {"gate.json": "{}", "gate.md": "x"})
    found = artefacts((5, 100, False), (9, 100, False), (11, 100, True))
    ended = github(TAKE, artifacts=found, zip=content, RUN_ID="1")
    assert ended.returncode == 0, ended.stderr
    assert shell.outputs() == {"taken": "true"}
    assert shell.calls()[1][-1] == "repos/some/repository/actions/artifacts/9/zip"
    assert {path.name for path in shell.temp.iterdir()} == {"gate.zip", "gate.json"}
    assert (shell.temp / "gate.json").read_text() == "{}"


@pytest.mark.heavy
@pytest.mark.parametrize("found", [artefacts(), artefacts((5, 100, True))], ids=["none", "expired"])
def test_a_run_without_the_artefact_has_no_comment(github, shell, found):
    ended = github(TAKE, artifacts=found, RUN_ID="1")
    assert ended.returncode == 0
    assert "::notice::" in ended.stdout
    assert shell.outputs() == {}


@pytest.mark.heavy
def test_a_large_artefact_is_not_fetched(github, shell):
    ended = github(TAKE, artifacts=artefacts((5, 2**25 + 1, False)), RUN_ID="1")
    assert ended.returncode == 1
    assert len(shell.calls()) == 1


@pytest.mark.heavy
@pytest.mark.parametrize(
    "members",
    [
        {"gate.md": "x"},
        {"gate.json": b"0" * (2**24 + 2**20)},
    ],
    ids=["no-gate.json", "a-zip-bomb"],
)
def test_an_artefact_that_is_not_a_gates_is_refused(github, shell, tmp_path, members):
    content = packed(tmp_path / "a.zip", members)
    ended = github(TAKE, artifacts=artefacts((5, 100, False)), zip=content, RUN_ID="1")
    assert ended.returncode != 0
    assert shell.outputs() == {}


@pytest.mark.heavy
def test_nothing_is_unpacked_beside_the_one_file(github, shell, tmp_path):
    content = packed(tmp_path / "a.zip", {"../../stolen": "x", "gate.json": "{}"})
    ended = github(TAKE, artifacts=artefacts((5, 100, False)), zip=content, RUN_ID="1")
    assert ended.returncode == 0, ended.stderr
    assert not list(tmp_path.rglob("stolen"))


POST = "Post it, or put it in place of the last one"
BODY = f'{show.MARKER}\nA "quoted" `line`, $(ls) — and ünïcode\n'


def comment(number, login="github-actions[bot]", body=BODY):
    return {"id": number, "user": {"login": login}, "body": body}


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ([[]], ["POST", "repos/some/repository/issues/7/comments"]),
        (
            [[comment(1, "somebody"), comment(2, body=f"> {show.MARKER}")]],
            ["POST", "repos/some/repository/issues/7/comments"],
        ),
        (
            [[comment(1, "somebody")], [comment(4), comment(5)]],
            ["PATCH", "repos/some/repository/issues/comments/4"],
        ),
    ],
    ids=["first", "of-others", "own"],
)
def test_there_is_one_comment_and_no_other_is_touched(github, shell, pages, expected):
    (shell.temp / "comment.md").write_text(BODY, encoding="utf-8")
    listed = b"".join(json.dumps(page).encode() for page in pages)
    ended = github(POST, comments=listed, NUMBER="7")
    assert ended.returncode == 0, ended.stderr
    _, posted = shell.calls()
    assert posted[2:4] == expected
    assert json.loads((shell.folder / "answers" / "posted").read_text()) == {"body": BODY}


@pytest.mark.heavy
def test_a_comment_without_a_marker_is_not_posted(github, shell):
    (shell.temp / "comment.md").write_text("no marker\n", encoding="utf-8")
    assert github(POST, comments=[], NUMBER="7").returncode == 1
    assert shell.calls() == []


# --- lint ---------------------------------------------------------------------------------------


def test_actionlint_has_nothing_to_say():
    tool = os.environ.get("ACTIONLINT") or shutil.which("actionlint")
    if not tool:
        pytest.skip("actionlint is not installed; CI runs a pinned one")
    script = step(CI, "Lint the workflows")["run"]
    ignored = [f"-ignore={known}" for known in re.findall(r"-ignore '(.+)'", script)]
    ended = subprocess.run(
        [tool, "-no-color", *ignored, *map(str, FILES[:-1])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
