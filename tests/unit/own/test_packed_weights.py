"""Weights that bitsandbytes packed, by the headers of their files: counted, and refused if odd."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from peftmark.core.errors import AssetError
from peftmark.own.packed_weights import parameters_in
from peftmark.own.weights import tensors_of
from peftmark.sources.stored_form import StoredForm

LAYER = "encoder.layer.0.output.dense"
CONFIG = Path("mine/config.json")
STATE = {"quant_type": "nf4", "blocksize": 64, "shape": [8, 16], "dtype": "float32"}
NESTED = {"nested_blocksize": 256, "nested_offset": 0.1, "nested_dtype": "float32"}
WHOLE = {"embeddings.word_embeddings.weight": np.ones((12, 8), dtype=np.float32)}


def as_bytes(state):
    return np.frombuffer(json.dumps(state).encode(), dtype=np.uint8)


def four(state, kind="nf4"):
    """A weight of 8 x 16 as bitsandbytes stores it in 4 bits."""
    name = f"{LAYER}.weight"
    return {
        name: np.zeros((64, 1), dtype=np.uint8),
        f"{name}.absmax": np.ones(2, dtype=np.float32),
        f"{name}.quant_map": np.ones(16, dtype=np.float32),
        f"{name}.quant_state.bitsandbytes__{kind}": as_bytes(state),
        f"{LAYER}.bias": np.zeros(8, dtype=np.float32),
    }


def counted(tmp_path, weights, form):
    file = tmp_path / "model.safetensors"
    save_file(WHOLE | weights, file)
    return parameters_in(tensors_of([file]), form, CONFIG)


def test_packed_weights_count_as_what_they_stand_for_and_constants_for_nothing(tmp_path):
    assert counted(tmp_path, four(STATE), StoredForm("nf4")) == 12 * 8 + 8 * 16 + 8
    assert counted(tmp_path, four(STATE | NESTED), StoredForm("nf4", True)) == 12 * 8 + 8 * 16 + 8
    eight = {
        f"{LAYER}.weight": np.zeros((8, 16), dtype=np.int8),
        f"{LAYER}.SCB": np.ones(8, dtype=np.float32),
        f"{LAYER}.weight_format": np.zeros((), dtype=np.uint8),
    }
    assert counted(tmp_path, eight, StoredForm("int8")) == 12 * 8 + 8 * 16


@pytest.mark.parametrize(
    ("state", "form", "told"),
    [
        (STATE | {"blocksize": 128}, StoredForm("nf4"), "blocks of 128.*in blocks of 64"),
        (STATE | NESTED, StoredForm("nf4"), "block constants are quantised.*says otherwise"),
        (STATE, StoredForm("nf4", True), "block constants are not quantised.*says otherwise"),
        (STATE, StoredForm("fp4"), "configuration says otherwise"),
        (STATE | {"quant_type": "fp4"}, StoredForm("nf4"), "configuration says otherwise"),
        (STATE | {"shape": None}, StoredForm("nf4"), "no shape"),
        (STATE | {"shape": [8, -16]}, StoredForm("nf4"), "no shape"),
        ([1], StoredForm("nf4"), "no shape"),
    ],
)
def test_what_is_packed_otherwise_than_said_is_refused(tmp_path, state, form, told):
    with pytest.raises(AssetError, match=told):
        counted(tmp_path, four(state), form)


def test_a_description_that_is_no_json_is_refused(tmp_path):
    broken = four(STATE)
    broken[f"{LAYER}.weight.quant_state.bitsandbytes__nf4"] = np.frombuffer(b"{[", dtype=np.uint8)
    with pytest.raises(AssetError, match="no shape"):
        counted(tmp_path, broken, StoredForm("nf4"))


def test_a_configuration_alone_makes_no_weights_quantised(tmp_path):
    with pytest.raises(AssetError, match=r"no weight beside it is packed so"):
        counted(tmp_path, {}, StoredForm("nf4"))


@pytest.mark.parametrize("form", [None, StoredForm("nf4")])
def test_packed_numbers_without_constants_are_no_weights(tmp_path, form):
    bare = {"encoder.layer.1.output.dense.weight": np.zeros((64, 1), dtype=np.uint8)}
    with pytest.raises(AssetError, match=r"layer\.1.*numbers of type U8"):
        counted(tmp_path, (four(STATE) if form else {}) | bare, form)
