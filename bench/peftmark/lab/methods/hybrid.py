"""LoRA in the low and high layers and AdaLoRA in the middle ones: one model, one forward pass.

| layers | method | modules | rank |
|---|---|---|---|
| low | LoRA | query, value | `low` |
| middle | AdaLoRA | query, key, value | from `middle` down to half of it, or to `middle_target` |
| high | LoRA | query, key, value, attention output | `high` |

The recipe is given for twelve layers: 0 to 4 are low, 5 to 8 middle, 9 to 11 high. For n layers the
bands end at round(5/12 n) and round(9/12 n), each with one layer at least. Every band is scaled as
its method is: alpha over the rank it starts with, so that equal ranks train alike in both. Bands,
modules, alphas and dropouts are options; those of the article that the recipe comes from stand in
suite `rank-schemes`, profile `full`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from peft import AdaLoraConfig, LoraConfig
from peft.tuners.adalora import AdaLoraModel, RankAllocator
from peft.tuners.lora import LoraModel
from peft.tuners.mixed import MixedModel
from safetensors.torch import load_file, save_file
from torch import nn

from peftmark.catalog.methods import known_method
from peftmark.lab.methods import Prepared, Setting, trainable
from peftmark.lab.methods.adalora import (
    Dynamics,
    active_parameters,
    freeze_divisors,
    modules,
    orthogonality,
    ranks,
    schedule_options,
)
from peftmark.lab.methods.lora import merge_adapter
from peftmark.lab.methods.reference import FILE
from peftmark.lab.models import Block, Unsupported, trained_head

LOW, MIDDLE, HIGH = "low", "middle", "high"


class Layered(MixedModel):
    """PEFT's mixed model with AdaLoRA's rank allocation for the middle layers.

    PEFT refuses to mix on quantised bases. Each layer here has one adapter alone, so what its
    method makes of a quantised layer is as good as without the others.

    Args:
        model: the base, changed in place.
        configs: adapter name -> its configuration; no two share a module.
    """

    def __init__(self, model: nn.Module, configs: dict[str, Any]) -> None:
        first: Any = {LOW: configs[LOW]}
        super().__init__(model, first, LOW)
        for name in (MIDDLE, HIGH):
            self.peft_config[name] = configs[name]
            self.inject_adapter(model, name)
        self.set_adapter(list(configs))
        for name in configs:
            self._cast_adapter_dtype(name, autocast_adapter_dtype=True)
        freeze_divisors(self)
        self.trainable_adapter_name = MIDDLE
        allocator: Any = RankAllocator
        self.rankallocator = allocator(self.model, configs[MIDDLE], MIDDLE)

    def update_and_allocate(self, global_step: int) -> None:
        """PEFT's rank allocation; where the last rank is the first one there is none to take away,
        which PEFT's own fails at (the 0th smallest score), and the scores alone are kept up."""
        allocator: Any = self.rankallocator
        if allocator.init_bgt > allocator.target_bgt:
            allocate: Any = AdaLoraModel.update_and_allocate
            allocate(self, global_step)
            return
        config: Any = self.peft_config[MIDDLE]
        last = config.total_step - config.tfinal
        if global_step < last:
            allocator.update_ipt(self.model)
        elif global_step == last:
            allocator.reset_ipt()

    @staticmethod
    def _create_new_module(
        config: Any, adapter_name: str, target: nn.Module, **options: Any
    ) -> Any:
        kind: Any = AdaLoraModel if isinstance(config, AdaLoraConfig) else LoraModel
        return kind._create_new_module(config, adapter_name, target, **options)


def hybrid(model: nn.Module, setting: Setting) -> Prepared:
    """Put the three bands on the base; head and pooler train beside them.

    Raises:
        Unsupported: if there are fewer than three layers, the bands leave none for the middle,
            `middle` is odd and halved, or ends above where it begins.
    """
    job = setting.job
    schedule, options = job.recipe.adalora, job.recipe.options
    assert schedule is not None
    last = _last_rank(setting)
    targets = _targets(setting)
    fixed = {name: options[band] for band in (LOW, HIGH) for name in targets[band]}
    budget = last * len(targets[MIDDLE])
    order = [name for names in targets.values() for name in names]

    def build(base: nn.Module) -> Layered:
        return Layered(base, _configs(setting, targets))

    tuner = build(model)
    for name in trained_head(setting.parts, job.recipe.train_pooler):
        model.get_submodule(name).requires_grad_(True)
    dynamics = Dynamics(tuner)

    def all_ranks() -> dict[str, int]:
        found = fixed | ranks(tuner.model)
        return {name: found[name] for name in order}

    def fault() -> str | None:
        found = sum(ranks(tuner.model).values())
        if found == budget:
            return None
        return f"the middle layers ended with an active rank of {found}, their budget is {budget}"

    return Prepared(
        tuner,
        save=lambda folder: _save(tuner, folder),
        load=lambda base, folder: _load(build, base, folder),
        merge=(lambda model: merge_adapter(model, job)) if job.quantization == "none" else None,
        merge_reason="PEFT can't merge AdaLoRA into quantised weights",
        extra_loss=lambda: schedule.orthogonal_weight * orthogonality(tuner, MIDDLE),
        after_step=dynamics.after_step,
        ranks=all_ranks,
        importance=dynamics.importance,
        importance_variation=dynamics.variation,
        part_of=lambda name: next((b for b in (LOW, MIDDLE, HIGH) if f".{b}" in name), ""),
        active_parameters=lambda: active_parameters(tuner),
        fault=fault,
    )


def _option(setting: Setting, name: str) -> Any:
    return known_method(setting.job.method).option(setting.job.recipe.options, name)


def _last_rank(setting: Setting) -> int:
    """The rank that the middle layers end with on average.

    Raises:
        Unsupported: it can't be.
    """
    first, last = setting.job.recipe.options["middle"], int(_option(setting, "middle_target"))
    if not last and first % 2:
        raise Unsupported(
            f"option middle is {first}; it is halved, so make it even or give middle_target"
        )
    if last > first:
        raise Unsupported(
            f"option middle_target is {last} and middle {first}; AdaLoRA only takes ranks away"
        )
    return last or first // 2


def bands(blocks: Sequence[Block], low: int = 5, high: int = 3) -> dict[str, Sequence[Block]]:
    """Low, middle and high layers.

    Args:
        low, high: how many of twelve layers are low, and high.

    Raises:
        Unsupported: if there are fewer than three, or the middle gets none of twelve.
    """
    count = len(blocks)
    if low + high >= 12:
        raise Unsupported(
            f"options low_layers {low} and high_layers {high} leave none of twelve layers for the "
            "middle"
        )
    if count < 3:
        raise Unsupported(
            f"the hybrid needs three layers at least, one a band; this model has {count} that are "
            "recognised"
        )
    first = min(max(1, round(low * count / 12)), count - 2)
    second = min(max(first + 1, round((12 - high) * count / 12)), count - 1)
    return {LOW: blocks[:first], MIDDLE: blocks[first:second], HIGH: blocks[second:]}


def _parts(block: Block, named: str) -> tuple[str, ...]:
    """Full names of a layer's modules of a named set (`BAND_PARTS`)."""
    found = {
        "query-value": (block.query, block.value),
        "query-key-value": (block.query, block.key, block.value),
        "query-key-value-output": (block.query, block.key, block.value, block.attention_output),
    }
    if named in found:
        return found[named]
    return (*found["query-key-value-output"], block.ffn_out)


def _targets(setting: Setting) -> dict[str, list[str]]:
    """Band -> full names of its modules."""
    sizes = (int(_option(setting, name)) for name in ("low_layers", "high_layers"))
    return {
        band: [
            name for block in blocks for name in _parts(block, _option(setting, f"{band}_targets"))
        ]
        for band, blocks in bands(setting.parts.blocks, *sizes).items()
    }


def _configs(setting: Setting, targets: dict[str, list[str]]) -> dict[str, Any]:
    recipe = setting.job.recipe
    options = recipe.options

    def of(band: str) -> dict[str, Any]:
        alpha, dropout = (_option(setting, f"{band}_{name}") for name in ("alpha", "dropout"))
        return {
            "target_modules": targets[band],
            "lora_alpha": alpha or recipe.alpha,
            "lora_dropout": recipe.dropout if dropout < 0 else dropout,
        }

    middle = AdaLoraConfig(
        init_r=options["middle"],
        target_r=_last_rank(setting),
        **schedule_options(recipe),
        **of(MIDDLE),
    )
    return {
        LOW: LoraConfig(r=options["low"], **of(LOW)),
        MIDDLE: middle,
        HIGH: LoraConfig(r=options["high"], **of(HIGH)),
    }


def _save(tuner: Layered, folder: Path) -> None:
    """Write what trained, less AdaLoRA's pruned ranks; PEFT can't save a mixed model."""
    tensors = {name: p.detach() for name, p in trainable(tuner.model)}
    for name in modules(tuner.model):
        prefix = f"{name}.lora_{{}}.{MIDDLE}"
        alive = tensors[prefix.format("E")][:, 0] != 0
        tensors[prefix.format("E")] = tensors[prefix.format("E")][alive]
        tensors[prefix.format("A")] = tensors[prefix.format("A")][alive]
        tensors[prefix.format("B")] = tensors[prefix.format("B")][:, alive]
    save_file({name: t.cpu().contiguous() for name, t in tensors.items()}, folder / FILE)


def _load(build: Callable[[nn.Module], Layered], base: nn.Module, folder: Path) -> Layered:
    """Put the saved tensors onto a fresh base, AdaLoRA's modules cut to the ranks they ended at."""
    tensors = load_file(folder / FILE)
    tuner = build(base)
    kept = {}
    for name, module in modules(tuner.model).items():
        key = f"{name}.lora_E.{MIDDLE}"
        left = len(tensors[key])
        kept[key] = [True] * left + [False] * (len(module.lora_E[MIDDLE]) - left)
    resize: Any = AdaLoraModel.resize_modules_by_rank_pattern
    resize(tuner, kept, MIDDLE)
    # Cutting leaves the weights in the type that a 4-bit base computes in, and would round them.
    tuner._cast_adapter_dtype(MIDDLE, autocast_adapter_dtype=True)
    unknown = tuner.model.load_state_dict(tensors, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"the saved weights {unknown} have no place in the base")
    return tuner
