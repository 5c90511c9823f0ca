"""What the page of `make gpu-report` says of figures."""

from __future__ import annotations

import pytest

from peftmark.perf import gpu_page


def figure(value, low=None, high=None):
    return {"value": value, "low": low, "high": high, "n": 8, "how": "made up"}


def seen(launches, waits, reason=""):
    return {"launches": launches, "copies": 3.0, "waits": waits, "where": {}, "reason": reason}


def cell(ratio, gap=0.0):
    return {
        "reason": "",
        "ours": figure(41.256),
        "bare": figure(40.0),
        "ratio": figure(ratio, ratio - 0.01, ratio + 0.01),
        "losses": 105,
        "loss_gap": gap,
        "watched": {"ours": seen(1189.0, 0.0), "bare": seen(3632.4, 37.2)},
    }


NOTHING = {"ours": None, "bare": None, "ratio": None, "watched": None}


def job(name, start, before, wall=20.0, predicted=10.0, status="ok", **nulls):
    return {
        "job": name,
        "status": status,
        "start_seconds": start,
        "jobs_before": before,
        "step_seconds_p50": 0.0412,
        "wall_seconds": wall,
        "predicted_seconds": predicted,
        "energy_gpu_joules": None if nulls else 612.4,
        "energy_flags": ["short window: 4.1 s"],
        "null_reasons": nulls,
    }


def part(key, outcome="done", reason="", took=61.4, **found):
    return {
        "key": key,
        "title": f"part {key}",
        "outcome": outcome,
        "reason": reason,
        "seconds": took,
        "found": found,
    }


def facts(*parts, **changes):
    return {
        "date": "2030-01-01 00:00 UTC",
        "commit": "0123456789abcdef",
        "dirty": False,
        "machine": {"cpu": "Example CPU", "cores": 16, "gpus": ["Example GPU"], "driver": "580.1"},
        "versions": {"torch": "2.13.0", "peft": "0.21.2"},
        "load_at_start": 0.5,
        "device": "cuda",
        "quick": False,
        "minutes": 8.0,
        "missing": [],
        "seconds": 433.0,
        "parts": list(parts),
        **changes,
    }


STEPS = part(
    "steps_minilm",
    model="MiniLM",
    cells={
        "LoRA": cell(1.031),
        "AdaLoRA, batched": cell(1.05),
        "AdaLoRA, PEFT's own": cell(1.051, 2.5e-7),
        "QLoRA (NF4)": {"reason": "RuntimeError: no kernel", **NOTHING},
    },
)
SMOKE = part(
    "smoke",
    seconds=100.0,
    repeat={"verdict": "same", "detail": ""},
    jobs=[
        job("LoRA r8, trec, seed 0", 7.9, 0),
        job("LoRA r8, trec, seed 1", 1.2, 1, wall=11.0),
        job("Head, trec, seed 1", 2.04, 2, wall=30.0, energy_gpu_joules="no counter here"),
        job("LoRA r8, trec, seed 0, repeat", 8.3, 0, status="crashed"),
    ],
)


def test_targets_stand_beside_figures_and_say_whether_they_held():
    text = gpu_page.page(facts(STEPS, SMOKE))
    step = "| step of ours over a bare loop: MiniLM"
    assert f"{step}, LoRA | 1.031 | ≤ 1.05 | yes |" in text
    assert f"{step}, AdaLoRA, batched | 1.050 | ≤ 1.05 | yes |" in text
    assert f"{step}, AdaLoRA, PEFT's own | 1.051 | ≤ 1.05 | no |" in text
    assert f"{step}, QLoRA (NF4) | – | ≤ 1.05 | – |" in text
    assert "| start of a process's first job, s, the longest | 8.30 | – | – |" in text
    assert "| start of its later jobs, s, the longest | 2.04 | ≤ 2 | no |" in text
    assert "| bits of the repeated job | same | same | yes |" in text


def test_starts_are_the_longest_of_each_kind():
    found = [job("a", 3.0, 0), job("b", 5.0, 2), job("c", 4.0, 1), job("d", None, None)]
    assert gpu_page.starts(found) == (3.0, 5.0)
    assert gpu_page.starts([]) == (None, None)


def test_at_a_tiny_size_no_time_is_held_against_a_target():
    text = gpu_page.page(facts(STEPS, SMOKE, quick=True))
    assert "AdaLoRA, PEFT's own | 1.051 | ≤ 1.05 | – |" in text
    assert "| 2.04 | ≤ 2 | – |" in text
    assert "| bits of the repeated job | same | same | yes |" in text


def test_steps_have_both_sides_and_what_torch_saw():
    lines = gpu_page.page(facts(STEPS)).splitlines()
    [own] = [line for line in lines if line.startswith("| MiniLM | LoRA")]
    assert own == (
        "| MiniLM | LoRA | 41.26 | 40.00 | 1.031 | 1.021 to 1.041 | 105 the same bits "
        "| 1,189.0 / 3,632.4 | 0.0 / 37.2 |"
    )
    [off] = [line for line in lines if line.startswith("| MiniLM | AdaLoRA, PEFT's own")]
    assert "| 105 differ by 2.5e-07 at most |" in off
    [none] = [line for line in lines if line.startswith("| MiniLM | QLoRA")]
    assert none.count("–") == 7
    text = gpu_page.page(facts(part("steps_minilm", model="M", cells={"LoRA": cell(1.0, None)})))
    assert "105 one is no number" in text


def test_jobs_have_starts_times_and_energy():
    text = gpu_page.page(facts(SMOKE))
    assert (
        "| LoRA r8, trec, seed 1 | 1 | 1.20 | 11.0 | 10.0 | 41.2 | 612 | short window: 4.1 s |"
        in text
    )
    assert "| Head, trec, seed 1 | 2 | 2.04 | 30.0 | 10.0 | 41.2 | – |" in text
    assert "seed 0, repeat (crashed) |" in text
    assert "- energy\\_gpu\\_joules: no counter here (1 times)" in text
    assert "| smoke: wall over predicted, median | 2.00 |" in text


def test_rows_that_differ_are_named():
    compared = [{"job": "LoRA", "differs": ""}, {"job": "Head", "differs": "metrics: 1 and 2"}]
    text = gpu_page.page(facts(part("alone", compared=compared)))
    assert "but for times | 1 of 2 the same; Head: metrics: 1 and 2 | all the same | no |" in text
    text = gpu_page.page(facts(part("alone", compared=compared[:1])))
    assert "| 1 of 1 the same | all the same | yes |" in text
    assert "| 0 of 0 the same | all the same | – |" in gpu_page.page(
        facts(part("alone", compared=[]))
    )


def test_a_repeat_with_other_bits_is_told():
    other = {
        **SMOKE,
        "found": {**SMOKE["found"], "repeat": {"verdict": "different", "detail": "x"}},
    }
    assert "| bits of the repeated job | different: x | same | no |" in gpu_page.page(facts(other))


def test_packed_jobs_and_glue_stand_beside_their_plan():
    packed = {
        "jobs": 8, "in_turn_seconds": 120.0, "packed_seconds": 48.0, "whole": True,
        "compared": [], "in_turn": [], "packed": [],
    }  # fmt: skip
    glue = {
        "model": "minilm-l6", "hours": 0.0251, "plan_seconds": 1740.0, "plan_reason": "",
        "seconds": 88.0, "jobs": 7, "ok": 6, "timed_jobs": 6, "jobs_seconds": 70.0,
        "jobs_predicted_seconds": 84.0,
    }  # fmt: skip
    text = gpu_page.page(facts(part("packed", **packed), part("glue", **glue)))
    assert "| 8 jobs in turn, s | 120.0 |" in text and "| times as fast | 2.50 |" in text
    assert "whole profile as planned, s | 1,740 |" in text
    assert "hours given, and jobs that ran | 0.025, 7 |" in text
    assert "wall seconds of 6 jobs | 70 |" in text and "predicted of them | 84 |" in text
    broken = gpu_page.page(facts(part("packed", **{**packed, "whole": False})))
    assert "| times as fast | – |" in broken
    unknown = {**glue, "plan_seconds": None, "plan_reason": "not calibrated"}
    text = gpu_page.page(facts(part("glue", **unknown)))
    assert "as planned, s | – |" in text and "- plan of glue: not calibrated" in text


def test_every_part_is_a_line_with_its_reason_and_no_text_breaks_the_table():
    failed = part("glue", "failed", "a | b\n<b>c</b> *d*", 3.0)
    text = gpu_page.page(facts(failed, part("packed", "not run", "not offered", 0.0)))
    assert "| part glue | failed | 3 | a \\| b \\<b\\>c\\</b\\> \\*d\\* |" in text
    assert "| part packed | not run | 0 | not offered |" in text


@pytest.mark.parametrize(
    ("changes", "there", "absent"),
    [
        ({}, "Example GPU, driver 580.1, Example CPU, 16 cores, torch 2.13.0", "Nothing here"),
        ({}, "commit 0123456789ab; load 0.50 at the start; 433 s of 480.", "tiny size"),
        ({"device": "cpu"}, "**Nothing here was run on a GPU.**", "tiny size"),
        ({"quick": True}, "**At a tiny size**", "Nothing here"),
        ({"dirty": True, "commit": None}, "commit unknown with changes", "0123"),
        ({"missing": ["task x is not in the cache"]}, "task x is not in the cache.", "tiny size"),
    ],
)
def test_the_head_says_where_and_how(changes, there, absent):
    text = gpu_page.page(facts(**changes))
    assert there in text and absent not in text


def test_figures_that_a_gpu_alone_has_are_missing_with_a_reason():
    own = cell(1.0)
    own["watched"] = {side: seen(None, 3.0, "no CUPTI") for side in ("ours", "bare")}
    text = gpu_page.page(facts(part("steps_minilm", model="M", cells={"LoRA": own})))
    assert "| – / – | 3.0 / 3.0 |" in text and "- kernels a step: no CUPTI (2 times)" in text
    own["watched"] = {side: seen(None, None, "no CUDA device") for side in ("ours", "bare")}
    text = gpu_page.page(facts(part("steps_minilm", model="M", cells={"LoRA": own})))
    assert "| – / – | – / – |" in text
    assert "- kernels and waits a step: no CUDA device (2 times)" in text
