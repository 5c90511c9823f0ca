"""Rows of several machines: one run a job, scores together, times apart."""

import math
from dataclasses import replace

import pytest

from factory import (
    HEAD,
    LORA,
    make_environment,
    make_failure,
    make_job,
    make_matrix,
    make_outcome,
    make_record,
)
from peftmark.analysis.machines import (
    ELSEWHERE,
    OF_ONE_MACHINE,
    elsewhere,
    machines_of,
    sentence,
    together,
)
from peftmark.analysis.table import build, metric_value, ratio, task_score
from peftmark.analysis.time_to_target import reach
from peftmark.analysis.validity import made_elsewhere, repeatability
from peftmark.record.machine_kind import machine_names, machine_of

HERE = make_environment()
THERE = make_environment(machine={"cpu": "Other CPU", "cores": 64})
JOB = make_job()


def seconds(record):
    return record.outcome.step_seconds_p50


def row(seed=0, machine=HERE, ok=True, finished="2030-01-01T00:00:20Z", **changes):
    outcome = make_outcome(**changes) if ok else make_failure()
    return make_record(
        job=make_job(seed=seed), environment=machine, outcome=outcome, finished_at=finished
    )


def table(*rows):
    return build(rows, list({r.job.job_id: r.job for r in rows}.values()), LORA)


def test_a_machine_is_its_kind_and_not_its_host():
    alike = make_environment(machine={**HERE.machine, "cores": 64, "memory_bytes": 1})
    assert machine_of(alike) == machine_of(HERE) != machine_of(THERE)
    for fact in ("cpu_model", "simd", "driver", "gpus"):
        other = make_environment(machine={**HERE.machine, fact: ["x"]})
        assert machine_of(other) != machine_of(HERE), fact


def test_kernels_that_were_asked_for_are_another_machine_and_without_them_keys_stay():
    same = make_environment(machine={**HERE.machine, "kernels": None})
    older = make_environment(machine={**HERE.machine, "kernels": "ATEN_CPU_CAPABILITY=default"})
    assert machine_of(same) == machine_of(HERE) != machine_of(older)
    told = ["made on other machines: kernels None -> ATEN_CPU_CAPABILITY=default"]
    assert list(made_elsewhere(HERE, older)) == told
    assert list(made_elsewhere(older, HERE)) and not list(made_elsewhere(HERE, same))
    assert "kernels ATEN_CPU" in machine_names([HERE, older])[machine_of(older)]


def test_machines_are_named_by_gpu_or_processor_and_told_apart():
    gpus = make_environment(machine={"cpu": "C", "gpus": ["A100", "A100"], "driver": "550"})
    newer = make_environment(machine={"cpu": "C", "gpus": ["A100", "A100"], "driver": "560"})
    names = machine_names([HERE, gpus, newer])
    assert names[machine_of(HERE)] == "Example CPU @ 2 GHz"
    assert names[machine_of(gpus)].startswith("2× A100, driver 550, C, ")
    assert len(set(names.values())) == 3


def test_a_seed_on_two_machines_is_one_seed():
    found = table(row(0), row(1), row(0, THERE, metric_value=0.5))
    score = task_score(found, LORA, "sst2")
    assert (len(score.by_seed), score.planned) == (2, 2)
    assert score.values == (0.86, 0.86)  # the main machine's, which has more
    assert found.strays == 0


def test_seeds_of_two_machines_make_one_mean_of_scores_and_none_of_times():
    found = table(row(0), row(1), row(2, THERE, metric_value=0.5, step_seconds_p50=9.0))
    assert task_score(found, LORA, "sst2").values == (0.86, 0.86, 0.5)
    assert task_score(found, LORA, "sst2", seconds).values == (0.1, 0.1)
    counted = task_score(found, LORA, "sst2", lambda r: r.outcome.trainable_parameters)
    assert len(counted.values) == 3
    live = task_score(found, LORA, "sst2", lambda r: r.outcome.peak_memory_bytes)
    assert len(live.values) == 3


def test_what_is_not_pooled_is_null_with_the_reason_and_the_stored_row_stays():
    before = row(machine=THERE)
    after = elsewhere(before, "Other CPU")
    changed = [
        name
        for name in vars(before.outcome)
        if getattr(before.outcome, name) != getattr(after.outcome, name)
    ]
    assert set(changed) <= {*OF_ONE_MACHINE, "curve", "null_reasons"}
    assert after.null_reason("train_seconds") == f"{ELSEWHERE}: Other CPU"
    assert after.null_reason("energy_gpu_joules") == "the job ran on the CPU"
    assert all(math.isnan(p.seconds) for p in after.outcome.curve)
    assert [p.metric for p in after.outcome.curve] == [p.metric for p in before.outcome.curve]
    assert before.outcome.train_seconds == 12.0


@pytest.mark.parametrize(
    "name",
    ["train_seconds", "mfu", "energy_cpu_joules", "torch_reserved_bytes", "vmhwm_bytes"],
)
def test_times_energy_and_allocators_are_of_one_machine(name):
    assert name in OF_ONE_MACHINE


@pytest.mark.parametrize(
    "name", ["metric_value", "loss", "live_bytes", "flops_per_step", "adapter_bytes", "steps"]
)
def test_scores_counts_and_live_bytes_are_of_all(name):
    assert name not in OF_ONE_MACHINE


def test_a_peak_that_an_allocator_saw_is_of_one_machine():
    allocated = row(peak_memory_source="torch_allocated_bytes", torch_allocated_bytes=7)
    found = elsewhere(replace(allocated, nvml_process_bytes=5, nvml_reason=""), "B")
    assert found.outcome.peak_memory_bytes is found.nvml_process_bytes is None
    assert found.null_reason("peak_memory_bytes") == f"{ELSEWHERE}: B"
    assert found.null_reason("nvml_process_bytes") == f"{ELSEWHERE}: B"


def test_the_main_machine_has_most_finished_rows_and_of_equals_the_newest():
    many = machines_of([row(0), row(1), row(0, THERE, finished="2031")])
    assert many.main == machine_of(HERE)
    equal = machines_of([row(0), row(1, THERE, finished="2031")])
    assert equal.main == machine_of(THERE)
    failed = machines_of([row(0, ok=False), row(1, ok=False), row(0, THERE)])
    assert failed.main == machine_of(THERE)


def test_a_job_that_failed_on_the_main_machine_counts_where_it_finished():
    rows = [row(0), row(1), row(2, ok=False), row(2, THERE, metric_value=0.4)]
    found = together(machines_of(rows))
    assert found[rows[2].job.job_id].outcome.metric_value == 0.4
    third = make_environment(machine={"cpu": "Third"})
    newer = row(2, third, metric_value=0.3, finished="2035")
    for several in ([*rows, newer], [newer, *rows]):
        found = together(machines_of(several))
        assert found[newer.job.job_id].outcome.metric_value == 0.3


def test_one_machine_is_as_ever():
    rows = [row(0), row(1)]
    assert list(together(machines_of(rows)).values()) == rows
    assert sentence(machines_of(rows)) == sentence(machines_of([])) == ""


def test_two_rows_of_one_job_on_one_machine_are_refused():
    with pytest.raises(ValueError, match="pick one attempt"):
        machines_of([row(0), row(0, finished="2031")])


def test_the_sentence_counts_by_hand():
    text = sentence(machines_of([row(0), row(1), row(1, THERE), row(2, THERE, ok=False)]))
    assert "2 machines" in text
    assert "Example CPU @ 2 GHz (2), Other CPU (1)" in text
    assert text.endswith("of Example CPU @ 2 GHz alone, 2 of 2 finished jobs.")


def test_ratios_of_time_pair_runs_of_one_machine():
    here = make_matrix(cells=[LORA, HEAD], tasks=["sst2"], seeds=[0, 1])
    there = [
        replace(r, environment=THERE)
        for r in make_matrix(cells=[LORA, HEAD], tasks=["sst2"], seeds=[2])
    ]
    found = build([*here, *there], [r.job for r in [*here, *there]], LORA)
    assert ratio(found, HEAD, seconds).pairs == 2
    assert ratio(found, HEAD, metric_value).pairs == 3


def test_time_to_the_target_is_of_the_main_machine_and_steps_are_of_all():
    slow = tuple(replace(p, seconds=1e6) for p in make_outcome().curve)
    found = reach(table(row(0), row(1), row(2, THERE, curve=slow)), LORA, "sst2")
    assert found.finished == 3 and found.median == 60
    assert found.seconds == 6.0


# --- the run that is made twice -------------------------------------------------------------------

REPEAT = replace(JOB, purpose="repeat")


def twice(here, there):
    """Verdict where the job ran on both machines, and its repeat with these losses."""
    machines = {}
    for name, machine, losses in (("a", HERE, here), ("b", THERE, there)):
        jobs = zip((JOB, REPEAT), losses, strict=True)
        machines[name] = {
            job.job_id: make_record(
                job=job,
                environment=machine,
                outcome=make_outcome(metrics={"accuracy": loss}),
            )
            for job, loss in jobs
            if loss is not None
        }
    records = machines["a"] | machines["b"]
    return repeatability([JOB, REPEAT], records, machines).verdict


def test_other_bits_on_another_machine_are_no_repeat_that_failed():
    assert twice((0.5, None), (None, 0.6)) == "not comparable"
    assert twice((0.5, 0.5), (0.6, 0.6)) == "same"
    assert twice((0.5, 0.5), (None, 0.6)) == "same"


def test_a_repeat_that_failed_on_any_machine_is_told():
    assert twice((0.5, 0.7), (0.6, 0.6)) == "different"
    assert twice((0.5, 0.5), (0.6, 0.7)) == "different"
