"""UniPELT (Mao et al. 2021, arXiv 2110.07577, section 3): adapter, prefix and LoRA in every layer,
each behind a gate of its own. This is the variant APL, with all three.

A gate is a linear layer g to one number behind a sigmoid. It gives one factor between 0 and 1 a row
and layer, the mean over the row's tokens x_t:

    G(x) = mean over t of sigmoid(g x_t)

The mean leaves padding out, so that a row's logits do not depend on the batch it is in; the
authors' code includes it. With h the layer's input, u the sum before the layer's last LayerNorm LN
(feed-forward output plus residual), and W_q, W_v the projections to queries and values:

    LoRA     W x + G_L(h) (alpha / r) B A x   for W_q and W_v, x = h
    prefix   K = [G_P(h) P_K; K_0],  V = [G_P(h) P_V; V_0]
    adapter  LN(u + G_A(n) (U relu(D n + d) + c))  with n = LN(u)

In the paper G_L stands in place of alpha / r: that is alpha = rank. P_K and P_V are trained as they
are, one pair a layer; the authors draw them from an MLP that is dropped after training.

A decoder's layer has its norms in front: there the adapter stands behind the feed-forward block,
where the method `adapter` has it, y + G_A(y) (U relu(D y + d) + c) on the block's output y.

A language model must not read a token in the light of those it is to predict, as a mean over the
row would have it. There each token has gates of its own, G(x_t) = sigmoid(g x_t), and the query of
token t sees G_P(h_t) P_K and G_P(h_t) P_V. A decoder that classifies has the whole text before it,
and keeps the mean.

B, U, c and d start at zero, and every gate near one half. So adapter and LoRA change nothing at the
start; the prefix does: small as it is, each query now shares its attention with it.

With `gates: network` the gates are those of a practitioners' guide: one network a layer gives those
of all three parts, adapter, prefix and LoRA, from the layer's input h (d wide),

    G(h) = mean over t of sigmoid(M2 relu(M1 h_t) / T),  M1: d -> 128, M2: 128 -> 3

with T falling linearly from 5 in the first step to 1 in the last, and `entropy_weight` times the
entropy of G over its sum, mean over rows and layers (and a row's tokens, where each has gates of
its own), taken from the loss. After the last step a
part is taken out of every layer if its gate, mean over the training rows since the evaluation
before, is under `prune_below` in nine of ten layers or more. The guide clips the network's gradient
to a norm of 1; the recipe's default clips all gradients together to that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from peftmark.catalog.methods import known_method
from peftmark.lab.last_token import is_encoder
from peftmark.lab.methods import Prepared, Setting, trainable
from peftmark.lab.methods.reference import FILE, load_trained, save_trained, train_head_alone
from peftmark.lab.methods.unipelt_gates import (
    LAST_TEMPERATURE,
    PARTS,
    Gate,
    GateNetwork,
    Mean,
    OneGate,
    Rows,
    low_parts,
    temperature_after,
)
from peftmark.lab.methods.unipelt_parts import (
    ATTENTION,
    AnyGate,
    GatedAdapter,
    GatedBottleneck,
    GatedLora,
    GatedPrefix,
    blocks_with_prefix,
    put_prefix,
)
from peftmark.lab.models import Block, Unsupported


def unipelt(model: nn.Module, setting: Setting) -> Prepared:
    """Put the three parts into every layer; head and pooler train beside them.

    A budget may give LoRA unequal ranks, by query and value; the other two parts are as the options
    say.

    Raises:
        Unsupported: see `blocks_with_prefix`.
    """
    blocks = blocks_with_prefix(model, setting)
    ranks = setting.sized([name for block in blocks for name in (block.query, block.value)])

    put = _put(model, ranks, setting)
    prepared = Prepared(
        model,
        save=lambda folder: save_trained(model, folder),
        load=lambda base, folder: _load(base, folder, ranks, setting),
        merge=None,
        merge_reason="the gates depend on the input: no weight can hold what they scale",
        ranks=lambda: ranks,
        matched_rank="r",
        part_of=_part_of,
    )
    every: list[Gate | GateNetwork] = [*put.own.values(), *put.networks.values()]
    for gate in every:
        gate.held_out = Mean()
    if put.networks:
        _train_networks(prepared, put.networks, ranks, setting)
    else:
        prepared.gates = lambda: {
            name: value for name, gate in put.own.items() for value in _read(gate)
        }
    return prepared


@dataclass(frozen=True)
class _Put:
    """The gates of what was put onto a base.

    Attributes:
        own: layer and part, as "layer.part" -> its gate.
        networks: layer -> the network of all its gates.
    """

    own: dict[str, Gate] = field(default_factory=dict)
    networks: dict[str, GateNetwork] = field(default_factory=dict)


def _put(base: nn.Module, ranks: dict[str, int], setting: Setting) -> _Put:
    """Put the three parts into every layer of a base, its head trained alone but for them."""
    train_head_alone(base, setting)
    rows, put = Rows(each=setting.job.causal is not None), _Put()
    base.register_forward_pre_hook(rows.see, with_kwargs=True)
    options = setting.job.recipe.options
    shared = known_method(setting.job.method).option(options, "gates") == "network"

    def gate_of(block: Block, hidden: int, device: torch.device, part: str) -> AnyGate:
        if shared:
            return OneGate(put.networks[block.name], part)
        found = put.own[f"{block.name}.{part}"] = Gate(hidden, rows, device)
        return found

    for block in setting.parts.blocks:
        query: Any = base.get_submodule(block.query)
        device, hidden = next(query.parameters()).device, query.in_features
        if shared:
            network = put.networks[block.name] = GateNetwork(hidden, rows, device)
            layer = base.get_submodule(block.name)
            layer.add_module("part_gates", network)
            layer.register_forward_pre_hook(network.look, with_kwargs=True)
        _insert(base, block, ranks, partial(gate_of, block, hidden, device), setting)
    switch: Any = base
    switch.set_attn_implementation(ATTENTION)
    return put


def _part_of(name: str) -> str:
    """The part that a tensor belongs to; none for gates."""
    places = set(name.split("."))
    parts = {"LoRA": {"A", "B"}, "prefix": {"keys", "values"}, "adapter": {"down", "up"}}
    return next((part for part, own in parts.items() if places & own), "")


def _insert(
    model: nn.Module,
    block: Block,
    ranks: dict[str, int],
    gate_of: Callable[[str], AnyGate],
    setting: Setting,
) -> None:
    """Put the three parts into one layer; `gate_of` makes the gate of a part."""
    recipe, options = setting.job.recipe, setting.job.recipe.options
    assert recipe.alpha is not None and recipe.dropout is not None and setting.size is not None
    linears: Any = {name: model.get_submodule(name) for name in (block.query, block.value)}

    lora_gate = gate_of("lora")
    scale = recipe.alpha / setting.size  # the same for all where ranks differ
    for name in (block.query, block.value):
        if name in ranks:
            wrapped = GatedLora(linears[name], ranks[name], scale, recipe.dropout, lora_gate)
            model.set_submodule(name, wrapped)

    features = linears[block.value].out_features
    put_prefix(model, block, features, options["tokens"], gate_of("prefix"))

    gate = gate_of("adapter")
    if not is_encoder(model.config):
        last: Any = model.get_submodule(block.ffn_out)
        model.set_submodule(block.ffn_out, GatedBottleneck(last, options["width"], gate))
        return
    inside = model.get_submodule(block.name).named_modules()
    name, norm = [pair for pair in inside if isinstance(pair[1], nn.LayerNorm)][-1]
    assert isinstance(norm, nn.LayerNorm)
    model.set_submodule(f"{block.name}.{name}", GatedAdapter(norm, options["width"], gate))


def _read(gate: Gate | GateNetwork) -> list[float]:
    return [] if gate.held_out is None else gate.held_out.read()


def _train_networks(
    prepared: Prepared,
    networks: Mapping[str, GateNetwork],
    ranks: dict[str, int],
    setting: Setting,
) -> None:
    """Give a model with a network of gates a layer what those need beyond a forward pass.

    Raises:
        Unsupported: if a step's rows are read in several passes: the loss of one would not be part
            of the loss of all.
    """
    recipe, method = setting.job.recipe, known_method(setting.job.method)
    if recipe.gradient_accumulation > 1 or recipe.devices > 1:
        raise Unsupported(
            "unipelt with gates: network takes the entropy of a whole step's gates from its loss; "
            "use gradient_accumulation: 1 and devices: 1, or gates: paper"
        )
    weight = method.option(recipe.options, "entropy_weight")
    threshold = method.option(recipe.options, "prune_below")
    taken_out: list[str] = []

    def bonus() -> torch.Tensor | None:
        found = [network.entropy for network in networks.values() if network.entropy is not None]
        for network in networks.values():
            network.entropy = None  # it holds the step's graph
        return -weight * torch.stack(found).mean() if weight and found else None

    def after_step(step: int) -> None:
        for network in networks.values():
            network.temperature = temperature_after(step, recipe.steps)
        if step == recipe.steps:
            means = [network.trained.read() for network in networks.values()]
            for part in low_parts(means, threshold):
                take_out(prepared.model, part)
                taken_out.append(part)

    def gates() -> dict[str, float]:
        found: dict[str, float] = {}
        for name, network in networks.items():
            network.trained.read()
            means = zip(PARTS, _read(network), strict=False)
            found |= {f"{name}.{part}": mean for part, mean in means if part not in taken_out}
        return found

    every = "UniPELT took out every part: no gate is above the option prune_below"
    prepared.extra_loss, prepared.after_step, prepared.gates = bonus, after_step, gates
    prepared.ranks = lambda: dict.fromkeys(ranks, 0) if "lora" in taken_out else ranks
    prepared.active_parameters = lambda: sum(p.numel() for _, p in trainable(prepared.model))
    prepared.fault = lambda: every if len(taken_out) == len(PARTS) else None


_INSIDE: tuple[tuple[str, type[nn.Module], str], ...] = (
    ("adapter", GatedAdapter, "norm"),
    ("adapter", GatedBottleneck, "linear"),
    ("prefix", GatedPrefix, "attention"),
    ("lora", GatedLora, "linear"),
)
"""Part, its module, and what of it was there before."""


def _modules_of(model: nn.Module, part: str) -> list[tuple[str, nn.Module, str]]:
    """The modules of a part, by name, each with what of it was there before."""
    return [
        (name, module, inner)
        for name, module in model.named_modules()
        for its, kind, inner in _INSIDE
        if its == part and isinstance(module, kind)
    ]


def take_out(model: nn.Module, part: str) -> None:
    """Take a part out of every layer."""
    for name, module, inner in _modules_of(model, part):
        model.set_submodule(name, module.get_submodule(inner))


def _load(base: nn.Module, folder: Path, ranks: dict[str, int], setting: Setting) -> nn.Module:
    """Put what was saved onto a fresh base, without the parts that were taken out."""
    put = _put(base, ranks, setting)
    if put.networks:
        for network in put.networks.values():
            network.temperature = LAST_TEMPERATURE
        with safe_open(folder / FILE, framework="pt") as tensors:
            saved = set(tensors.keys())
        for part in PARTS:  # the prefix before LoRA, whose names have the prefix's in them
            if not _names(base, part) & saved:
                take_out(base, part)
    return load_trained(base, folder)


def _names(model: nn.Module, part: str) -> set[str]:
    """Names of a part's own tensors."""
    return {
        f"{name}.{tensor}"
        for name, module, inner in _modules_of(model, part)
        for tensor, _ in module.named_parameters()
        if not tensor.startswith((f"{inner}.", "gate."))
    }
