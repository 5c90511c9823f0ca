"""Suite lora-family: the ten methods of one study, and as many trials for each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite

SUITES = Path(__file__).parents[2] / "suites"
STUDY = {
    "lora",
    "olora",
    "pissa",
    "milora",
    "init-ab",
    "dora",
    "loft",
    "lora-ga",
    "peft:gralora",
    "peft:randlora",
}
"""What arXiv 2602.04998 compares, in its second version."""


def test_the_ten_methods_of_the_study_have_equal_trials():
    suite = load_suite("lora-family", SUITES)
    plan = expand(suite, "offline", "cpu")
    trials = Counter((job.method, job.task) for job in plan.jobs if job.purpose == "tuning")
    assert {method for method, _ in trials} == STUDY
    assert {task for _, task in trials} == {"sts-b", "trec"}
    assert set(trials.values()) == {7}
    grids = {
        tuple(e.settings()[i]["learning_rate"] for i in range(7)) for e in suite.methods("offline")
    }
    assert len(grids) == 1
    assert len(suite.profiles["offline"].seeds) == 3
    # Nothing waits but what trials decide: as many longer ones for each, three seeds, one repeat.
    reported = len(STUDY) * 2 * 3 + 1
    assert (plan.waiting - reported) % len(STUDY) == 0
