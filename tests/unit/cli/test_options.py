"""The options of all commands together: one meaning each, and older spellings that still work."""

from __future__ import annotations

import argparse
from collections import defaultdict

import pytest

from peftmark.cli import parser, plan
from peftmark.cli.options import selection_of
from peftmark.machine.gpus import Device
from peftmark.run import runner

# (command, older spelling) -> today's. The older ones are hidden and may mean something else to
# another command: they are here so that what people have written down goes on working.
OLDER = {
    ("run", "--device"): "--node-device",
    ("simulate", "--suites"): "--repeats",
    ("claims", "--memory"): "--memory-figures",
}

# An option that means a folder of this machine to every other command, and there any place.
ELSEWHERE = {"publish": {"--to"}, "track": {"--to"}}

BY_NAME = {command.NAME: command for command in parser.COMMANDS}


def options_of(command):
    """The options that one command adds, as argparse holds them."""
    sub = argparse.ArgumentParser(add_help=False)
    command.add_options(sub)
    return [action for action in sub._actions if action.option_strings]


def option_of(command, name):
    """One option of a command."""
    module = BY_NAME[command]
    (action,) = (a for a in options_of(module) if name in a.option_strings)
    return action


def is_older(action):
    return action.help == argparse.SUPPRESS


def meaning(action):
    """What a value of this option is, and where it goes."""
    choices = None if action.choices is None else tuple(action.choices)
    kind = type(action).__name__
    return (
        action.dest,
        action.metavar,
        action.type,
        choices,
        action.nargs,
        kind,
        repr(action.default),
    )


def parsed(*words):
    return parser._parser().parse_args(words)


def test_every_command_has_a_name_of_its_own_and_a_line_of_help():
    names = [command.NAME for command in parser.COMMANDS]
    assert len(names) == len(set(names)) == 33
    assert all(command.HELP.strip() for command in parser.COMMANDS)
    assert len({command.HELP for command in parser.COMMANDS}) == len(names)


@pytest.mark.parametrize("command", parser.COMMANDS, ids=lambda command: command.NAME)
def test_every_command_tells_what_its_options_are_for(command, capsys):
    assert all(action.help for action in options_of(command))
    with pytest.raises(SystemExit) as left:
        parsed(command.NAME, "--help")
    text = capsys.readouterr().out
    assert left.value.code == 0
    assert command.HELP in text.replace("\n", " ")
    shown = {n for a in options_of(command) if not is_older(a) for n in a.option_strings}
    assert all(name in text for name in shown)


def test_no_option_has_two_meanings():
    meanings = defaultdict(lambda: defaultdict(list))
    for command in parser.COMMANDS:
        for action in options_of(command):
            if not is_older(action):
                for name in set(action.option_strings) - ELSEWHERE.get(command.NAME, set()):
                    meanings[name][meaning(action)].append(command.NAME)
    several = {name: dict(found) for name, found in meanings.items() if len(found) > 1}
    assert not several
    assert len(meanings["--suites"][meaning(option_of("run", "--suites"))]) > 5


def test_what_the_help_hides_is_an_older_spelling_of_what_it_shows():
    hidden = {
        (command.NAME, name): action
        for command in parser.COMMANDS
        for action in options_of(command)
        if is_older(action)
        for name in action.option_strings
    }
    assert set(hidden) == set(OLDER)
    for (command, name), action in hidden.items():
        today = option_of(command, OLDER[command, name])
        assert (action.dest, action.type, action.choices, action.nargs) == (
            today.dest,
            today.type,
            today.choices,
            today.nargs,
        )


@pytest.mark.parametrize("name", ["--node-device", "--device"])
def test_a_run_takes_what_the_nodes_have_by_either_spelling(name):
    asked = parsed("run", "glue", "--executor", "slurm", name, "cuda")
    assert selection_of(asked).where.device == "cuda"
    assert selection_of(parsed("run", "glue")).where.device is None


def test_a_plan_tells_a_gpu_from_what_the_nodes_have(monkeypatch):
    seen = []

    class Enough(Exception):
        pass

    def make_plan(selection):
        seen.append(selection.where.device)
        raise Enough

    monkeypatch.setattr(runner, "make_plan", make_plan)
    both = parsed("plan", "glue", "--executor", "slurm", "--node-device", "cpu", "--device", "24GB")
    with pytest.raises(Enough):
        plan.run(both)
    assert seen == ["cpu"]
    assert isinstance(plan._gpu(both.gpu), Device)


@pytest.mark.parametrize("name", ["--repeats", "--suites"])
def test_a_simulation_takes_its_size_by_either_spelling(name):
    assert parsed("simulate", name, "7").repeats == 7
    assert parsed("simulate").repeats == 3000


@pytest.mark.parametrize("name", ["--memory-figures", "--memory"])
def test_claims_take_published_memory_figures_by_either_spelling(name):
    assert parsed("claims", name).memory_figures is True
    assert parsed("claims").memory_figures is False
