"""IA3 (Liu et al. 2022, arXiv 2205.05638): three vectors a layer that scale activations.

With l_k, l_v, l_ff all ones at the start (section 3.3): attention uses l_k ⊙ K and l_v ⊙ V, and the
feed-forward block is W_2 (l_ff ⊙ act(W_1 x)). In PEFT's terms keys and values are scaled at their
layer's output, bias included, and the feed-forward activation at the second layer's input. All of
it folds into weights and biases, which PEFT does for a base that isn't quantised.
"""

from __future__ import annotations

from collections.abc import Sequence

from peft import IA3Config
from peft.utils import ModulesToSaveWrapper
from torch import nn

from peftmark.lab.methods import Prepared, Setting
from peftmark.lab.methods.lora import load_adapter, merge_adapter, saver, wrap
from peftmark.lab.models import Block, Unsupported, trained_head
from peftmark.record.job import Job


def ia3(model: nn.Module, setting: Setting) -> Prepared:
    """Scale keys, values and feed-forward activations; head and pooler train beside the vectors.

    Raises:
        Unsupported: if the architecture's layers are not recognised.
    """
    job, blocks = setting.job, setting.parts.blocks
    if not blocks:
        raise Unsupported(
            f"IA3 needs each layer's key, value and feed-forward modules, which are not known for "
            f"the architecture of {job.model}; use lora"
        )
    wrapped = wrap(model, ia3_config(blocks, setting))
    return Prepared(
        wrapped,
        save=saver(wrapped),
        load=load_adapter,
        merge=(lambda model: _merge(model, job)) if job.quantization == "none" else None,
        merge_reason="PEFT can't merge IA3 into quantised weights",
    )


def ia3_config(blocks: Sequence[Block], setting: Setting) -> IA3Config:
    """PEFT's configuration for some layers."""
    inputs = [block.ffn_out for block in blocks]
    outputs = [name for block in blocks for name in (block.key, block.value)]
    return IA3Config(
        target_modules=[*outputs, *inputs],
        feedforward_modules=inputs,
        modules_to_save=trained_head(setting.parts, setting.job.recipe.train_pooler),
    )


def _merge(model: nn.Module, job: Job) -> tuple[nn.Module, str]:
    """Fold the vectors in. PEFT, LoRA apart, expects a weight right on each module it saved beside
    the adapter, which a pooler has not; so those modules are unwrapped first."""
    for name, module in list(model.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            parent, _, leaf = name.rpartition(".")
            trained = module.modules_to_save[module.active_adapters[0]]
            setattr(model.get_submodule(parent), leaf, trained)
    return merge_adapter(model, job)
