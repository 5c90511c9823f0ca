"""Tiny causal language models and tasks for them, beside those of `tiny`."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

import tiny
from factory import make_job, make_recipe
from peftmark.catalog.methods import known_method
from peftmark.catalog.models import MODELS, Model
from peftmark.catalog.origins import Hub
from peftmark.catalog.prompts import PROMPTS, Prompt
from peftmark.catalog.tasks import TASKS
from peftmark.core.hashes import sha256_file
from peftmark.lab.data.job_data import task_of
from peftmark.lab.methods import Prepared, Setting, prepare
from peftmark.lab.models import anatomy, load_model
from peftmark.lab.rng import seed_all
from peftmark.lab.step import task_loss
from peftmark.record.job import Job
from peftmark.record.recipe import Causal
from peftmark.sources.assets import Places

WORDS = [f"w{i}" for i in range(40)]
SPECIAL = ["[PAD]", "[UNK]", "[BOS]", "[EOS]"]
SAID = ["Text", ":", "Half", "low", "high", "very", "the", "words", "are", "?"]
PROMPT = Prompt("Text: {text} Half?", ("low", "very very high"))
ASKED = Prompt("{text} ?")
SIZES = {
    "vocab_size": len(SPECIAL) + len(SAID) + len(WORDS),
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "tie_word_embeddings": True,
}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=96, max_position_embeddings=64, **SIZES,
    ),
    # Positions are learned ones: a prompt padded on the left must still begin at the first.
    "gpt2": lambda: transformers.GPT2Config(
        n_embd=64, n_layer=2, n_head=4, n_positions=64, **SIZES
    ),
}  # fmt: skip


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A word-level tokenizer that begins a text with [BOS], as Llama's does."""
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *SAID, *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[BOS] $A", special_tokens=[("[BOS]", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        model_input_names=["input_ids", "attention_mask"],
    )


def make_model(folder: Path, architecture: str = "llama") -> None:
    """Save a random model and its tokenizer."""
    torch.manual_seed(7)
    config = CONFIGS[architecture]()
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def make_rows(path: Path, count: int, kind: str) -> None:
    """Rows whose answer is a rule a tiny model learns: which half its words come from."""
    generator = torch.Generator().manual_seed(count)
    lines = []
    for i in range(count):
        half = i % 2
        length = 9 + i % 3 if kind == "language" else 3 + i % 5
        picks = torch.randint(0, 20, (length,), generator=generator).tolist()
        text = " ".join(WORDS[p + half * 20] for p in picks)
        if kind == "language":
            lines.append(json.dumps({"text": text}))
        elif kind == "instruction":
            answer = "the words are low" if half == 0 else "very high"
            lines.append(json.dumps({"question": text, "answer": answer}))
        else:
            lines.append(json.dumps({"sentence": text, "label": half}))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


KINDS = {
    "tiny-rank": ("classification", "sst-2"),
    "tiny-answer": ("instruction", "chatterbot"),
    "tiny-text": ("language", "reviews"),
    "tiny-other": ("language", "editorials"),
}


def with_all_parts(root: Path, monkeypatch) -> Places:
    """A model with what some method needs: three layers, biases, and words of its own to say."""
    sizes = {**SIZES, "tie_word_embeddings": False}
    config = transformers.LlamaConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64, attention_bias=True, mlp_bias=True, **sizes,
    )  # fmt: skip
    monkeypatch.setitem(CONFIGS, "llama", lambda: config)
    install(root / "mirror", monkeypatch)
    return Places(root / "mirror", ("mirror",), root / "cache")


def install(mirror: Path, monkeypatch, architecture: str = "llama") -> None:
    """Put a tiny model and a tiny task of each kind into a mirror and into the tables."""
    folder = mirror / "models" / "tiny"
    folder.mkdir(parents=True)
    make_model(folder, architecture)
    identity = sha256_file(folder / "model.safetensors")
    hub = Hub("nobody/tiny", "0" * 40)
    model = Model("tiny", "tiny", identity, hub, (), 1, "none", "made in a test", causal=True)
    monkeypatch.setitem(MODELS, "tiny", model)
    for key, (kind, base) in KINDS.items():
        make_rows(mirror / key / "train.jsonl", 96 + (key == "tiny-other"), kind)
        make_rows(mirror / key / "dev.jsonl", 40 + (key == "tiny-other"), kind)
        task = replace(
            TASKS[base],
            key=key,
            train_rows=96 + (key == "tiny-other"),
            eval_rows=40 + (key == "tiny-other"),
            fingerprint=None,
            mirror=(key,),
            hub_fields=(),
            package=None,
            hub=None,
        )
        monkeypatch.setitem(TASKS, key, task)
    monkeypatch.setitem(PROMPTS, "tiny-rank", PROMPT)
    monkeypatch.setitem(PROMPTS, "tiny-answer", ASKED)


def job(
    method: str = "lora",
    task: str = "tiny-rank",
    quantization: str = "none",
    rank: int = 2,
    seed: int = 0,
    purpose: str = "report",
    **recipe: object,
) -> Job:
    """A job of one cell on the tiny model and one of the tiny tasks."""
    known = known_method(method)
    settings: dict[str, object] = {
        "targets": "all-linear" if "targets" in known.settings else None,
        "alpha": 8.0 if "alpha" in known.settings else None,
        "dropout": 0.1 if "dropout" in known.settings else None,
        "adalora": tiny.SCHEDULE if known.schedule else None,
        "options": known.resolved_options({}),
        "double_quantization": True if quantization in ("nf4", "fp4") else None,
    }
    base = make_job(
        task=task,
        metric=TASKS[task].metric,
        method=method,
        size=rank if known.size else None,
        quantization=quantization,
        seed=seed,
        purpose=purpose,
        target=None,
        recipe=make_recipe(),
        causal=Causal(
            PROMPTS[task].identity if task in PROMPTS else "",
            6 if TASKS[task].kind == "instruction" else None,
            "tiny-other:none",
        ),
    )
    return tiny.tiny_job(base, **{"max_length": 32, **settings, **recipe})


def built(places: Places, asked: Job) -> tuple[nn.Module, Prepared]:
    """The tiny model as a job's base, and the job's method on a copy of it."""
    folder, task = places.mirror / "models" / "tiny", task_of(asked)
    parts, device = anatomy(folder, task), torch.device("cpu")

    def fresh() -> nn.Module:
        return load_model(folder, asked, task, parts)

    base = fresh()
    setting = Setting(
        job=asked,
        parts=parts,
        device=device,
        preview=tiny.work(places, asked).preview,
        loss=lambda model, batch: task_loss(model, batch, task, asked, device),
        fresh_base=fresh,
        plain_base=lambda: load_model(folder, replace(asked, quantization="none"), task, parts),
        size=asked.size,
    )
    seed_all(asked.seed, "adapter")
    return base.eval(), prepare(copy.deepcopy(base), setting)
