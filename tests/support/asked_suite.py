"""A small suite that puts methods to tasks."""

from __future__ import annotations

import json
from typing import Any

from small_suite import QUICK, changed

SMOL = "smollm2-135m-q4"

LORA: dict[str, Any] = {
    "method": "lora",
    "rank": [8],
    "recipe": {"targets": "all-linear", "alpha": 16},
}


ENCODER = {"method": "lora", "rank": [4], "model": "minilm-l6", "recipe": LORA["recipe"]}


def asked(methods: list[dict[str, Any]] | None = None, **profile: Any) -> dict[str, Any]:
    """A suite whose profile asks a causal language model; None leaves a key out."""
    keys = {"model": SMOL, "unrelated": "editorials", "methods": methods or [LORA], **profile}
    given = [((*QUICK, key), value) for key, value in keys.items() if value is not None]
    suite = changed(*given)
    suite["methods"] = [LORA]
    whole: dict[str, Any] = json.loads(json.dumps(suite))  # else YAML writes aliases
    return whole
