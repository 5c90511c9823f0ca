"""A module in place of lm-eval's: it asks a model one thing and answers in lm-eval's form."""

from __future__ import annotations

import hashlib
import sys
from types import ModuleType, SimpleNamespace

import jinja2
import torch

TOKENS = torch.tensor([[2, 14, 15, 16, 40, 41]])
KNOWN = ["colours", "shapes"]


def asked_of(model) -> float:
    """What the stand-in asks: a sum over the logits of fixed tokens, the same bits every time."""
    with torch.no_grad():
        logits = model(input_ids=TOKENS, attention_mask=torch.ones_like(TOKENS)).logits
    return float(logits.double().abs().sum())


class Harness:
    """Sees what it is asked, in order.

    Attributes:
        models: values of `asked_of`.
        wrapped: what each model was wrapped with.
        settings: what each question was asked with.
        fails_at: number of the question that raises.
    """

    def __init__(self):
        self.models, self.wrapped, self.settings = [], [], []
        self.fails_at = None
        self.unsafe = False

    def install(self, monkeypatch):
        """Put the stand-in where lm-eval would be imported from."""
        top, tasks, utils = ModuleType("lm_eval"), ModuleType("tasks"), ModuleType("utils")
        models, huggingface = ModuleType("models"), ModuleType("huggingface")
        top.simple_evaluate, top.utils = self.simple_evaluate, utils
        tasks.TaskManager, huggingface.HFLM = self.manager, self.wrap
        utils.hash_string = lambda text: hashlib.sha256(text.encode()).hexdigest()
        utils.env = jinja2.Environment(undefined=jinja2.StrictUndefined)
        utils.env.filters["shout"] = str.upper
        for name, module in {
            "lm_eval": top,
            "lm_eval.tasks": tasks,
            "lm_eval.utils": utils,
            "lm_eval.models": models,
            "lm_eval.models.huggingface": huggingface,
        }.items():
            monkeypatch.setitem(sys.modules, name, module)
        return self

    def manager(self, include_path=None):
        """The harness's list of tasks."""

        def load(names):
            if "shapes" in names:
                raise ConnectionError("no hub\x1b here")
            return {"tasks": {name: SimpleNamespace(UNSAFE_CODE=self.unsafe) for name in names}}

        return SimpleNamespace(all_tasks=KNOWN, load=load, include_path=include_path)

    def wrap(self, pretrained, **how):
        """A model as the harness holds it."""
        assert not pretrained.training
        self.wrapped.append(how)
        return pretrained

    def simple_evaluate(self, model, tasks, task_manager, **settings):
        """One figure a task."""
        if len(self.models) == self.fails_at:
            self.fails_at = None
            raise RuntimeError("out of luck")
        self.models.append(asked_of(model))
        self.settings.append(settings)
        sample = {"doc_hash": "a", "prompt_hash": "b", "target_hash": "c"}
        return {
            "results": {
                name: {
                    "name": name,
                    "alias": name,
                    "sample_len": 2,
                    "acc,none": self.models[-1],
                    "acc_stderr,none": "N/A",
                }
                for name in tasks
            },
            "n-samples": {name: {"original": 4, "effective": 2} for name in tasks},
            "n-shot": dict.fromkeys(tasks, 0),
            "versions": dict.fromkeys(tasks, 1.0),
            "higher_is_better": {name: {"acc": True} for name in tasks},
            "samples": {name: [sample, sample] for name in tasks},
        }
