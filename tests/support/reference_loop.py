"""What peftmark claims to do in a job, written out by hand; nothing of peftmark is used here.

Each line of the input is a job as JSON: model folder, method, rank, quantization, classes (0:
regression), seed, threads, recipe, rows, and the row numbers of every batch.
"""

import hashlib
import json
import sys
from types import SimpleNamespace

import numpy as np
import torch
from peft import AdaLoraConfig, LoraConfig, get_peft_model
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BitsAndBytesConfig


def seed(job, stream):  # every thing that is drawn has a stream of its own
    digest = hashlib.sha256(f"peftmark/{job.seed}/{stream}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def load(job, recipe):
    options = {"num_labels": job.classes or 1, "dtype": torch.float32, "device_map": {"": "cpu"}}
    if job.quantization == "nf4":  # classifier and pooler stay float
        skip = ["classifier", "bert.pooler.dense"]
        dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        how = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
        how |= {"bnb_4bit_use_double_quant": True, "llm_int8_skip_modules": skip}
        options["quantization_config"] = BitsAndBytesConfig(load_in_4bit=True, **how)
    seed(job, "head")
    model = AutoModelForSequenceClassification.from_pretrained(job.model, **options)
    for module in model.modules():
        module.support_avx512bf16_for_cpu = False  # bitsandbytes would repack what still trains
    return model.requires_grad_(False)


def adapt(model, job, recipe):
    linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    targets, head = [n for n in linear if ".encoder." in n], ["classifier", "bert.pooler"]
    options = {"target_modules": targets, "modules_to_save": head, "lora_alpha": recipe.alpha}
    options |= {"lora_dropout": recipe.dropout}
    seed(job, "adapter")
    if job.method == "lora":
        return get_peft_model(model, LoraConfig(r=job.rank, **options))
    plan = recipe.adalora
    options |= {"tinit": plan.tinit, "tfinal": plan.tfinal, "deltaT": plan.delta_t}
    options |= {"beta1": plan.beta1, "beta2": plan.beta2, "total_step": recipe.steps}
    return get_peft_model(model, AdaLoraConfig(init_r=plan.init_rank, target_r=job.rank, **options))


def penalty(model):  # how far AdaLoRA's P and Q are from orthogonal
    named = [(n, p) for n, p in model.named_parameters() if "lora_A" in n or "lora_B" in n]
    grams = [p @ p.T if "lora_A" in n else p.T @ p for n, p in named]
    return torch.stack([torch.linalg.norm(gram - torch.eye(len(gram))) for gram in grams]).mean()


def run(job, recipe):
    torch.set_num_threads(job.threads)
    model = adapt(load(job, recipe), job, recipe)
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    criterion = nn.CrossEntropyLoss() if job.classes else nn.MSELoss()
    labels = torch.tensor(np.array(job.train.labels))
    if not job.classes:  # scores are standardised
        labels = ((labels - labels.mean()) / labels.std(correction=0)).float()

    def tokens(texts, **options):
        parts = [list(part) for part in zip(*texts, strict=True)]
        return tokenizer(*parts, truncation=True, max_length=recipe.max_length, **options)

    def forward(texts):  # padded to the longest row of the batch
        inputs = tokens(texts, padding=True, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16, recipe.precision == "bf16"):
            return model(**inputs).logits.float()

    def evaluate(rows, size=recipe.eval_batch_size):  # in order of length: little padding
        order = np.argsort([len(ids) for ids in tokens(rows.texts)["input_ids"]], kind="stable")
        texts, right = [rows.texts[i] for i in order], np.array(rows.labels)[order]
        with torch.inference_mode():
            found = torch.cat([forward(texts[i : i + size]) for i in range(0, len(texts), size)])
        if job.classes:
            return float(accuracy_score(right, found.argmax(1)))
        return float(pearsonr(found[:, 0], right)[0])

    params = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in params if p.dim() > 1], "weight_decay": recipe.weight_decay}]
    groups += [{"params": [p for p in params if p.dim() == 1], "weight_decay": 0.0}]
    optimizer, warm_up = torch.optim.AdamW(groups), recipe.warmup_steps
    curve, losses, adaptive = [], [], job.method == "adalora"
    seed(job, "dropout")
    for step, batch in enumerate(job.batches, start=1):
        share = min(step / warm_up, (recipe.steps - step + 1) / (recipe.steps - warm_up))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * share
        model.train()
        logits = forward([job.train.texts[i] for i in batch])
        loss = criterion(logits if job.classes else logits[:, 0], labels[batch])
        extra = recipe.adalora.orthogonal_weight * penalty(model) if adaptive else torch.zeros(())
        (loss + extra).backward()
        nn.utils.clip_grad_norm_(params, recipe.max_grad_norm)
        optimizer.step()
        if adaptive:  # while the gradients still stand
            model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
        losses.append((loss.item(), extra.item()))
        if step % recipe.eval_every == 0 or step == recipe.steps:
            model.eval()
            scores = {name: evaluate(rows) for name, rows in vars(job.held_out).items()}
            curve.append({"step": step, "losses": np.mean(losses, axis=0).tolist(), **scores})
            losses = []
    alive = [int(p.count_nonzero()) for n, p in model.named_parameters() if "lora_E" in n]
    return {"curve": curve, "final_rank": sum(alive)}


for line in sys.stdin:
    job = json.loads(line, object_hook=lambda fields: SimpleNamespace(**fields))
    print(json.dumps(run(job, job.recipe)))
