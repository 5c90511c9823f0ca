"""Tiny models with random weights, made on the spot: every architecture in milliseconds."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from factory import make_job, make_recipe
from peftmark.catalog.methods import known_method
from peftmark.catalog.models import MODELS, Model
from peftmark.catalog.origins import Hub
from peftmark.catalog.tasks import TASKS
from peftmark.core.hashes import sha256_file
from peftmark.lab import recipe
from peftmark.lab.build import Build
from peftmark.lab.data.job_data import Work, prepare_work, task_of
from peftmark.lab.export.opened import Opened, opened
from peftmark.lab.methods import Prepared
from peftmark.lab.models import anatomy, load_model, load_tokenizer
from peftmark.lab.step import task_loss
from peftmark.record.job import Job
from peftmark.record.outcome import Outcome
from peftmark.record.recipe import AdaLoraSchedule
from peftmark.sources.assets import Places
from peftmark.sources.task_data import load_task

WORDS = [f"w{i}" for i in range(40)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": len(WORDS) + len(SPECIAL),
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
CONFIGS = {
    "bert": lambda: transformers.BertConfig(**SMALL),
    "roberta": lambda: transformers.RobertaConfig(**SMALL),
    "deberta-v2": lambda: transformers.DebertaV2Config(**SMALL),
    "distilbert": lambda: transformers.DistilBertConfig(
        dim=64, n_layers=2, n_heads=2, hidden_dim=64,
        vocab_size=SMALL["vocab_size"], max_position_embeddings=40, pad_token_id=0,
    ),
    "mpnet": lambda: transformers.MPNetConfig(**SMALL),
}  # fmt: skip


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A word-level tokenizer over `WORDS`."""
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "attention_mask"],
    )


_made: dict[str, dict[str, bytes]] = {}
"""Configuration -> the files of the model that was made of it, by name."""


def make_model(folder: Path, architecture: str) -> None:
    """Put a random encoder and its tokenizer into a folder; each is made once."""
    config = CONFIGS[architecture]()
    key = config.to_json_string()
    if key not in _made:
        with tempfile.TemporaryDirectory() as scratch:
            _save_model(Path(scratch), config)
            _made[key] = {path.name: path.read_bytes() for path in Path(scratch).iterdir()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _made[key].items():
        (folder / name).write_bytes(content)


def _save_model(folder: Path, config: transformers.PretrainedConfig) -> None:
    torch.manual_seed(7)
    model = transformers.AutoModel.from_config(config)
    # Random weights at the usual 0.02 say almost nothing in two layers; a real base says more.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def make_rows(path: Path, count: int, regression: bool) -> None:
    """Rows whose label is a rule a tiny model learns: which half its words come from."""
    generator = torch.Generator().manual_seed(count)
    lines = []
    for i in range(count):
        half = i % 2
        picks = torch.randint(0, len(WORDS) // 2, (3 + i % 5,), generator=generator).tolist()
        label = 4.0 * half + (i % 3) / 4 if regression else half
        text = " ".join(WORDS[p + half * len(WORDS) // 2] for p in picks)
        lines.append(json.dumps({"sentence": text, "label": label}))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@contextmanager
def installed(root: Path) -> Iterator[Places]:
    """A mirror with the tiny model and its tasks, and an empty cache, for several tests."""
    import pytest  # workers of tests load this module too

    with pytest.MonkeyPatch.context() as patch:
        install(root / "mirror", patch)
        yield Places(root / "mirror", ("mirror",), root / "cache")


def install(mirror: Path, monkeypatch, architecture: str = "bert") -> None:
    """Put a tiny model and two tiny tasks into a mirror and into the tables."""
    folder = mirror / "models" / "tiny"
    folder.mkdir(parents=True)
    make_model(folder, architecture)
    identity = sha256_file(folder / "model.safetensors")
    hub = Hub("nobody/tiny", "0" * 40)
    model = Model("tiny", "tiny", identity, hub, (), 1, "none", "made in a test")
    monkeypatch.setitem(MODELS, "tiny", model)
    for key, base in (("tiny-class", "sst-2"), ("tiny-score", "sts-b")):
        make_rows(mirror / key / "train.jsonl", 96, base == "sts-b")
        make_rows(mirror / key / "dev.jsonl", 40, base == "sts-b")
        task = replace(
            TASKS[base],
            key=key,
            train_rows=96,
            eval_rows=40,
            fingerprint=None,
            mirror=(key,),
            fields=("sentence",),
            hub_fields=(),
            package=None,
            hub=None,
        )
        monkeypatch.setitem(TASKS, key, task)


SCHEDULE = AdaLoraSchedule(4, 2, 4, 1, 0.85, 0.85, 0.1)


def job(
    method: str = "lora",
    quantization: str = "none",
    task: str = "tiny-class",
    rank: int = 2,
    seed: int = 0,
    purpose: str = "report",
    options: dict[str, object] | None = None,
    **recipe: object,
) -> Job:
    """A job of one cell on the tiny model and a tiny task; further names change the recipe."""
    known = known_method(method)
    settings: dict[str, object] = {
        "targets": "all-linear" if "targets" in known.settings else None,
        "alpha": 8.0 if "alpha" in known.settings else None,
        "dropout": 0.1 if "dropout" in known.settings else None,
        "adalora": SCHEDULE if known.schedule else None,
        "options": known.resolved_options(options or {}),
        "double_quantization": True if quantization in ("nf4", "fp4") else None,
    }
    base = make_job(
        task=task,
        metric="accuracy" if task == "tiny-class" else "pearson",
        method=method,
        size=rank if known.size else None,
        quantization=quantization,
        seed=seed,
        purpose=purpose,
        target=0.6,
        recipe=make_recipe(),
    )
    return tiny_job(base, **{**settings, **recipe})


def base(places: Places, job: Job) -> torch.nn.Module:
    """The installed model as a job's base."""
    folder = places.mirror / "models" / "tiny"
    task = task_of(job)
    return load_model(folder, job, task, anatomy(folder, task))


def builder(places: Places, job: Job) -> Build:
    """Builds the installed model as often as needed."""
    folder = places.mirror / "models" / "tiny"
    task = task_of(job)
    parts = anatomy(folder, task)
    return Build(job, task, folder, parts, work(places, job))


def build(places: Places, job: Job) -> Prepared:
    """The installed model, ready to train."""
    made = builder(places, job)
    return made.prepare(made.base())


def loss_and_gradient(places: Places, job: Job) -> tuple[float, float]:
    """The loss of the first batch on the job's device, and the norm of all its gradients."""
    made, device = builder(places, job), torch.device(job.device)
    model = made.prepare(made.base()).model.to(device).train()
    loss = task_loss(model, made.work.train(0).to(device), task_of(job), job, device)
    loss.backward()
    grads = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    return float(loss.detach()), float(torch.stack(grads).norm())


def work(places: Places, job: Job) -> Work:
    """The batches of a job."""
    task = task_of(job)
    folder = places.mirror / "models" / "tiny"
    return prepare_work(job, task, load_task(task, places), load_tokenizer(folder), folder)


def tiny_job(job: Job, **recipe: object) -> Job:
    """A job on the tiny model: 12 steps of 8 rows."""
    settings = {
        "steps": 12,
        "batch_size": 8,
        "eval_every": 6,
        "eval_batch_size": 16,
        "max_length": 16,
        "precision": "fp32",
        "window_batches": 4,
        "train_rows": None,
        "eval_rows": None,
        "learning_rate": 5e-3,
        "warmup_steps": 2,
    }
    changed = replace(job.recipe, **{**settings, **recipe})
    return replace(job, model="tiny", model_identity="", data_fingerprint="none", recipe=changed)


def left(job: Job, places: Places, folder: Path) -> tuple[Opened, Outcome]:
    """What a job leaves in a folder, opened again, and its outcome."""
    outbox = folder / job.job_id
    done = recipe.run(job, places, lambda message: None, outbox)
    assert done.status == "ok", done.status_reason
    return opened(outbox, places), done
