"""A model of one's own, from its folder or the hub to what the catalogue would say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftmark.catalog.architectures import DECODERS
from peftmark.catalog.models import Model
from peftmark.catalog.quantizations import QUANTIZATIONS
from peftmark.core.errors import AssetError
from peftmark.core.shown import plain
from peftmark.own.declared_model import OwnModel as Declared
from peftmark.own.model_hub import hub_config, hub_folder
from peftmark.own.packed_weights import parameters_in
from peftmark.own.places import find
from peftmark.own.weights import (
    Tensor,
    embedding_rows,
    refuse_no_numbers,
    tensors_of,
)
from peftmark.record.own_model import OwnModel, model_from
from peftmark.sources.model_folder import (
    CONFIG,
    file_hashes,
    files_read,
    listing_sha256,
    read_json,
    refuse_redirects,
)
from peftmark.sources.stored_form import StoredForm, stored_form

OF_CONFIG = ("num_labels", "id2label", "label2id", "problem_type")
"""Keys of a configuration that say which classes a checkpoint was trained for, not what it is."""


@dataclass(frozen=True)
class OwnFiles:
    """A model of one's own whose files were read.

    Attributes:
        model: as the catalogue would have it.
        folder: where its files are.
        hashes: file -> SHA-256 of all that are read.
        config: its configuration.
        source: where it came from, for people.
        notes: what a person should know of it, a sentence each.
    """

    model: Model
    folder: Path
    hashes: Mapping[str, str]
    config: Mapping[str, Any]
    source: str
    notes: tuple[str, ...] = ()


def read_own_model(key: str, declared: Declared, places: Sequence[Path]) -> OwnFiles:
    """Read what a model is from its configuration and the headers of its weights, and hash it all.

    Args:
        key: its name in the suite.
        places: folders that its path may be relative to, tried in order.

    Raises:
        AssetError: there is no such model, a file is missing or damaged, or it can't be loaded.
    """
    folder, source = _found(key, declared, places)
    try:
        return _read(key, declared, folder, source)
    except AssetError as error:
        raise AssetError(f"model {key}: {error.what}", error.remedy) from error


def _read(key: str, declared: Declared, folder: Path, source: str) -> OwnFiles:
    refuse_redirects(folder)
    names = files_read(folder)
    config = read_config(folder / CONFIG)
    tensors = tensors_of([folder / name for name in names if name.endswith(".safetensors")])
    form = stored_form(config, folder / CONFIG)
    parameters = parameters_in(tensors, form, folder / CONFIG)
    _check_vocabulary(folder, tensors)
    hashes = file_hashes(folder, names)
    carried = OwnModel(
        causal=_causal(declared, config),
        parameters=parameters,
        title=declared.title or key,
        stored_as=form.quantization if form else "",
        stored_double=form.double if form else False,
    )
    model = model_from(carried, key, listing_sha256(hashes))
    notes = []
    if declared.read_as is None:
        notes.append(f"read as {model.read_as}, by its {CONFIG} (read_as says otherwise)")
    if form is not None:
        title = QUANTIZATIONS[form.quantization].title
        kept = f", but for {plain(', '.join(form.whole[:4]))[:120]}" if form.whole else ""
        notes.append(f"its weights are {title} already{kept}; nothing is quantised again")
    return OwnFiles(model, folder, hashes, config, source, tuple(notes))


def check_values(found: OwnFiles) -> None:
    """Read every weight once, before anything is trained on it.

    Raises:
        AssetError: one is infinite or no number.
    """
    files = [found.folder / name for name in found.hashes if name.endswith(".safetensors")]
    try:
        refuse_no_numbers(tensors_of(files))
    except AssetError as error:
        raise AssetError(f"model {found.model.key}: {error.what}", error.remedy) from error


def read_config(path: Path) -> dict[str, Any]:
    """A configuration as an architecture is built from it, without a checkpoint's classes.

    Raises:
        AssetError: it can't be read, or doesn't say what sort of model it is.
    """
    config = read_json(path)
    if not isinstance(config.get("model_type"), str):
        raise AssetError(
            f"{path} names no model_type", "Save the model with save_pretrained, which writes it."
        )
    return {name: value for name, value in config.items() if name not in OF_CONFIG}


def told_of(key: str, declared: Declared, places: Sequence[Path]) -> tuple[bool, StoredForm | None]:
    """Whether a model is to be read as a causal language model, and how its weights are quantised
    already, by its configuration alone: no weights are looked at, nor fetched.

    Raises:
        AssetError: there is no such model, or its configuration can't be read, or be a base.
    """
    if declared.hub is not None:
        path = hub_config(declared.hub)
    else:
        path = _folder(key, declared, places) / CONFIG
    config = read_config(path)
    return _causal(declared, config), stored_form(config, path)


def _causal(declared: Declared, config: Mapping[str, Any]) -> bool:
    """What the declaration says it is read as, else what its configuration says."""
    if declared.read_as is not None:
        return declared.read_as == "language-model"
    return is_causal(config)


def is_causal(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is that of a causal language model, by its class, else its type."""
    named = config.get("architectures")
    for name in named if isinstance(named, list) else ():
        if str(name).endswith(("ForCausalLM", "LMHeadModel")):
            return True
        if "For" in str(name):
            return False
    return config["model_type"] in DECODERS


def _found(key: str, declared: Declared, places: Sequence[Path]) -> tuple[Path, str]:
    if declared.hub is not None:
        repository, _, revision = declared.hub.partition("@")
        return hub_folder(declared.hub), f"hub: {repository} at {revision[:12]}"
    path = _folder(key, declared, places)
    return path, f"own model: {plain(path.resolve().name)}"


def _folder(key: str, declared: Declared, places: Sequence[Path]) -> Path:
    assert declared.path is not None
    try:
        return find(declared.path, places, folder=True)
    except AssetError as error:
        raise AssetError(f"model {key}: {error.what}", error.remedy) from error


def _check_vocabulary(folder: Path, tensors: Sequence[Tensor]) -> None:
    """Refuse a tokenizer with tokens that the weights have no row for."""
    rows, path = embedding_rows(tensors), folder / "tokenizer.json"
    if rows is None or not path.is_file():
        return
    found = read_json(path)
    inner = found.get("model")
    vocabulary = inner.get("vocab") if isinstance(inner, dict) else None
    numbers = [len(vocabulary) - 1] if isinstance(vocabulary, list) and vocabulary else []
    if isinstance(vocabulary, dict):
        numbers = [n for n in vocabulary.values() if isinstance(n, int)]
    added = found.get("added_tokens")
    for token in added if isinstance(added, list) else ():
        if isinstance(token, dict) and isinstance(token.get("id"), int):
            numbers.append(token["id"])
    if numbers and max(numbers) >= rows:
        raise AssetError(
            f"{path} has tokens up to number {max(numbers):,}, and the weights have rows for "
            f"{rows:,} (0 to {rows - 1:,})",
            "Take the tokenizer that belongs to the weights, or resize the embedding "
            "(resize_token_embeddings) and save both.",
        )
