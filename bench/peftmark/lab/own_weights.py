"""Weights on their way into a model: which must be there, which must not, and which are drawn.

Of a model of the catalogue the hash of its weights says that they are what its class expects. The
user's own may be a checkpoint of another class: one with a classifier already, or one that lacks
layers, which transformers would draw at random. A head on a base that is stored in fewer bits is
drawn in fp32, so that it is the same as on one that isn't.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from peftmark.lab.errors import Unsupported
from peftmark.lab.number_types import raise_kept
from peftmark.lab.rng import seed_all
from peftmark.record.job import Job

MOST_NAMED = 3


def own_settings(job: Job) -> dict[str, Any]:
    """How transformers is told to load a model, beside what holds for all."""
    if job.own_model is not None:
        # A head of other classes is no fault: it is drawn anew below.
        return {"output_loading_info": True, "ignore_mismatched_sizes": True}
    return {"output_loading_info": True} if job.recipe.weights != "fp32" else {}


def as_loaded(found: Any, job: Job, fresh: Sequence[str], pooler: str | None) -> Any:
    """The model of what `from_pretrained` gave with `own_settings`, head and pooler in fp32.

    The head of one's own is drawn by the job's seed, also where the checkpoint is a classifier: or
    seeds would differ in nothing, and a fitted head would pass for a base. A part of the head that
    comes with a pretrained base (ModernBERT's first layer) stays. A pooler that the checkpoint
    lacks is a part of the base, and the same for every seed; DeBERTa's belongs to its head.

    Args:
        fresh: modules outside the pretrained base.
        pooler: the pooler, wherever it is; None if the architecture has none.

    Raises:
        Unsupported: the files lack other weights, or have them in another shape.
    """
    if not own_settings(job):
        return found
    model, told = found
    missing = sorted(map(str, told["missing_keys"]))
    raise_kept(model, (*fresh, *([pooler] if pooler else [])))
    if job.own_model is None:
        _draw_all(model, [name for name in fresh if _lacks(missing, name)], job.seed)
        return model
    other = sorted(
        str(one[0] if isinstance(one, tuple) else one) for one in told["mismatched_keys"]
    )
    heads = tuple(f"{name}." for name in fresh)
    below = (*heads, *([f"{pooler}."] if pooler else []))
    if lost := [name for name in missing if not name.startswith(below)]:
        raise Unsupported(
            f"the weights of {job.model} lack {_listed(lost)}, which would be drawn at random: its "
            f"files are not those of a {type(model).__name__}; read_as says what it is"
        )
    if wrong := [name for name in other if not name.startswith(heads)]:
        raise Unsupported(
            f"the weights of {job.model} have another shape than its config.json says: "
            f"{_listed(wrong)}"
        )
    if pooler and pooler not in fresh and _lacks(missing, pooler):
        _draw_all(model, [pooler], 0)
    gone = [name for name in fresh if _lacks((*missing, *other), name)]
    _draw_all(model, fresh if _is_classifier(model) or not gone else gone, job.seed)
    return model


def _lacks(missing: Sequence[str], module: str) -> bool:
    """Whether a tensor of a module is among those that are missing."""
    return any(name.startswith(f"{module}.") for name in missing)


def _draw_all(model: Any, modules: Sequence[str], seed: int) -> None:
    """Draw modules by a seed's `head` stream, in order."""
    seed_all(seed, "head")
    for name in modules:
        _draw(model, name)


def _is_classifier(model: Any) -> bool:
    """Whether the checkpoint says that it was saved as a classifier."""
    made = model.config.architectures or ()
    return any(str(name).endswith("ForSequenceClassification") for name in made)


def _draw(model: Any, name: str) -> None:
    """Draw a module's weights as the architecture draws them."""
    top = model.get_submodule(name)
    for module in top.modules():
        module._is_hf_initialized = False
        for parameter in module.parameters(recurse=False):
            # transformers draws only what does not bear this mark.
            parameter._is_hf_initialized = False
    with torch.no_grad():
        for module in top.modules():
            model._init_weights(module)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
