"""Quantised weights that no suite can name, each asked for once more: who refuses, in which words.

Nothing here is needed to train. `peftmark.docgen.quantizations_page` writes the words into
docs/quantizations.md, and a test asks again.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch
from torch import nn

SIZE = 64


@dataclass(frozen=True)
class Refusal:
    """Something asked of a library that it doesn't do here.

    Attributes:
        of: what was wanted, in the words of the field.
        asked: what was asked for, in words.
        by: the package that refuses.
        needs: another package without which it can't be asked; empty for none.
        unless: a package beside which the answer is another; empty for none.
        ask: asks.
    """

    key: str
    of: str
    asked: str
    by: str
    ask: Callable[[], object]
    needs: str = ""
    unless: str = ""


def words(refusal: Refusal) -> str | None:
    """What the library answers: the type of its error and the error's words; None where it can't
    be asked with the packages that are installed.

    Raises:
        RuntimeError: it was done. Then the catalogue may have it.
    """
    if refusal.needs and not _installed(refusal.needs):
        return None
    if refusal.unless and _installed(refusal.unless):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            refusal.ask()
    except Exception as error:
        text = " ".join(str(error).split())
        return f"{type(error).__name__}: {text}"
    raise RuntimeError(f"{refusal.key}: {refusal.by} no longer refuses: {refusal.asked}")


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _tiny() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    small: dict[str, Any] = {"hidden_size": SIZE, "intermediate_size": SIZE, "num_hidden_layers": 1}
    return BertForSequenceClassification(
        BertConfig(vocab_size=8, num_attention_heads=2, max_position_embeddings=8, **small)
    )


def _load(config: Any, **settings: Any) -> Any:
    """A tiny model, loaded as transformers loads a base to quantise it."""
    from transformers import BertForSequenceClassification

    make: Any = BertForSequenceClassification
    with tempfile.TemporaryDirectory(prefix="peftmark-") as folder:
        _tiny().save_pretrained(folder)
        return make.from_pretrained(folder, quantization_config=config, **settings)


def _on_cpu(config: Any) -> Any:
    return _load(config, device_map={"": "cpu"})


def _gptq() -> object:
    from transformers import GPTQConfig

    make: Any = GPTQConfig
    return _on_cpu(make(bits=4, dataset=["a text"]))


def _awq() -> object:
    from transformers import AwqConfig

    make: Any = AwqConfig
    return _on_cpu(make(bits=4))


def _awq_before() -> object:
    from transformers import AwqConfig
    from transformers.quantizers.auto import AutoHfQuantizer

    config, make = AwqConfig, AutoHfQuantizer
    found: Any = make.from_config(config(bits=4), pre_quantized=True)
    return found.validate_environment(device_map={"": "cpu"})


def _hqq_on_cpu() -> object:
    from transformers import HqqConfig

    make: Any = HqqConfig
    return _on_cpu(make(nbits=4))


def _hqq_anywhere() -> object:
    from transformers import HqqConfig

    make: Any = HqqConfig
    return _load(make(nbits=4))


def _hqq_adalora() -> object:
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
    from peft import AdaLoraConfig, get_peft_model

    settings = BaseQuantizeConfig(nbits=4, group_size=SIZE)
    layer = HQQLinear(nn.Linear(SIZE, SIZE), settings, compute_dtype=torch.float32, device="cpu")
    schedule: dict[str, Any] = {"total_step": 10, "tinit": 1, "tfinal": 1}
    return get_peft_model(
        nn.Sequential(layer),
        AdaLoraConfig(target_modules=["0"], **schedule),
    )


def _int4(packing: str) -> Callable[[], object]:
    def ask() -> object:
        from torchao.quantization import Int4WeightOnlyConfig, quantize_

        layer = nn.Sequential(nn.Linear(SIZE, SIZE, dtype=torch.bfloat16))
        config = Int4WeightOnlyConfig(
            group_size=32, int4_packing_format=packing, set_inductor_config=False
        )
        quantize_(layer, config)
        return layer

    return ask


def _int4_lora() -> object:
    from peft import LoraConfig, get_peft_model
    from torchao.quantization import Int4Tensor

    layer: Any = nn.Linear(SIZE, SIZE)
    groups = SIZE // 32
    held = Int4Tensor(
        torch.zeros(SIZE, SIZE // 2, dtype=torch.int8),
        torch.ones(groups, SIZE),
        torch.zeros(groups, SIZE),
        [1, 32],
        torch.Size((SIZE, SIZE)),
    )
    layer.weight = nn.Parameter(held, requires_grad=False)
    return get_peft_model(nn.Sequential(layer), LoraConfig(target_modules=["0"]))


REFUSALS = (
    Refusal(
        "gptq",
        "GPTQ",
        "quantise a base as it loads",
        "transformers",
        _gptq,
        unless="optimum-quanto",
    ),
    Refusal(
        "gptq-beside-quanto",
        "GPTQ",
        "the same beside quanto, which transformers takes for the package optimum",
        "transformers",
        _gptq,
        "optimum-quanto",
    ),
    Refusal("awq", "AWQ", "quantise a base as it loads", "transformers", _awq),
    Refusal("awq-before", "AWQ", "load a base that AWQ quantised", "transformers", _awq_before),
    Refusal(
        "hqq-cpu", "HQQ", "quantise a base on a CPU as it loads", "transformers", _hqq_on_cpu, "hqq"
    ),
    Refusal(
        "hqq", "HQQ", "quantise a base as it loads, wherever", "transformers", _hqq_anywhere, "hqq"
    ),
    Refusal("hqq-adalora", "HQQ", "AdaLoRA on a layer of HQQ's", "peft", _hqq_adalora, "hqq"),
    Refusal(
        "int4-plain", "int4 of torchao", "quantise a layer", "torchao", _int4("plain"), "torchao"
    ),
    Refusal(
        "int4-int32",
        "int4 of torchao",
        "quantise a layer on a CPU, packed as plain_int32",
        "torchao",
        _int4("plain_int32"),
        "torchao",
    ),
    Refusal("int4-lora", "int4 of torchao", "LoRA on such a weight", "peft", _int4_lora, "torchao"),
)
