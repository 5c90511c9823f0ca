"""How a job trains and how a causal language model is asked, with every value resolved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

from peftmark.record.identity import LATER

Precision = Literal["fp32", "bf16", "fp16"]
Attention = Literal["sdpa", "eager", "flash"]
PadTo = Literal[8, 16, 32, 64]
Kernels = Literal["liger"]
Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"]


@dataclass(frozen=True)
class AdaLoraSchedule:
    """AdaLoRA's own settings in optimizer steps (arXiv 2303.10512, section 3.3).

    Attributes:
        init_rank: rank of every module at the start (init_r), above the job's rank (target_r);
            None where a parameter budget decides the rank.
        init_ratio: init_rank over the rank that the budget gives; None without a budget.
        tinit: steps before the budget starts to fall.
        tfinal: steps at the end with the budget fixed.
        delta_t: steps between two budget allocations.
        beta1: smoothing of the sensitivity.
        beta2: smoothing of its uncertainty.
        orthogonal_weight: weight of the orthogonality penalty.
    """

    init_rank: int | None
    tinit: int
    tfinal: int
    delta_t: int
    beta1: float
    beta2: float
    orthogonal_weight: float
    init_ratio: float | None = None


@dataclass(frozen=True)
class Recipe:
    """How a job trains, with every value resolved.

    Attributes:
        steps: optimizer steps.
        batch_size: rows a step, whatever number of passes they are read in.
        learning_rate: peak learning rate of the method's parameters and the head.
        schedule: shape after the warm-up.
        warmup_steps: steps in which the learning rate rises linearly.
        weight_decay: AdamW's decoupled weight decay.
        max_grad_norm: gradient norm above which gradients are scaled down.
        max_length: tokens a row is cut at.
        precision: arithmetic of matrix products; bf16 and fp16 are autocast, and fp16's loss is
            scaled (`peftmark.lab.step`).
        optimizer: AdamW, or bitsandbytes' AdamW with states of 8 bits, or paged ones with states
            of 32 or 8 bits (on a CPU plain AdamW, and the row says so).
        gradient_checkpointing: recompute activations in the backward pass.
        window_batches: batches a length-grouping window spans (1: random batches).
        train_rows: training rows used at most, None for all of them.
        selection_rows: rows cut from the training rows to pick the best step by; 0 for none.
        eval_rows: evaluation rows used at most, None for all of them.
        eval_every: steps between two evaluations.
        eval_batch_size: rows an evaluation batch.
        train_pooler: whether the pooler trains with the classifier.
        head_dropout: dropout of the classification head; None as the model's config has it.
        targets: modules that get an adapter: a named set or name suffixes; None without adapter.
        alpha: LoRA's alpha; the update is scaled by alpha/r.
        dropout: dropout on the adapter's input.
        double_quantization: quantise the block constants too; None without quantization.
        adalora: AdaLoRA's schedule; None for other methods. In two stages its steps are those of
            the second.
        options: the method's own settings, all of them (`peftmark.catalog.methods`).
        budget: parameters of the adapter, head apart, that decide its size: a count, or a share of
            the base such as "0.1%"; None where the size is given.
        weights: type that the base's frozen weights are stored in, those that are quantised apart;
            what trains is fp32 (`peftmark.lab.stored_weights`).
        gradient_accumulation: passes that a step's rows are read in, one after the other; their
            gradients are those of one pass, a pass holds a part of the activations.
        early_stopping: evaluations without a better selection score after which training ends;
            None to take all steps.
        label_smoothing: share of the target's probability spread evenly over all classes or tokens
            (Szegedy et al. 2016, arXiv 1512.00567, section 7), in training alone.
        halve_on_growth: halve the learning rate of all later steps whenever a module's adapter
            norm has grown as the alarm `norm-growth` says (`peftmark.catalog.alarms`); the row has
            the steps (`rate_halvings`).
        pad_to: a batch's length is padded up to a multiple of so many tokens, at most to
            `max_length`; None for its longest row.
        compile: the model's layers go through torch.compile, for training steps and the scores
            between them (`peftmark.lab.compiled`).
        attention: torch's fused attention, one product after the other, or FlashAttention; None
            for what transformers takes by itself.
        devices: processes that train the job together, each on a GPU or a core of its own and on
            its share of every step's rows (`peftmark.lab.team`).
        shard: each of them holds a part of the frozen weights of the model's layers, and a layer
            whole only while it computes (`peftmark.lab.sharded`).
        packing: the rows of a training pass stand end to end in one row, without padding, and
            attention doesn't cross them (`peftmark.catalog.packing`).
        kernels: whose kernels norms, rotations and feed-forward layers run on
            (`peftmark.lab.kernels`); None for torch's.
    """

    steps: int
    batch_size: int
    learning_rate: float
    schedule: Literal["linear", "constant", "cosine"]
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    max_length: int
    precision: Precision
    optimizer: Optimizer
    gradient_checkpointing: bool
    window_batches: int
    train_rows: int | None
    selection_rows: int
    eval_rows: int | None
    eval_every: int
    eval_batch_size: int
    train_pooler: bool
    head_dropout: float | None = None
    targets: str | tuple[str, ...] | None = None
    alpha: float | None = None
    dropout: float | None = None
    double_quantization: bool | None = None
    adalora: AdaLoraSchedule | None = None
    options: dict[str, Any] = field(default_factory=dict)
    budget: int | str | None = None
    weights: Precision = field(default="fp32", metadata=LATER)
    gradient_accumulation: int = field(default=1, metadata=LATER)
    early_stopping: int | None = field(default=None, metadata=LATER)
    label_smoothing: float = field(default=0.0, metadata=LATER)
    halve_on_growth: bool = field(default=False, metadata=LATER)
    pad_to: PadTo | None = field(default=None, metadata=LATER)
    compile: bool = field(default=False, metadata=LATER)
    attention: Attention | None = field(default=None, metadata=LATER)
    devices: int = field(default=1, metadata=LATER)
    shard: bool = field(default=False, metadata=LATER)
    packing: bool = field(default=False, metadata=LATER)
    kernels: Kernels | None = field(default=None, metadata=LATER)

    @cached_property
    def lasting(self) -> dict[str, Any]:
        """The settings by dotted names, without those that follow the length of a training."""
        parts = {
            "adalora": asdict(self.adalora) if self.adalora else {},
            "options": self.options or {},
        }
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        for name, nested in parts.items():
            del values[name]
            values |= {f"{name}.{key}": value for key, value in nested.items()}
        return {name: value for name, value in values.items() if name not in OF_LENGTH}

    @cached_property
    def key(self) -> str:
        """The same for trials of one setting, however long, and for jobs that train with it."""
        return json.dumps(self.lasting, sort_keys=True)

    @property
    def pass_rows(self) -> int:
        """Rows that are read at once, by all devices together."""
        return self.batch_size // self.gradient_accumulation

    @property
    def device_rows(self) -> int:
        """Rows that a device reads at once."""
        return self.pass_rows // self.devices


FORM = ("pad_to", "compile", "attention", "devices", "shard", "packing", "kernels")
"""Settings of how the same step is computed: no method's own, so that what is compared shares
them."""
OF_TRAINING = ("compile", "devices", "shard", "packing")
"""Those of them that say nothing of a method that trains nothing."""

OF_LENGTH = (
    *("steps", "warmup_steps", "eval_every"),
    *("adalora.tinit", "adalora.tfinal", "adalora.delta_t"),
)
"""Settings that follow the length of a training."""

UNITS: dict[str, str] = {
    "steps": "steps",
    "batch_size": "rows",
    "warmup_steps": "steps",
    "max_length": "tokens",
    "window_batches": "batches",
    "train_rows": "rows",
    "selection_rows": "rows",
    "eval_rows": "rows",
    "eval_every": "steps",
    "eval_batch_size": "rows",
    "budget": "parameters, or share of the base",
    "gradient_accumulation": "passes",
    "early_stopping": "evaluations",
    "label_smoothing": "share",
    "pad_to": "tokens",
    "devices": "devices",
    "init_rank": "rank",
    "tinit": "steps",
    "tfinal": "steps",
    "delta_t": "steps",
}
"""Setting of a recipe or of AdaLoRA's schedule -> its unit, for those that have one."""

CAUSAL_PROTOCOL = 1
"""Version of how causal language models are shown rows, scored and made to write; bumped by hand
like `PROTOCOL`."""


@dataclass(frozen=True)
class Causal:
    """What a job of a causal language model has besides its recipe.

    Attributes:
        prompt: identity of the task's prompt (`peftmark.catalog.prompts`); empty for a language
            task.
        new_tokens: tokens that an answer may have; None for tasks without answers to write.
        unrelated: the language task whose text tells what was forgotten, as "key:fingerprint".
    """

    prompt: str
    new_tokens: int | None
    unrelated: str
    protocol: int = CAUSAL_PROTOCOL


def first_stage_steps(options: Mapping[str, Any], steps: int) -> int:
    """Steps of the first of two stages; both have at least one."""
    share: float = options["first_stage"]
    return min(max(1, round(share * steps)), steps - 1)
