"""One job trained by several processes: what one process would give, in every one of them."""

from __future__ import annotations

from dataclasses import replace

import psutil
import pytest
import torch
import transformers
from safetensors.torch import load_file

import tiny
import tiny_causal
import tiny_worker
from peftmark.executors import process
from peftmark.executors.contract import Order
from peftmark.executors.local import run_jobs
from peftmark.executors.slots import Slot
from peftmark.lab import recipe
from peftmark.lab.after_training import SHARDED as SHARDED_BASE
from peftmark.lab.data.batches import Shape
from peftmark.lab.measure.meters import Meters, Reading
from peftmark.lab.members import Apart
from peftmark.lab.memory.fake_step import run
from peftmark.lab.models import Unsupported, anatomy
from peftmark.lab.rng import stream_seed
from peftmark.lab.sharded import spared, units
from peftmark.lab.step import Step
from peftmark.lab.team import BUCKET_BYTES, Team, _buckets, heard
from peftmark.record.recipe import AdaLoraSchedule
from peftmark.sources.assets import Places
from waiting import wait_for

CPU = torch.device("cpu")
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
"""A base without dropout, of which each process would draw its own."""


@pytest.fixture(params=["class", "text"])
def still(request, tmp_path, monkeypatch):
    """A model without dropout, and a function that makes jobs of it."""
    if request.param == "text":
        tiny_causal.install(tmp_path / "mirror", monkeypatch)
        asked = "tiny-answer"
        return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache"), (
            lambda method, **more: tiny_causal.job(method, task=asked, dropout=0.0, **more)
        )
    config = transformers.BertConfig(**tiny.SMALL, **STILL)
    monkeypatch.setitem(tiny.CONFIGS, "bert", lambda: config)
    tiny.install(tmp_path / "mirror", monkeypatch)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache"), (
        lambda method, **more: tiny.job(method, dropout=0.0, **more)
    )


def first_step(places, job, team):
    """Loss, penalty and gradients of a job's first step, as a process of a team has them before
    anything is added up."""
    prepared = tiny.build(places, job)
    step = Step(job, tiny.task_of(job), prepared, CPU, team=team)
    seen = {}
    step.update = lambda number: (
        seen.update(
            {n: p.grad.clone() for n, p in prepared.model.named_parameters() if p.requires_grad}
        )
        or torch.zeros(())
    )
    return step(1, tiny.work(places, job).train(0)), seen


# --- shares -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "passes"), [("lora", 1), ("lora", 2), ("adalora", 1)])
def test_the_shares_of_all_processes_add_up_to_the_step(still, method, passes):
    """Rows of different lengths, of text by its tokens; a penalty counts once in all."""
    places, job = still
    whole, by_whole = first_step(places, job(method, window_batches=1), Team())
    shared = job(method, window_batches=1, devices=2, gradient_accumulation=passes)
    parts = [first_step(places, shared, Team(place, 2)) for place in (0, 1)]
    assert float(sum(taken.loss for taken, _ in parts)) == pytest.approx(
        float(whole.loss), rel=1e-5
    )
    assert len({float(taken.loss) for taken, _ in parts}) == 2
    if whole.penalty is not None:
        penalties = sum(taken.penalty for taken, _ in parts)
        assert float(penalties) == pytest.approx(float(whole.penalty), rel=1e-6)
    for name, gradient in by_whole.items():
        summed = sum(seen[name] for _, seen in parts)
        torch.testing.assert_close(summed, gradient, rtol=1e-3, atol=1e-6)


def test_what_averages_over_a_pass_would_be_another_method_in_shares(still):
    """Why a suite is refused Lily on several devices; where this fails it needn't be any more."""
    places, job = still
    _, whole = first_step(places, job("lily", window_batches=1), Team())
    shared = job("lily", window_batches=1, devices=2)
    _, one = first_step(places, shared, Team(0, 2))
    _, two = first_step(places, shared, Team(1, 2))
    off = [
        float((one[n] + two[n] - g).abs().max() / g.abs().max().clamp(min=1e-6))
        for n, g in whole.items()
    ]
    assert max(off) > 2e-3


@pytest.mark.parametrize("passes", [1, 2])
def test_the_shares_of_packed_rows_add_up_to_the_padded_step(tmp_path, monkeypatch, passes):
    tiny_causal.install(tmp_path / "mirror", monkeypatch)
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")

    def job(**more):
        return tiny_causal.job("lora", task="tiny-answer", dropout=0.0, **more)

    whole, by_whole = first_step(places, job(), Team())
    shared = job(packing=True, devices=2, gradient_accumulation=passes)
    parts = [first_step(places, shared, Team(place, 2)) for place in (0, 1)]
    assert float(sum(t.loss for t, _ in parts)) == pytest.approx(float(whole.loss), rel=1e-5)
    for name, gradient in by_whole.items():
        summed = sum(seen[name] for _, seen in parts)
        torch.testing.assert_close(summed, gradient, rtol=1e-3, atol=1e-6)


def test_every_row_is_one_processes(still):
    places, job = still
    asked = job("lora", devices=2, gradient_accumulation=2)
    parts = tiny.work(places, asked).train(0).parts(asked.recipe.device_rows)
    own = [Team(place, 2).own(list(range(len(parts)))) for place in (0, 1)]
    assert own == [[0, 2], [1, 3]]
    assert [part.shape.rows for part in parts] == [2, 2, 2, 2]


def test_gradients_are_added_up_by_type_and_no_more_than_fit_at_once():
    large = torch.zeros(BUCKET_BYTES // 8)  # half a bucket
    small, other = torch.zeros(3), torch.zeros(3, dtype=torch.float64)
    found = list(_buckets([small, large, other, large, large]))
    assert [[t.numel() for t in bucket] for bucket in found] == [
        [3, large.numel()],
        [large.numel()] * 2,
        [3],
    ]
    assert list(_buckets([])) == []


def test_each_process_draws_for_its_own_rows():
    assert stream_seed(1, "dropout", 0) == stream_seed(1, "dropout")
    assert len({stream_seed(1, "dropout", place) for place in range(4)}) == 4


# --- a sharded base ------------------------------------------------------------------------------


def test_what_a_process_is_spared_is_all_layers_but_its_parts_and_two_whole_ones():
    frozen = [torch.nn.Linear(4, 3).requires_grad_(False) for _ in range(4)]  # 12 + 3 numbers
    frozen.append(torch.nn.Linear(4, 5).requires_grad_(False))  # 20 + 5
    small, large = 2 * 4 + 2, 3 * 4 + 3  # of rows that don't divide the first has one more
    whole = 4 * 15 + 25
    assert spared(frozen, 2) == 4 * (whole - 4 * small - large - 2 * 2 * large)
    frozen[0].weight.requires_grad_(True)  # what trains is whole everywhere
    assert spared(frozen, 2) == 4 * (whole - 12 - 3 * small - 2 - large - 2 * 2 * large)


def test_the_prediction_of_a_step_has_the_parts_of_one_device(places):
    job = tiny.job("lora", steps=4)
    many = replace(job, recipe=replace(job.recipe, devices=2, shard=True))
    config = tiny.CONFIGS["bert"]()
    config.num_hidden_layers = 6
    task, shapes = tiny.task_of(job), [[Shape(4, 16)]]
    plain, less = (run(one, task, config, shapes) for one in (job, many))
    layers = transformers.BertModel(config).requires_grad_(False).encoder.layer
    assert plain.trace.peak().weights - less.trace.peak().weights == spared(layers, 2) > 0
    assert plain.trace.peak().activations == less.trace.peak().activations
    assert (plain.trainable, plain.total) == (less.trainable, less.total)


def test_layers_that_serve_several_times_are_not_cut(places):
    shared = replace(anatomy(places.mirror / "models" / "tiny", tiny.task_of(tiny.job())), uses=2)
    for parts, said in (
        (shared, "serve several times"),
        (replace(shared, blocks=(), uses=1), "aren't"),
    ):
        with pytest.raises(Unsupported, match=said):
            units(torch.nn.Linear(1, 1), parts)


def test_what_a_library_loses_of_the_others_is_told_as_such():
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer")
    met, alone = Team(0, 2, CPU), Team()
    with pytest.raises(Apart, match=r"lost each other: .*Connection closed"), heard(met):
        raise lost
    with pytest.raises(Apart), heard(met):
        raise torch.distributed.DistNetworkError("timed out")
    for team, error in ((met, RuntimeError("mat1 and mat2")), (alone, lost)):
        with pytest.raises(RuntimeError) as found, heard(team):
            raise error
        assert found.value is error


# --- what the first process takes in ------------------------------------------------------------


class Said(Team):
    """The first of two processes, which hears what a test says for the other one."""

    def __init__(self, *answers):
        super().__init__(0, 2)
        self.answers = list(answers)

    def gathered(self, values):
        return [list(values), self.answers.pop(0)]


def test_memory_is_of_the_largest_process_and_time_of_all():
    meters = Meters(CPU)
    meters.vmhwm_train, meters.vmhwm, meters.cpu_seconds = 500, 700, 2.0
    meters.life_peak = lambda: 700
    meters.take_in(Said([None, None, 600.0, 650.0, 3.0, None]))
    assert (meters.vmhwm_train, meters.vmhwm, meters.cpu_seconds) == (600, 700, 5.0)
    assert meters.noted["summed_peak_bytes"] == 1100
    assert (meters.allocated, meters.reserved) == (None, None)


def test_a_sum_of_which_a_part_is_unknown_is_unknown():
    meters = Meters(CPU)
    meters.vmhwm_train = 500
    meters._joules["gpu"] = Reading(40.0)
    meters.take_in(Said([None, None, None, None, 3.0, None]))
    assert meters.vmhwm_train == 500 and meters.noted["summed_peak_bytes"] is None
    assert meters._joules["gpu"].value is None and "another" in meters._joules["gpu"].reason
    meters._joules["gpu"] = Reading(40.0)
    meters.take_in(Said([None, None, None, None, 3.0, 2.0]))
    assert meters._joules["gpu"].value == 42.0


def test_processes_that_end_with_different_weights_are_no_valid_run(places, training_alone):
    job = tiny.job("lora", devices=2)
    found = recipe.run(job, places, lambda m: None, team=Said([7.0], [None] * 4 + [0.0, None]))
    assert found.status == "invalid"
    assert found.status_reason == "the job's processes ended with different weights"


def test_one_process_reads_all_shares_in_turn(places, training_alone):
    """A job of two devices that nobody gave them to is that of two passes."""
    two, passes = (
        recipe.run(tiny.job("lora", **{name: 2}), places, lambda message: None)
        for name in ("devices", "gradient_accumulation")
    )
    assert two.final_weights_hash == passes.final_weights_hash
    assert "one process" in passes.null_reasons["summed_peak_bytes"]


def test_the_probe_has_the_storages_of_one_device_and_the_operations_of_all(places, unpredicted):
    """Rows of one length, of which no share is padded less."""
    one, two = (
        recipe.run(tiny.job("lora", devices=n, **SHORT), places, lambda message: None)
        for n in (1, 2)
    )
    assert two.live_activation_bytes < 0.7 * one.live_activation_bytes
    assert two.live_optimizer_bytes == one.live_optimizer_bytes
    assert two.live_gradient_bytes == one.live_gradient_bytes
    assert two.flops_per_step == pytest.approx(one.flops_per_step, rel=0.02)


SHORT = {"steps": 3, "eval_every": 3, "max_length": 8, "pad_to": 8}


# --- for real -----------------------------------------------------------------------------------

MODEL = "minilm-l6"


@pytest.fixture
def together(tmp_path, monkeypatch):
    """Run a job in so many processes; returns its ending and what it kept."""
    mirror = tmp_path / "mirror"
    monkeypatch.setattr(process, "WORKER", "team_worker:main")  # the server loads torch once

    def start(job, tasks, worker="main", retries=0):
        if not (mirror / "tables").exists():
            tiny_worker.name_as(mirror, monkeypatch, MODEL, **{name: name for name in tasks})
        job = replace(job, model=MODEL)
        order = Order(
            jobs=[(job, 1)],
            places=Places(mirror, ("mirror",), tmp_path / "cache"),
            logs=tmp_path / "logs",
            retries=retries,
            worker=f"team_worker:{worker}",
            outbox=tmp_path / "kept",
            keep=frozenset([job.job_id]),
        )
        found = list(run_jobs(order, [Slot()] * job.recipe.devices))
        pids = [int(line) for line in (mirror / "pids").read_text().split()]
        assert len(set(pids)) >= job.recipe.devices
        wait_for(lambda: not any(map(runs, pids)))
        return found, tmp_path / "kept" / f"{job.job_id}.1"

    return start


def runs(pid):
    """Whether a process is there, and not just its end to be heard of."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def tensors(folder):
    return load_file(folder / "adapter_model.safetensors")


def alike(ends):
    """Assert that two jobs ended with the same losses, metrics and saved tensors, to 1e-5.

    Args:
        ends: what `together` gave of each.

    Returns:
        Their outcomes.
    """
    one, two = (found[0].outcome for (found, _) in ends)
    assert (one.status, two.status) == ("ok", "ok"), (one.status_reason, two.status_reason)
    for mine, other in zip(one.curve, two.curve, strict=True):
        assert other.loss == pytest.approx(mine.loss, abs=1e-5)
        assert other.metric == pytest.approx(mine.metric, abs=1e-5)
    whole, shared = (tensors(folder) for (_, folder) in ends)
    assert whole.keys() == shared.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(shared[name], tensor, rtol=0, atol=1e-5)
    return one, two


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "task"), [("lora", "tiny-class"), ("adalora", "tiny-score"), ("lora", "tiny-text")]
)
def test_two_processes_give_what_one_gives(tmp_path, monkeypatch, together, method, task):
    if task == "tiny-text":
        tiny_causal.install(tmp_path / "mirror", monkeypatch)
        job = tiny_causal.job(method, task=task, dropout=0.0)
        tasks = ["tiny-text", "tiny-other"]
    else:
        config = transformers.BertConfig(**tiny.SMALL, **STILL)
        monkeypatch.setitem(tiny.CONFIGS, "bert", lambda: config)
        tiny.install(tmp_path / "mirror", monkeypatch)
        job, tasks = tiny.job(method, task=task, dropout=0.0), ["tiny-class", "tiny-score"]
    ends = [together(replace(job, recipe=replace(job.recipe, devices=n)), tasks) for n in (1, 2)]
    one, two = alike(ends)
    assert two.initial_weights_hash == one.initial_weights_hash
    assert two.summed_peak_bytes > two.vmhwm_train_bytes and one.summed_peak_bytes is None
    assert two.samples_per_second > 0 and two.cpu_seconds > 0


SHARDED = (
    ("lora", "tiny-class", {}),
    ("adalora", "tiny-score", {"gradient_accumulation": 2}),
    ("lora", "tiny-text", {"gradient_checkpointing": True}),
    ("lora", "tiny-answer", {"quantization": "nf4"}),
)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "task", "changes"), SHARDED)
def test_a_sharded_base_gives_what_a_whole_one_gives(
    tmp_path, monkeypatch, together, method, task, changes
):
    """Answers that are written too; a process never has more of its layers than was predicted."""
    mirror = tmp_path / "mirror"
    if task in ("tiny-text", "tiny-answer"):
        tiny_causal.install(mirror, monkeypatch)
        job = tiny_causal.job(method, task=task, dropout=0.0, **changes)
        tasks = [task, "tiny-other"]
    else:
        config = transformers.BertConfig(**tiny.SMALL, **STILL)
        monkeypatch.setitem(tiny.CONFIGS, "bert", lambda: config)
        tiny.install(mirror, monkeypatch)
        job, tasks = tiny.job(method, task=task, dropout=0.0, **changes), [task]
    predicted, largest = weighed(Places(mirror, ("mirror",), tmp_path / "cache"), job)
    forms = {"devices": 1}, {"devices": 2, "shard": True}
    ends = [together(replace(job, recipe=replace(job.recipe, **form)), tasks) for form in forms]
    one, two = alike(ends)
    for name in ("initial_weights_hash", "base_format", "total_parameters", "adapter_bytes"):
        assert getattr(two, name) == getattr(one, name)
    for name in ("live_bytes", "latency_p50_seconds", "reload_max_error"):
        assert getattr(two, name) is None and two.null_reasons[name] == SHARDED_BASE

    for place in (0, 1):
        assert predicted - largest <= int((mirror / f"bytes.{place}").read_text()) <= predicted


def weighed(places, job):
    """The most bytes of a model's layers that one of two processes may hold, and the largest of
    its layers."""
    model = tiny.build(places, job).model
    layers = units(model, anatomy(places.mirror / "models" / "tiny", tiny.task_of(job)))
    sizes = [sum(p.nbytes for p in one.parameters() if not p.requires_grad) for one in layers]
    return sum(sizes) - spared(layers, 2), max(sizes)


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize(
    ("worker", "status", "reason"),
    [
        ("member_dies", "crashed", "process 2 of 2 was killed by SIGKILL"),
        ("member_lacks_memory", "out_of_memory", "in process 2 of 2: planted"),
        ("lead_lacks_memory", "out_of_memory", "planted"),
    ],
)
def test_a_process_that_ends_in_a_step_ends_the_job(
    tmp_path, monkeypatch, together, worker, status, reason, shard
):
    tiny.install(tmp_path / "mirror", monkeypatch)
    found, _ = together(tiny.job("lora", devices=2, shard=shard), ["tiny-class"], worker)
    assert found[0].outcome.status == status
    assert found[0].outcome.status_reason.startswith(reason)


STAGED = {
    "two-stage": {
        "adalora": AdaLoraSchedule(4, 1, 2, 1, 0.85, 0.85, 0.1),
        "options": {"from": "best"},
        "selection_rows": 16,
    },
    "growing-lora": {"rank": 8},
    "diff-pruning": {},
    "unipelt": {},
    "bitfit-distilled": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("method", STAGED)
def test_methods_with_stages_and_draws_stay_the_same_in_every_process(
    tmp_path, monkeypatch, together, method
):
    """With dropout, of which each process draws its own; what a process draws for a stage, or
    decides by a score, is the first one's."""
    tiny.install(tmp_path / "mirror", monkeypatch)
    found, _ = together(tiny.job(method, devices=2, **STAGED[method]), ["tiny-class"])
    assert found[0].outcome.status == "ok", found[0].outcome.status_reason
