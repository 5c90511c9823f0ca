"""`peftmark pin` against a small hub: commits into a suite's file, all else as it was."""

from __future__ import annotations

import json

import pytest

import hub_stub
from hub_stub import REVISION, Repository, serve
from peftmark.cli import parser
from peftmark.core.errors import SuiteError
from peftmark.run import pin as module

PINNED = "d" * 40
SUITE = f"""\
# What suits tickets?  hub: tiny/tickets
model: minilm-l6   # small
tasks:
  # the newest first
  tickets:
    label: category  # before the data set
    hub: tiny/tickets@main   # hub: tiny/tickets@main
    text: body
    kind: classification
  same: {{kind: classification, hub: tiny/tickets@main, text: body, label: category}}
  mails: {{"kind": classification, "hub": "tiny/mails", text: body, label: kind}}
  old: {{kind: classification, hub: 'tiny/tickets@{PINNED}', text: body, label: category}}
  more: {{kind: classification, hub: 'tiny/tickets-2', text: body, label: category}}

  filed: {{kind: classification, train: tickets.csv, text: hub, label: category}}
methods: [head]
"""
AFTER = (
    SUITE.replace("    hub: tiny/tickets@main ", f"    hub: tiny/tickets@{REVISION} ")
    .replace("hub: tiny/tickets@main, ", f"hub: tiny/tickets@{REVISION}, ")
    .replace('"tiny/mails"', f'"tiny/mails@{REVISION}"')
    .replace("'tiny/tickets-2'", f"'tiny/tickets-2@{REVISION}'")
)
SETS = tuple(
    Repository("dataset", name, {}) for name in ("tiny/tickets", "tiny/tickets-2", "tiny/mails")
)


@pytest.fixture
def suite(tmp_path):
    return write(tmp_path, SUITE)


def write(folder, text):
    path = folder / "suites" / "mine.yaml"
    path.parent.mkdir()
    path.write_bytes(text.encode())
    return path


def pin(url, path, *more, **env):
    words = ["pin", "mine", "--suites", str(path.parent), *more]
    return hub_stub.call(url, path.parent.parent, "command", words=words, **env)


@pytest.mark.heavy
def test_a_branch_becomes_its_commit_and_all_else_stays(suite):
    with serve(*SETS) as hub:
        told = pin(hub.url, suite)
        asked = [one for one in hub.requests if "/api/" in one]
    assert (told["code"], told["error"]) == (0, "")
    assert suite.read_text() == AFTER
    assert told["out"].splitlines() == [
        f"tiny/tickets@main -> tiny/tickets@{REVISION}",
        f"tiny/mails -> tiny/mails@{REVISION}",
        f"tiny/tickets-2 -> tiny/tickets-2@{REVISION}",
        f"Wrote {suite}.",
    ]
    assert len(asked) == 3, "each data set is asked for once"
    assert [path.name for path in suite.parent.iterdir()] == ["mine.yaml"]


@pytest.mark.heavy
def test_what_is_pinned_is_not_asked_for_nor_written(suite):
    suite.write_text(AFTER)
    before = suite.stat().st_mtime_ns
    with serve() as hub:
        told = pin(hub.url, suite)
        assert hub.requests == []
    assert told == {"code": 0, "out": f"{suite}: nothing of the hub is left to pin.\n", "error": ""}
    assert suite.stat().st_mtime_ns == before


@pytest.mark.heavy
def test_ends_of_lines_stay_and_json_tells_the_changes(tmp_path):
    path = write(tmp_path, SUITE.replace("\n", "\r\n"))
    with serve(*SETS) as hub:
        told = pin(hub.url, path, "--json")
    assert path.read_bytes().decode() == AFTER.replace("\n", "\r\n")
    found = json.loads(told["out"])
    assert found["suite"] == str(path)
    assert found["pinned"][0] == {
        "found": "tiny/tickets@main",
        "written": f"tiny/tickets@{REVISION}",
    }


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("served", "changed", "told"),
    [
        (SETS[:2], SUITE, "data set tiny/mails at main: tiny/mails does not exist there"),
        (
            SETS,
            SUITE.replace('"tiny/mails"', "tiny/mails@dev"),
            "data set tiny/mails at dev: tiny/mails has no revision dev",
        ),
        ([Repository("dataset", "tiny/tickets", {}, "v1")], SUITE, "the hub tells no commit"),
    ],
)
def test_one_data_set_that_is_not_there_leaves_the_file_as_it_was(tmp_path, served, changed, told):
    path = write(tmp_path, changed)
    with serve(*served) as hub:
        done = pin(hub.url, path)
    assert (done["code"], done["out"]) == (2, "")
    assert told in done["error"] and "Traceback" not in done["error"]
    assert path.read_bytes().decode() == changed
    assert [one.name for one in path.parent.iterdir()] == ["mine.yaml"]


@pytest.mark.heavy
def test_without_a_network_the_file_is_as_it_was(suite):
    with serve() as hub:
        url = hub.url
    for env in ({}, {"env": {"HF_HUB_OFFLINE": "1"}}):
        done = pin(url, suite, **env)
        assert (done["code"], done["out"]) == (2, "")
        assert "the hub can't be asked for commits: " in done["error"]
        assert "Go online" in done["error"]
        assert suite.read_text() == SUITE


@pytest.mark.parametrize(
    ("hub", "told"),
    [
        ("three/parts/long", "'three/parts/long'"),
        ("'a b'", "'a b'"),
        ("[tiny/mails]", "''"),
        ("{a: b}", "''"),
        ("''", "''"),
    ],
)
def test_what_names_no_data_set_is_refused_before_anything_is_asked(
    tmp_path, monkeypatch, hub, told
):
    monkeypatch.setattr(module, "hub_reachable", lambda: pytest.fail("asked"))
    text = SUITE.replace('"tiny/mails"', hub)
    path = write(tmp_path, text)
    with pytest.raises(SuiteError) as refused:
        module.pin("mine", path.parent)
    assert refused.value.what == f"{path}, line 11: tasks.mails.hub: found {told}"
    assert "owner/name@branch" in refused.value.remedy
    assert path.read_text() == text


@pytest.mark.parametrize("text", ["", "tasks:\n", "tasks: [a]\n", "tasks: {t: 3}\n", "x: 1\n"])
def test_a_file_without_data_sets_of_the_hub_has_nothing_to_pin(tmp_path, text):
    path = write(tmp_path, text)
    assert module.pin("mine", path.parent) == (path, [])


def test_no_such_suite_is_exit_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        parser.main(["pin", "none", "--suites", str(tmp_path)])
    assert left.value.code == 2
    assert "there is no suite 'none'" in capsys.readouterr().err
