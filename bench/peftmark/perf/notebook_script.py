"""A LoRA job as a loop in a notebook: rows padded to one length, fp32, a plain PyTorch loop.

    python -m peftmark.perf.notebook_script '{"model": ..., "train": ..., ...}'

Nothing of peftmark is used. The last line printed is JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def train(ask: dict[str, Any]) -> dict[str, Any]:
    """Train and evaluate; `ask` as in `peftmark.perf.trainer_script.train`, without kind."""
    import torch
    from torch.utils.data import DataLoader
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        get_linear_schedule_with_warmup,
    )

    if ask["threads"]:
        torch.set_num_threads(ask["threads"])
    torch.manual_seed(ask["seed"])
    tokenizer: Any = AutoTokenizer.from_pretrained(ask["model"])

    names = tokenizer.model_input_names
    rows = read(ask["train"], tokenizer, ask["max_length"])
    loader = DataLoader(rows, batch_size=ask["batch_size"], shuffle=True)
    rows = read(ask["eval"], tokenizer, ask["max_length"])
    held_out = DataLoader(rows, batch_size=ask["batch_size"])
    model: Any = AutoModelForSequenceClassification.from_pretrained(ask["model"], num_labels=1)
    model = with_lora(model, ask)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=ask["learning_rate"], weight_decay=ask["weight_decay"]
    )
    make_schedule: Any = get_linear_schedule_with_warmup
    schedule = make_schedule(optimizer, ask["warmup_steps"], ask["steps"])

    marks: list[tuple[int, float]] = []
    curve: list[float] = []
    step, last = 0, ask["stop_after"] or ask["steps"]
    model.train()
    while step < last:
        for *inputs, label in loader:
            optimizer.zero_grad()
            logits = model(**dict(zip(names, inputs, strict=True))).logits.squeeze(-1)
            loss: Any = torch.nn.functional.mse_loss(logits, label.float())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, ask["max_grad_norm"])
            optimizer.step()
            schedule.step()
            step += 1
            if step % ask["eval_every"] == 0 or step == ask["steps"]:
                curve.append(evaluate(model, held_out, names))
                marks.append((step, time.perf_counter()))
            if step == last:
                break
    return {"marks": marks, "curve": curve, "threads": torch.get_num_threads()}


def read(path: str, tokenizer: Any, max_length: int) -> Any:
    """The rows of a file as a dataset: the tokenizer's tensors, and the labels last."""
    import torch
    from torch.utils.data import TensorDataset

    with open(path, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    inputs = tokenizer(
        [row["text"] for row in rows],
        [row["pair"] for row in rows] if "pair" in rows[0] else None,
        truncation=True,
        padding="max_length",
        max_length=max_length,
        return_tensors="pt",
    )
    labels = torch.tensor([row["label"] for row in rows])
    return TensorDataset(*(inputs[name] for name in tokenizer.model_input_names), labels)


def with_lora(model: Any, ask: dict[str, Any]) -> Any:
    """LoRA on every linear layer of the encoder; classifier and pooler train beside it."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=ask["rank"],
        lora_alpha=ask["alpha"],
        lora_dropout=0.0,
        target_modules=r".*\.encoder\..*(query|key|value|dense)",
        modules_to_save=["classifier", "pooler"],
    )
    return get_peft_model(model, config)


def evaluate(model: Any, held_out: Any, names: list[str]) -> float:
    """Pearson's r of the model on batches of rows."""
    import torch
    from scipy.stats import pearsonr

    model.eval()
    scores, labels = [], []
    with torch.no_grad():
        for *inputs, label in held_out:
            scores.append(model(**dict(zip(names, inputs, strict=True))).logits.squeeze(-1))
            labels.append(label)
    model.train()
    return float(pearsonr(torch.cat(scores).numpy(), torch.cat(labels).numpy())[0])


if __name__ == "__main__":
    print(json.dumps(train(json.loads(sys.argv[1]))))
