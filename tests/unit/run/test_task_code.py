"""Files of tasks that the user wrote: what in them is code is found, however it is written."""

from __future__ import annotations

import pytest

from peftmark.core.errors import UserError
from peftmark.run.task_code import TRUST, check_tasks

DATA = """
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
output_type: multiple_choice
doc_to_text: "Sky: {{sky}} Colour:"
doc_to_choice: ["blue", "grey"]
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
"""


@pytest.fixture
def tasks(tmp_path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "colours.yaml").write_text(DATA)
    return folder


def test_a_task_of_data_alone_passes(tasks):
    (tasks / "more.yaml").write_text("include: colours.yaml\ntask: more\n")
    check_tasks(tasks, trusted=False)
    check_tasks(None, trusted=False)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("process_docs: !function utils.process", "'!function' names Python"),
        ("process_docs: !<!function> utils.process", "'!function' names Python"),
        ("process_docs: !%66unction utils.process", "'!function' names Python"),
        ("x: [{y: !function a.b}]", "'!function' names Python"),
        ("? !function a.b\n: 1", "'!function' names Python"),
        ("x: !!python/name:os.system", "'tag:yaml.org,2002:python/name:os.system' names"),
        ("class: mine.Task", "class names Python that lm-eval would run: 'mine.Task'"),
        ('"cl\\x61ss": mine.Task', "class names Python that lm-eval would run: 'mine.Task'"),
        ("include: ../../x.yaml", "a file that isn't one of the folder's tasks: '../../x.yaml'"),
        ("include: [colours.yaml, /etc/x.yaml]", "the folder's tasks: '/etc/x.yaml'"),
        ("include: part.yml", "the folder's tasks: 'part.yml'"),
    ],
)
def test_code_is_refused_with_its_place_until_it_is_trusted(tasks, line, what):
    inner = tasks / "deep"
    inner.mkdir()
    (inner / "own.yaml").write_text(f"task: own\n{line}\n")
    with pytest.raises(UserError) as caught:
        check_tasks(tasks, trusted=False)
    assert caught.value.what.startswith(f"{inner / 'own.yaml'}, line 2: ")
    assert what in caught.value.what
    assert caught.value.remedy == TRUST
    check_tasks(tasks, trusted=True)


def test_a_prefix_of_tags_hides_nothing(tasks):
    text = "%TAG !x! !func\n---\ntask: own\nprocess_docs: !x!tion utils.process\n"
    (tasks / "own.yaml").write_text(text)
    with pytest.raises(UserError, match="'!function' names Python"):
        check_tasks(tasks, trusted=False)


def test_what_is_not_yaml_is_not_passed_over(tasks):
    (tasks / "own.yaml").write_text("task: [own\n")
    with pytest.raises(UserError, match="can't be read: not YAML"):
        check_tasks(tasks, trusted=False)


def test_an_alias_that_leads_back_ends(tasks):
    (tasks / "own.yaml").write_text("task: own\nx: &x [*x]\n")
    check_tasks(tasks, trusted=False)


def test_a_folder_without_tasks_is_refused(tmp_path):
    for trusted in (False, True):
        with pytest.raises(UserError, match="no folder with tasks"):
            check_tasks(tmp_path / "none", trusted)
