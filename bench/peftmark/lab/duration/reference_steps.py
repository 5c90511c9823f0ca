"""Process that times operations: training steps of small models with every value, on one thread.

What it prints is a line of JSON: for each operation and number type its sizes and how long each
took. The steps are of two layers with random weights, forward, backward and update, as jobs take
them; each operation is timed alone where torch dispatches it.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import nn

from peftmark.lab.duration.work import kind_of
from peftmark.lab.measure.flop_counter import table_of
from peftmark.lab.memory.insides import TorchDispatchMode
from peftmark.lab.quantization.table import backend_of

SECONDS = 16.0
"""After which no further step is begun."""

Samples = dict[str, dict[tuple[int, int], list[float]]]
"""Operation and number type -> (floating-point operations, bytes) of a call -> seconds of each."""


@dataclass(frozen=True)
class Shape:
    """A model and a batch: tokens of two lengths."""

    kind: str
    width: int
    rows: int
    tokens: tuple[int, ...]
    vocabulary: int = 8192


SHAPES = (
    Shape("encoder", 384, 32, (12, 48), 30522),
    Shape("language", 576, 4, (24, 160)),
    Shape("encoder", 768, 16, (16, 64)),
)
VARIANTS = ("lora", "lora on nf4", "full")


class Timed(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Times every operation that is dispatched."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.samples: Samples = {}
        self._flops = table_of("nf4")

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        start = time.perf_counter()
        result = func(*args, **kwargs)
        seconds = time.perf_counter() - start
        if func.namespace != "prim":
            name, size = kind_of(func, args, kwargs, result)
            count = self._flops.get(func._overloadpacket)
            flops = int(count(*args, **kwargs, out_val=result)) if count is not None else 0
            self.samples.setdefault(name, {}).setdefault((flops, size), []).append(seconds)
        return result


@dataclass
class Reference:
    """A small model that trains.

    Attributes:
        shape, variant, precision, device: which.
        model, optimizer: made from them.
    """

    shape: Shape
    variant: str
    precision: str
    device: str = "cpu"
    model: nn.Module = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        model = _model(self.shape)
        if self.variant.endswith("nf4"):
            _quantise(model, torch.bfloat16 if self.precision == "bf16" else torch.float32)
        if self.variant != "full":
            from peft import LoraConfig, get_peft_model

            targets = _linear(model)
            made: Any = get_peft_model
            model = made(model, LoraConfig(r=8, target_modules=targets, lora_dropout=0.1))
        self.model = model.to(self.device).train()
        train = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(train, lr=1e-4, foreach=False)

    def step(self, tokens: int) -> None:
        """One step on a batch of this length."""
        self.model.train()
        ids, logits = self._logits(tokens)
        logits = logits.float().flatten(0, -2)
        loss = nn.functional.cross_entropy(logits, ids.flatten()[: len(logits)] % logits.shape[1])
        whole: Any = loss
        whole.backward()
        nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.grad is not None], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def score(self, tokens: int) -> None:
        """A pass over rows that aren't trained on."""
        self.model.eval()
        with torch.no_grad():
            self._logits(tokens)

    def _logits(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        size = (self.shape.rows, tokens)
        ids = torch.randint(5, self.shape.vocabulary, size, device=self.device)
        mask = torch.ones_like(ids)
        mask[0, -2:] = 0
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16"):
            return ids, self.model(input_ids=ids, attention_mask=mask).logits


def _model(shape: Shape) -> nn.Module:
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        BertConfig,
        LlamaConfig,
    )

    if shape.kind == "language":
        config: Any = LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=1536,
            num_hidden_layers=2,
            num_attention_heads=9,
            num_key_value_heads=3,
            use_cache=False,
        )
        maker: Any = AutoModelForCausalLM
    else:
        config = BertConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=4 * shape.width,
            num_hidden_layers=2,
            num_attention_heads=12,
        )
        maker = AutoModelForSequenceClassification
    made: nn.Module = maker.from_config(config)
    return made


def _linear(model: nn.Module) -> list[str]:
    """The layers of the encoder or decoder that a method changes."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and "layer" in name
    ]


def _quantise(model: nn.Module, computing: torch.dtype) -> None:
    import bitsandbytes

    layers: Any = bitsandbytes.nn
    for name in _linear(model):
        old: Any = model.get_submodule(name)
        new = layers.Linear4bit(
            old.in_features,
            old.out_features,
            bias=False,
            compute_dtype=computing,
            quant_type="nf4",
        )
        new.weight = layers.Params4bit(old.weight.data, requires_grad=False, quant_type="nf4")
        model.set_submodule(name, new.to("cpu"))
    backend_of("nf4").loaded(model)


def timed(precisions: Sequence[str], seconds: float = SECONDS) -> Samples:
    """Time operations until every reference step is taken, or the time is over.

    Args:
        precisions: of matrix products, "fp32" or "bf16".
    """
    end = time.monotonic() + seconds
    mode = Timed()
    for reference, tokens in _steps(precisions):
        if time.monotonic() > end:
            break
        reference.step(tokens)  # what is made once isn't timed
        with mode:
            for _ in range(2):
                reference.step(tokens)
            reference.score(tokens)
    return mode.samples


def _steps(precisions: Sequence[str]) -> Iterator[tuple[Reference, int]]:
    for shape in SHAPES:
        for variant, precision in product(VARIANTS, precisions):
            reference = Reference(shape, variant, precision)
            yield from ((reference, tokens) for tokens in shape.tokens)


def told(samples: Samples) -> dict[str, list[list[float]]]:
    """Operation -> calls, operations, bytes and median seconds of each of its sizes."""
    return {
        name: [[len(seconds), *size, statistics.median(seconds)] for size, seconds in sizes.items()]
        for name, sizes in samples.items()
    }


def main() -> None:
    """Time and print."""
    torch.set_num_threads(1)
    out = sys.stdout
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        found = told(timed(sys.argv[1:]))
    print(json.dumps(found), file=out, flush=True)


if __name__ == "__main__":
    main()
