"""The few lines that load an export without peftmark: written into it, run by its check."""

from __future__ import annotations

import json
import pprint
from typing import Any

from peftmark.catalog.task import SPOKEN
from peftmark.lab.export.forms import Form
from peftmark.lab.export.opened import Opened
from peftmark.lab.last_token import reads_last_token
from peftmark.lab.methods.any_peft import HEAD_FILE
from peftmark.lab.models import maker_of
from peftmark.lab.number_types import TYPES
from peftmark.lab.quantization.stored import compute_as, is_stored, packed_of
from peftmark.lab.quantization.table import backend_of

FILE = "load.py"
BASE = "base"
"""Folder of an export that holds the base."""


def loading_code(opened: Opened, form: Form, with_base: bool) -> str:
    """The text of `load.py`."""
    spoken = opened.task.kind in SPOKEN
    maker = f"AutoModelFor{'CausalLM' if spoken else 'SequenceClassification'}"
    more: list[str] = []
    if form == "model":
        body = [f"    model = {maker}.from_pretrained(HERE, dtype=torch.float32)"]
        given = 'device="cpu"'
    else:
        body, more = _adapter(opened, maker, with_base)
        given = 'base=BASE, revision=REVISION, device="cpu"'
    return "\n".join(
        [
            '"""Loads the model in this folder with torch, transformers and PEFT alone."""',
            "",
            "from pathlib import Path",
            "",
            "import torch",
            *([] if form == "model" else ["from peft import PeftModel"]),
            f"from transformers import {maker}",
            *more,
            "",
            "HERE = Path(__file__).resolve().parent",
            *([] if form == "model" else _base(opened, with_base)),
            *_meaning(opened),
            "",
            "",
            f"def load({given}):",
            '    """The trained model in evaluation mode."""',
            *body,
            "    return model.to(device).eval()",
            "",
        ]
    )


def _base(opened: Opened, with_base: bool) -> list[str]:
    hub = opened.job.model_facts.hub
    if with_base:
        return [f"BASE, REVISION = HERE / {BASE!r}, None"]
    if hub is not None:
        return [f"BASE = {hub.repository!r}", f"REVISION = {hub.revision!r}"]
    return ["BASE, REVISION = None, None  # no hub has it: name the folder of the base"]


def _meaning(opened: Opened) -> list[str]:
    """What the numbers that come out stand for."""
    kind, kept = opened.task.kind, opened.kept
    if kind == "regression":
        return [
            "# A score is the logit times SCALE plus MEAN.",
            f"MEAN, SCALE = {kept.mean!r}, {kept.scale!r}",
        ]
    if kind in ("classification", "multi-label"):
        several = "  # each is there where its logit is above 0" if kind == "multi-label" else ""
        return [f"CLASSES = {list(opened.task.labels)!r}{several}"]
    return []


def _adapter(opened: Opened, maker: str, with_base: bool) -> tuple[list[str], list[str]]:
    """Lines that load base and adapter, and what they import beside."""
    job, more = opened.job, []
    stored = _stored(opened, with_base) if is_stored(job) else []
    body = [
        *stored,
        f"    model = {maker}.from_pretrained(",
        "        base,",
        "        revision=revision,",
        f"        dtype={TYPES[job.recipe.weights]},",
    ]
    if stored:
        more.append("from transformers import AutoConfig")
        body += ["        config=config,", '        device_map={"": device},']
    elif maker.endswith("Classification"):
        body.append(f"        num_labels={_classes(opened)},")
    settings = None if stored else _quantization(opened)
    if settings is not None:
        more.append("from transformers.quantizers.auto import AutoQuantizationConfig")
        text = pprint.pformat(settings, indent=1, width=84, sort_dicts=True).splitlines()
        body += ["        quantization_config=AutoQuantizationConfig.from_dict("]
        body += [*(f"            {line}" for line in text), "        ),"]
        body.append('        device_map={"": device},')
    body.append("    )")
    if job.recipe.weights != "fp32":
        body += [
            "    for p in model.parameters():  # the base was rounded, arithmetic is in fp32",
            "        if p.dtype in (torch.bfloat16, torch.float16):",
            "            p.data = p.data.float()",
        ]
    if opened.parts.padding is not None and reads_last_token(_config(opened)):
        body.append(f"    model.config.get_text_config().pad_token_id = {opened.parts.padding}")
    if backend_of(job.quantization).family == "bitsandbytes-4bit":
        body += [
            "    for module in model.modules():  # no repacking to bf16 on a CPU that has it",
            '        if hasattr(module, "support_avx512bf16_for_cpu"):',
            "            module.support_avx512bf16_for_cpu = False",
        ]
    if (opened.folder / HEAD_FILE).is_file():
        more.append("from safetensors.torch import load_file")
        body.append(f"    model.load_state_dict(load_file(HERE / {HEAD_FILE!r}), strict=False)")
    return [*body, "    model = PeftModel.from_pretrained(model, str(HERE))"], more


def _classes(opened: Opened) -> int:
    return max(1, len(opened.task.labels))


def _stored(opened: Opened, with_base: bool) -> list[str]:
    """Lines that make the configuration of a base whose files are quantised already."""
    head, config = opened.parts.head_linears, _config(opened)
    made = maker_of(opened.task.kind)._model_mapping[type(config)]
    packed = [] if with_base else packed_of(head, opened.files)
    whole = [name for name in head if name not in packed]
    found = compute_as(config, opened.job, made.base_model_prefix, whole)
    text = pprint.pformat(_in_fp32(found), indent=1, width=84, sort_dicts=True).splitlines()
    return [
        "    config = AutoConfig.from_pretrained(",
        f"        base, revision=revision, num_labels={_classes(opened)}",
        "    )",
        "    # As its files say, but for the type that layers compute in.",
        f"    config.quantization_config = {text[0]}",
        *(f"    {line}" for line in text[1:]),
    ]


def _config(opened: Opened) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(opened.files, local_files_only=True)


def _quantization(opened: Opened) -> dict[str, Any] | None:
    """transformers' settings of the quantised base, its products in fp32."""
    config = backend_of(opened.job.quantization).config(opened.job, opened.parts.head_linears)
    return None if config is None else _in_fp32(config.to_dict())


def _in_fp32(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as plain data, layers computing in fp32."""
    found: dict[str, Any] = json.loads(json.dumps(settings))  # enumerations as words
    if "bnb_4bit_compute_dtype" in found:
        found["bnb_4bit_compute_dtype"] = "float32"
    return found
