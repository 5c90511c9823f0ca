"""Faults to plant in a copy of the code: each an edit that could slip through a review.

The sites were listed before the gate was made to find them: what trains (groups of the optimizer,
schedule, clipping, masks, padding, order of rows and labels, seeds, scale of the adapter, modules
that are quantised and their blocks, AdaLoRA's constants), what scores (metric, evaluation mode,
rows), and what is kept (merge, save). `tests/inject.py` plants them; a test holds each to the text
that it edits.
"""

from __future__ import annotations

from dataclasses import dataclass

LAB = "bench/peftmark/lab/"
STEP = LAB + "step.py"
TRAIN = LAB + "train.py"
BATCHES = LAB + "data/batches.py"
JOB_DATA = LAB + "data/job_data.py"
LORA = LAB + "methods/lora.py"
ADALORA = LAB + "methods/adalora.py"
SCORING = LAB + "scoring.py"
FOUR_BIT = LAB + "quantization/bitsandbytes_4bit.py"


@dataclass(frozen=True)
class Mutant:
    """A fault.

    Attributes:
        site: the part of the procedure it is in.
        edits: (file, text in it, text in its place).
        named: whether an audit planted it, and it passed.
    """

    site: str
    edits: tuple[tuple[str, str, str], ...]
    named: bool = False

    @property
    def cells(self) -> tuple[str, ...]:
        """Cells of suite `smoke` to run with it, "method quantization". The gate sees the rows of
        the healthy code for the others, so that a whole run could only show more."""
        return CELLS.get(self.site, ("lora none",))


CELLS = {
    "AdaLoRA": ("adalora none",),
    "several": ("adalora none",),
    "determinism": ("adalora none",),  # of which one run is repeated
    "quantization": ("lora nf4",),
    "dropout": ("lora nf4",),
    "suite": (),
}
"""Site -> the cells that show it."""


def _one(site: str, file: str, old: str, new: str, named: bool = False) -> Mutant:
    return Mutant(site, ((file, old, new),), named)


_SCHEDULER = (
    (STEP, "        if self._scaler is None:\n            self.optimizer.step()",
     "        self._scheduler.step()\n"
     "        if self._scaler is None:\n            self.optimizer.step()"),
    (STEP, "            self._scheduler.step()\n        if number",
     "            pass\n        if number"),
)  # fmt: skip
_DECAY = (STEP, "decay = 0.0 if key[0] else recipe.weight_decay", "decay = recipe.weight_decay")
_LOSS = "cross_entropy(logits, batch.labels, label_smoothing=smoothing)"
_SUM = (STEP, _LOSS, _LOSS.replace(")", ', reduction="sum")'))
_PENALTY = (ADALORA, "lambda: schedule.orthogonal_weight * dyn", "lambda: 0 * dyn")

MUTANTS: dict[str, Mutant] = {
    "scheduler before optimizer": Mutant("schedule", _SCHEDULER, True),
    "weight decay on biases and norms": Mutant("optimizer groups", (_DECAY,), True),
    "loss summed": Mutant("loss", (_SUM,), True),
    "penalty times 0": Mutant("AdaLoRA", (_PENALTY,), True),
    "these four at once": Mutant("several", (*_SCHEDULER, _DECAY, _SUM, _PENALTY), True),
    "class 0 left out of the loss": _one(
        "loss", STEP, _LOSS, _LOSS.replace(")", ", ignore_index=0)"), True
    ),
    "rows cut at 64 tokens": _one(
        "rows", JOB_DATA, "return Encoder(tokenizer, recipe.max_length, kind, recipe.pad_to)",
        "return Encoder(tokenizer, 64, kind, recipe.pad_to)", True,
    ),
    "LoRA's dropout always 0": _one(
        "dropout", LORA, '"lora_dropout": recipe.dropout', '"lora_dropout": 0.0', True
    ),
    "learning rate halved": _one(
        "optimizer groups", STEP, "rate = recipe.learning_rate * scale",
        "rate = 0.5 * recipe.learning_rate * scale",
    ),
    "Adam forgets faster": _one(
        "optimizer groups", STEP, "make(ordered, lr=recipe.learning_rate)",
        "make(ordered, lr=recipe.learning_rate, betas=(0.9, 0.99))",
    ),
    "the head does not decay": _one(
        "optimizer groups", STEP, "key = (parameter.dim() <= 1,",
        'key = (parameter.dim() <= 1 or "classifier" in name,',
    ),
    "no warm-up": _one("schedule", STEP, "    if step < warmup:", "    if False:"),
    "linear schedule stays flat": _one(
        "schedule", STEP, '"linear": lambda left: left,', '"linear": lambda left: 1.0,'
    ),
    "nothing is clipped": _one(
        "clipping", STEP, "            self._job.recipe.max_grad_norm,\n            foreach",
        "            1e9,\n            foreach",
    ),
    "gradients pile up": _one(
        "gradients", STEP, "self.optimizer.zero_grad(set_to_none=True)", "pass"
    ),
    "penalty told and not trained": _one(
        "AdaLoRA", STEP, "whole: Any = loss if penalty is None else loss + penalty",
        "whole: Any = loss",
    ),
    "AdaLoRA's update call removed": _one(
        "AdaLoRA", ADALORA, "self._tuner.update_and_allocate(step)", "pass"
    ),
    "AdaLoRA smooths less": _one(
        "AdaLoRA", ADALORA, '"beta1": schedule.beta1', '"beta1": 0.5'
    ),
    "AdaLoRA prunes from the start": _one(
        "AdaLoRA", ADALORA, '"tinit": schedule.tinit', '"tinit": 0'
    ),
    "padding is attended to": _one(
        "masks", BATCHES, '"attention_mask": 0,', '"attention_mask": 1,'
    ),
    "padded with another token": _one(
        "padding", BATCHES, '"input_ids": padding_of(tokenizer) or 0', '"input_ids": 100'
    ),
    "batches by length": _one(
        "row order", BATCHES, "for i in generator.permutation(len(cut))]",
        "for i in range(len(cut))]",
    ),
    "data order of one seed": Mutant(
        "seeds",
        ((JOB_DATA, 'generator(job.seed, "order")', 'generator(0, "order")'),
         (JOB_DATA, 'generator(job.seed, "windows")', 'generator(0, "windows")')),
    ),
    "one seed for all adapters": _one(
        "seeds", LAB + "build.py", 'seed_all(self.job.seed, "adapter")', 'seed_all(0, "adapter")'
    ),
    "dropout draws on from the adapter": _one(
        "seeds", LAB + "recipe.py", '    seed_all(job.seed, "dropout", team.place)\n', ""
    ),
    "labels turned round in training": _one(
        "label order", JOB_DATA, "[int(v) for v in values]", "[5 - int(v) for v in values]"
    ),
    "labels turned round everywhere": _one(
        "label order", LAB + "data/held_out.py", "        return row.label\n",
        "        return len(task.labels) - 1 - row.label\n",
    ),
    "selection rows are trained on": _one(
        "rows", JOB_DATA, "    rest, cut = cut_selection(data.train, recipe.selection_rows)",
        "    rest, cut = data.train, cut_selection(data.train, recipe.selection_rows)[1]",
    ),
    "evaluation rows are trained on": _one(
        "rows", JOB_DATA, "    rows = subset(rest, recipe.train_rows)",
        "    rows = [*data.eval, *rest]",
    ),
    "the first rows of the file": _one(
        "rows", BATCHES, "    return sorted(rows, key=key)[:count]", "    return rows[:count]"
    ),
    "accuracy is balanced accuracy": _one(
        "metric", LAB + "metrics.py", '    "accuracy": sk.accuracy_score,',
        '    "accuracy": _balanced_accuracy,',
    ),
    "scored with dropout": _one(
        "evaluation mode", SCORING,
        "    model.eval()\n    with torch.inference_mode():\n        parts",
        "    model.train()\n    with torch.inference_mode():\n        parts",
    ),
    "trains without dropout after the first score": _one(
        "evaluation mode", SCORING, "    model.train(training)\n    # Rows of one batch",
        "    # Rows of one batch",
    ),
    "adapter at twice its scale": _one(
        "adapter", LORA, '"lora_alpha": recipe.alpha', '"lora_alpha": 2 * recipe.alpha'
    ),
    "adapters on queries and values alone": _one(
        "adapter", LAB + "models.py", "        return list(parts.encoder_linears)",
        '        return [n for n in parts.encoder_linears if n.endswith(("query", "value"))]',
    ),
    "pooler frozen": _one(
        "adapter", LAB + "models.py", "if parts.pooler and train_pooler else []",
        "if False else []",
    ),
    "fp4 for nf4": _one(
        "quantization", FOUR_BIT, "bnb_4bit_quant_type=job.quantization",
        'bnb_4bit_quant_type="fp4"',
    ),
    "constants are not quantised again": _one(
        "quantization", FOUR_BIT,
        "bnb_4bit_use_double_quant=bool(job.recipe.double_quantization)",
        "bnb_4bit_use_double_quant=False",
    ),
    "one layer stays whole": _one(
        "quantization", FOUR_BIT, "llm_int8_skip_modules=list(whole)",
        'llm_int8_skip_modules=[*whole, "layer.0.attention.self.query"]',
    ),
    "arithmetic in fp32": _one(
        "precision", LAB + "number_types.py",
        'kind, low = TYPES[job.recipe.precision], job.recipe.precision != "fp32"',
        "kind, low = TYPES[job.recipe.precision], False",
    ),
    "merged at half the scale": _one(
        "merge", LORA, "        merged = merged.merge_and_unload()",
        "        for m in merged.modules():\n"
        '            if hasattr(m, "scaling") and isinstance(m.scaling, dict):\n'
        "                m.scaling = {k: v / 2 for k, v in m.scaling.items()}\n"
        "        merged = merged.merge_and_unload()",
    ),
    "the head is saved at half its size": Mutant(
        "save",
        ((LORA, "from safetensors.torch import save_file",
          "from safetensors.torch import load_file, save_file"),
         (LORA, "            wrapped.save_pretrained(str(folder), save_embedding_layers=False)",
          "            wrapped.save_pretrained(str(folder), save_embedding_layers=False)\n"
          '        kept = load_file(folder / "adapter_model.safetensors")\n'
          '        kept = {k: v * (0.5 if "classifier" in k else 1) for k, v in kept.items()}\n'
          '        save_file(kept, folder / "adapter_model.safetensors", {"format": "pt"})')),
    ),
    "two copies of all weights": _one(
        "memory", STEP, "        if self._scaler is None:\n            self.optimizer.step()",
        "        weights = self._prepared.model.parameters()\n"
        "        self._kept = [torch.ones(2, p.numel()) for p in weights]\n"
        "        if self._scaler is None:\n            self.optimizer.step()",
    ),
    "random numbers in the gradients": _one(
        "determinism", STEP, "        norm = nn.utils.clip_grad_norm_",
        "        import os\n"
        "        noise = int.from_bytes(os.urandom(2), 'big') * 1e-9\n"
        "        for p in self._params:\n"
        "            p.grad.add_(noise)\n"
        "        norm = nn.utils.clip_grad_norm_",
    ),
    "a method taken out": _one(
        "suite", "suites/smoke.yaml", "  - method: head\n    recipe: {learning_rate: 5e-3}\n", ""
    ),
}  # fmt: skip
