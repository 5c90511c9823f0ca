"""A script: lm-eval asked as its own users ask it, in a process without peftmark.

Reads JSON on standard input: `include`, `tasks`, `limit`, and `models`, each with `pretrained`,
and with `peft` or the `code` of an export that loads it. Writes lm-eval's results of each.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from runpy import run_path


def main() -> None:
    asked = json.load(sys.stdin)
    with redirect_stdout(sys.stderr):
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager

        tasks = TaskManager(include_path=asked["include"], include_defaults=False)
        found = []
        for one in asked["models"]:
            told = simple_evaluate(
                **model_of(one), tasks=asked["tasks"], limit=asked["limit"], task_manager=tasks
            )
            found.append({name: told[name] for name in ("results", "n-samples", "versions")})
    print(json.dumps([found, [name for name in sys.modules if name.startswith("peftmark")]]))


def model_of(one):
    """A model as lm-eval takes it."""
    if "code" not in one:
        named = {name: one[name] for name in ("pretrained", "peft") if name in one}
        return {
            "model": "hf",
            "model_args": {**named, "dtype": "float32", "device": "cpu", "batch_size": 1},
        }
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    loaded = run_path(one["code"])["load"](one["pretrained"], None)
    tokenizer = AutoTokenizer.from_pretrained(one["pretrained"])
    return {"model": HFLM(pretrained=loaded, tokenizer=tokenizer, batch_size=1)}


if __name__ == "__main__":
    main()
