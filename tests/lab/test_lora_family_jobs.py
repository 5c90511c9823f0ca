"""Whole jobs of the newer methods of LoRA's family: what their rows say."""

from __future__ import annotations

import pytest

import tiny

KEYS = (
    "mica",
    "milora",
    "init-b",
    "init-ab",
    "lora-fa",
    "riemannian-lora",
    "velora",
    "loft",
    "lily",
    "hira",
)
OFTEN = ("lora-fa", "velora", "loft")
"""One whose A is frozen, one with a backward pass of its own, one with an optimizer of its own."""


@pytest.mark.parametrize(
    "key", [k if k in OFTEN else pytest.param(k, marks=pytest.mark.slow) for k in KEYS]
)
@pytest.mark.sweep(1)
def test_a_job_is_reloaded_merged_and_predicted_and_is_not_loras(outcome, key):
    # The tiny model is 64 wide, and a group an input would be LoRA.
    options = {"groups": 4} if key == "velora" else None
    done = outcome(tiny.job(key, precision="fp32", options=options))
    assert done.status == "ok", done
    assert done.reload_max_error < 1e-5
    if key == "lily":
        assert done.merge_max_error is None and "Lily" in done.null_reasons["merge_max_error"]
    else:
        assert done.merge_max_error < 1e-5
    assert done.predicted_live_bytes == pytest.approx(done.live_bytes, rel=1e-3)
    assert done.optimizer == ("LoftAdamW" if key == "loft" else "torch AdamW")
    plain = outcome(tiny.job("lora", precision="fp32"))
    assert [p.loss for p in done.curve] != [p.loss for p in plain.curve]
