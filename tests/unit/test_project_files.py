"""The files that people and services read beside the code: they agree with what they speak of."""

from __future__ import annotations

import ast
import re
import tomllib
from fnmatch import fnmatch

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from peftmark.cli.parser import COMMANDS
from places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[1-9]*.yml"))


def load(name):
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


# --- lint ---------------------------------------------------------------------------------------


def test_pre_commit_runs_what_make_lint_runs():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    recipe = re.search(r"^lint:.*\n((?:\t.+\n)+)", makefile, re.MULTILINE)[1]
    config = load(".pre-commit-config.yaml")
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert [hook["entry"] for hook in hooks] == [line[2:] for line in recipe.splitlines()]
    assert {stage for hook in hooks for stage in hook["stages"]} == set(
        config["default_install_hook_types"]
    )
    for hook in hooks:
        assert (hook["language"], hook["pass_filenames"]) == ("system", False)
        starts = re.compile(hook["files"])
        for path in ("bench/peftmark/py.py", "tests/unit/test_x.py", "pyproject.toml"):
            assert starts.match(path)


# --- versions -----------------------------------------------------------------------------------


def pythons():
    """The Pythons that the package's classifiers name."""
    found = (
        re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", text)
        for text in PROJECT["project"]["classifiers"]
    )
    return [match[1] for match in found if match]


def test_every_python_that_may_be_used_is_named_and_tried():
    allowed = SpecifierSet(PROJECT["project"]["requires-python"])
    assert pythons() == [f"3.{minor}" for minor in range(30) if f"3.{minor}.0" in allowed]
    job = load(".github/workflows/pythons.yml")["jobs"]["python"]
    assert job["strategy"]["matrix"] == {"python": pythons()}
    (tests,) = [step for step in job["steps"] if step.get("run") == "make test"]
    (left_out,) = re.findall(r"matrix\.python != '([\d.]+)'", tests["if"])
    check = load(".github/workflows/ci.yml")["jobs"]["check"]["steps"]
    assert [
        s["with"]["python-version"] for s in check if "python-version" in s.get("with", {})
    ] == [left_out]


def test_ruff_checks_for_the_oldest_python():
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + pythons()[0].replace(".", "")


def test_the_citation_is_of_this_version_and_licence():
    citation = load("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    for name in ("version", "license"):
        assert citation[name] == PROJECT["project"][name]
    assert citation["title"] == PROJECT["project"]["name"]
    assert citation["authors"] == PROJECT["project"]["authors"]
    assert [a["name"] for a in citation["authors"]] == ["The peftmark contributors"]


# --- forms --------------------------------------------------------------------------------------

KINDS = {"input", "textarea", "dropdown", "checkboxes", "markdown"}


@pytest.mark.parametrize("path", FORMS, ids=[path.stem for path in FORMS])
def test_a_form_is_one_that_can_be_shown_and_asks_for_machine_and_data(path):
    form = yaml.safe_load(path.read_text("utf-8"))
    assert form["name"] and form["description"] and form["labels"]
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids))
    for field in form["body"]:
        assert field["type"] in KINDS and field["attributes"]["label"]
        # What has a language is shown as code; a dropdown must have choices, and those be text.
        assert "options" in field["attributes"] or field["type"] != "dropdown"
        assert all(isinstance(o, str) for o in field["attributes"].get("options", []))
    labels = {field["id"]: field["attributes"]["label"] for field in form["body"]}
    assert "`peftmark doctor --json`" in labels["doctor"]
    assert "`peftmark inspect FILE`" in labels["inspect"]
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_there_is_a_form_for_each_thing_that_people_come_with_and_no_blank_one():
    names = [yaml.safe_load(path.read_text("utf-8"))["name"] for path in FORMS]
    assert names == ["A wrong number", "A crash", "A claim to judge", "A method to add"]
    assert load(".github/ISSUE_TEMPLATE/config.yml") == {"blank_issues_enabled": False}


@pytest.mark.parametrize("path", FORMS[:2], ids=[path.stem for path in FORMS[:2]])
def test_what_goes_wrong_is_told_with_its_machine(path):
    body = {field["id"]: field for field in yaml.safe_load(path.read_text("utf-8"))["body"]}
    for name in ("doctor", "command"):
        assert body[name]["validations"] == {"required": True}


# --- image --------------------------------------------------------------------------------------


def instructions():
    """The lines of the Dockerfile as (word, rest), continued ones joined."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [line.split(maxsplit=1) for line in "\n".join(lines).replace("\\\n", "").splitlines()]


def copied():
    """What of the checkout gets into the image."""
    return [name for word, rest in instructions() if word == "COPY" for name in rest.split()[:-1]]


def test_the_image_has_what_the_wheel_is_built_of_and_the_pins():
    added = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    needed = {"pyproject.toml", "README.md", "LICENSE", "bench", *added}
    assert {*needed, "constraints.txt", ".ci/requirements.lock"} == set(copied())
    assert all((ROOT / name).exists() for name in copied())
    installs = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    assert all("constraints.txt" in rest for rest in installs)
    assert "--require-hashes --no-deps -r requirements.lock" in installs[0]


def test_what_the_image_copies_is_not_kept_from_it():
    rules = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [rule for rule in rules if rule and not rule.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    assert let_in == set(copied())
    for kept_out in (".venv", ".git", "results/smoke", "reports"):
        assert not any(fnmatch(kept_out, rule) for rule in let_in)


def test_the_image_runs_peftmark_as_nobody_special_on_a_python_that_may_be_used():
    words = [word for word, _ in instructions()]
    given = dict(instructions())
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert given["USER"] not in ("root", "0")
    assert given["ENTRYPOINT"] == '["peftmark"]'
    base = re.fullmatch(r"python:(3\.\d+)-slim-\w+", given["FROM"])
    assert base and base[1] in pythons()


# --- pages --------------------------------------------------------------------------------------

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_link_to_a_file_leads_to_one(page):
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(<?([^)#>\s]+)", text):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), target


def test_the_first_page_is_short_and_begins_with_the_answer():
    assert len(README.splitlines()) <= 100
    parts = (
        "<!-- answer -->",
        "](docs/report.png)",
        "## Two commands",
        "## Your own",
        "## Where to",
    )
    places = [README.index(text) for text in parts]
    assert places == sorted(places)


def test_every_figure_of_the_answer_stands_at_the_top_of_the_report_it_is_of():
    answer = README.partition("<!-- answer -->")[2].partition("<!-- end of answer -->")[0]
    report = (ROOT / "docs" / "example" / "report.md").read_text("utf-8")
    top = report.partition("## Which should I pick?")[0]
    figures = re.findall(r"\d[\d,.]*\d|\d", answer)
    known = set(re.findall(r"\d[\d,.]*\d|\d", top))
    assert len(figures) > 4 and set(figures) <= known, set(figures) - known


def test_every_page_stands_once_in_the_index_and_the_first_page_has_its_rooms():
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    listed = re.findall(r"^\| \[([\w./-]+)\]\(([\w./-]+)\) \| .+ \|$", index, re.MULTILINE)
    assert all(name == target for name, target in listed)
    pages = {page.name for page in PAGES if page.parent.name == "docs"} - {"README.md"}
    assert sorted(name for name, _ in listed if name.endswith(".md") and "/" not in name) == sorted(
        pages
    )
    rooms = re.findall(r"^## ([\w-]+):", index, re.MULTILINE)
    assert rooms == ["Tutorials", "How-to", "Reference", "Explanation"]
    assert [room.lower() for room in rooms] == re.findall(r"^\| ([a-z-]+) \|.*\]\(", README, re.M)


def test_the_page_of_commands_names_each():
    page = (ROOT / "docs" / "commands.md").read_text("utf-8")
    named = set(re.findall(r"^peftmark ([a-z]+)", page, re.MULTILINE))
    # `pull` stands with `publish`, whose other half it is.
    assert named | {"pull"} == {command.NAME for command in COMMANDS}
    assert "`pull URL --to DIR`" in page


def test_the_page_of_suites_names_each_and_the_profiles_of_glue():
    page = (ROOT / "docs" / "shipped-suites.md").read_text("utf-8")
    named = set(re.findall(r"`([a-z-]+)`", page))
    assert {path.stem for path in (ROOT / "suites").glob("*.yaml")} <= named
    assert set(load("suites/glue.yaml")["profiles"]) <= named


AVOIDED = re.compile(
    r"\b(hungrier|held (to|against)|decides? nothing|mend(s|ed|ing)?|anew)\b", re.IGNORECASE
)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_pages_use_the_words_of_the_field(page):
    text = page.read_text("utf-8")
    found = [match[0] for match in AVOIDED.finditer(text)]
    assert not found, "uses more memory, compared with, doesn't count, fix, again"


def test_messages_use_the_words_of_the_field():
    found = []
    for path in (ROOT / "bench").rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        found += [
            (path.name, node.lineno, node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            and id(node) not in docs and AVOIDED.search(node.value)
        ]  # fmt: skip
    assert not found
