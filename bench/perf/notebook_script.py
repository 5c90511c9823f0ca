"""A LoRA job as a loop in a notebook: rows padded to one length, fp32, a plain PyTorch loop.

    python -m bench.perf.notebook_script '{"model": ..., "train": ..., ...}'

Nothing of peftmark is used. The last line printed is JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def train(ask: dict[str, Any]) -> dict[str, Any]:
    """Train and evaluate; `ask` as in `bench.perf.trainer_script.train`, without kind."""
    import torch
    from peft import LoraConfig, get_peft_model
    from scipy.stats import pearsonr
    from torch.utils.data import DataLoader, TensorDataset
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

    def read(path: str) -> TensorDataset:
        with open(path, encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        inputs = tokenizer(
            [row["text"] for row in rows],
            [row["pair"] for row in rows] if "pair" in rows[0] else None,
            truncation=True,
            padding="max_length",
            max_length=ask["max_length"],
            return_tensors="pt",
        )
        labels = torch.tensor([row["label"] for row in rows])
        return TensorDataset(*(inputs[name] for name in names), labels)

    loader = DataLoader(read(ask["train"]), batch_size=ask["batch_size"], shuffle=True)
    held_out = DataLoader(read(ask["eval"]), batch_size=ask["batch_size"])
    model: Any = AutoModelForSequenceClassification.from_pretrained(ask["model"], num_labels=1)
    config = LoraConfig(
        r=ask["rank"],
        lora_alpha=ask["alpha"],
        lora_dropout=0.0,
        target_modules=r".*\.encoder\..*(query|key|value|dense)",
        modules_to_save=["classifier", "pooler"],
    )
    model = get_peft_model(model, config)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=ask["learning_rate"], weight_decay=ask["weight_decay"]
    )
    make_schedule: Any = get_linear_schedule_with_warmup
    schedule = make_schedule(optimizer, ask["warmup_steps"], ask["steps"])

    def evaluate() -> float:
        model.eval()
        scores, labels = [], []
        with torch.no_grad():
            for *inputs, label in held_out:
                scores.append(model(**dict(zip(names, inputs, strict=True))).logits.squeeze(-1))
                labels.append(label)
        model.train()
        return float(pearsonr(torch.cat(scores).numpy(), torch.cat(labels).numpy())[0])

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
                curve.append(evaluate())
                marks.append((step, time.perf_counter()))
            if step == last:
                break
    return {"marks": marks, "curve": curve, "threads": torch.get_num_threads()}


if __name__ == "__main__":
    print(json.dumps(train(json.loads(sys.argv[1]))))
