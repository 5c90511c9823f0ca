"""The files of a model that are read: which they are, their hashes, and what they may not say.

Whatever else lies in a model's folder is never read: where there is more, loading is given a folder
of links to the files that count, and to no other.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftmark.core.errors import AssetError
from peftmark.core.files import refuse_special
from peftmark.core.hashes import known_sha256
from peftmark.core.shown import plain, quoted
from peftmark.sources.stored_form import QUANTISED, stored_form, unreadable

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "vocab.json",
)
"""Files that a tokenizer can be made of; a model has at least one."""
BESIDE = (
    "generation_config.json",
    *TOKENIZERS,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "bpe.codes",
    "chat_template.jinja",
)
"""What transformers reads besides configuration and weights, where it is there."""
REDIRECTS = (
    "transformers_weights",
    "auto_map",
    QUANTISED,
    "trust_remote_code",
    "fast_tokenizer_files",
)
"""Keys of a configuration by which other files, other code or another form of the weights would be
loaded than those whose hashes stand for the model."""
ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Located:
    """A folder that holds the files asked for.

    Attributes:
        path: the folder.
        source: where it came from, for people.
        unsealed: files of which no hash is known: only their source stands for them.
    """

    path: Path
    source: str
    unsealed: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """The source in words, with the files that only the source stands for."""
        if not self.unsealed:
            return self.source
        return f"{self.source} (no hash is known of {', '.join(self.unsealed)})"


def read_json(path: Path) -> dict[str, Any]:
    """A file of a model that holds a JSON object.

    Raises:
        AssetError: it can't be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = error.strerror or str(error)
    except (ValueError, RecursionError) as error:
        why = f"it is no JSON ({plain(str(error))[:100]})"
    else:
        if isinstance(found, dict):
            return found
        why = "it holds no JSON object"
    raise AssetError(f"{path}: {why}", "Put the file there as it was published or saved.")


def refuse_redirects(folder: Path) -> None:
    """Refuse a model whose configuration has other things loaded than the files that are hashed.

    Raises:
        AssetError: with the file and the key.
    """
    if (folder / ADAPTER).exists():
        raise AssetError(
            f"{folder / ADAPTER}: an adapter beside the weights would be loaded onto them",
            "Merge it into the weights and save those, or move the file away.",
        )
    for name in (CONFIG, "tokenizer_config.json", "generation_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        for key, value in _redirects(read_json(path)):
            if key == QUANTISED and name == CONFIG:
                stored_form({key: value}, path)  # raises where it can't be read
                continue
            if key.endswith(QUANTISED):
                raise unreadable(path, f"{key}, which is for a part of the model")
            raise AssetError(
                f"{path}: the key {key} has other files or code loaded than those whose hashes "
                "stand for the model",
                f"Load the model with what {key} asks for, save it without, and use that folder.",
            )


def _redirects(config: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if key in REDIRECTS and value:
            yield f"{before}{key}", value
        if isinstance(value, dict):
            yield from _redirects(value, f"{before}{plain(key)[:40]}.")


def weight_files(folder: Path) -> list[str]:
    """Names of the files that hold the weights: one, or an index and every shard that it names.

    Raises:
        AssetError: there are none as safetensors, a shard is missing, or a name leads elsewhere.
    """
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    index = folder / INDEX
    if not index.is_file():
        pickles = sorted(
            p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".h5")
        )
        there = f"; {', '.join(map(plain, pickles[:3]))} is not read" if pickles else ""
        raise AssetError(
            f"{folder} holds no {WEIGHTS} and no {INDEX}{there}",
            "Weights are read as safetensors alone, since a pickle can run code: load the model "
            "where you trust it and save it with save_pretrained, which writes safetensors.",
        )
    mapped = read_json(index).get("weight_map")
    if not isinstance(mapped, dict) or not mapped:
        raise AssetError(f"{index}: it has no weight_map", "Save the model again.")
    shards = sorted({str(name) for name in mapped.values()})
    for name in shards:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise AssetError(
                f"{index}: it names the shard {quoted(name)}, which is no safetensors file of this "
                "folder",
                "Save the model again.",
            )
    if missing := lacking(folder, shards):
        raise AssetError(
            f"{folder} lacks {', '.join(missing[:5])}: {len(missing)} of the {len(shards)} shards "
            f"that {INDEX} names",
            "Copy or fetch the missing files too.",
        )
    return [INDEX, *shards]


def lacking(folder: Path, names: Sequence[str]) -> list[str]:
    """Those of the names that are no files of a folder.

    Raises:
        AssetError: one is a pipe, a socket or a device.
    """
    for name in names:
        refuse_special(folder / name)
    return [name for name in names if not (folder / name).is_file()]


def files_read(folder: Path) -> list[str]:
    """Names of all files of a model's folder that are read, sorted.

    Raises:
        AssetError: weights, configuration or tokenizer are missing.
    """
    lacking(folder, (CONFIG, WEIGHTS, INDEX, *BESIDE))  # refuses what is no file
    weights = weight_files(folder)
    there = [name for name in BESIDE if (folder / name).is_file()]
    if not (folder / CONFIG).is_file():
        raise AssetError(f"{folder} holds no {CONFIG}", "Give the folder that the model is in.")
    if not set(there) & set(TOKENIZERS):
        raise AssetError(
            f"{folder} holds no tokenizer ({', '.join(TOKENIZERS)})",
            "Save the model's tokenizer into the same folder with save_pretrained.",
        )
    return sorted([CONFIG, *weights, *there])


def file_hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """File -> SHA-256; what was hashed and is still the same file isn't read again.

    Raises:
        AssetError: a file can't be read.
    """
    return {name: known_sha256(folder / name) for name in sorted(names)}


def all_hashes(folder: Path, weights: bool = True) -> dict[str, str]:
    """File -> SHA-256 of all that loading a model from a folder could read, for keys of caches.

    Args:
        weights: whether the files of weights are among them.
    """
    ends = (".safetensors",) if weights else ()
    return file_hashes(
        folder,
        (
            path.name
            for path in folder.iterdir()
            if path.is_file()
            and path.suffix in (".json", ".txt", ".model", ".jinja", ".codes", *ends)
        ),
    )


def blob_fault(path: Path) -> tuple[str, str]:
    """The hash that a file of the hub's cache is named by, and the one that it has; equal where
    nothing is wrong, and empty for files elsewhere.

    The cache links to blobs named by what the server says of them: the SHA-256 of a large file,
    and of a small one what Git calls it.
    """
    real = path.resolve()
    name = real.name
    if real.parent.name != "blobs" or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", name):
        return "", ""
    if len(name) == 64:
        return name, known_sha256(real)
    content = real.read_bytes()
    git = b"blob %d\0" % len(content) + content
    # The second is what some stand-ins for the hub give.
    known = [hashlib.sha1(one, usedforsecurity=False).hexdigest() for one in (git, content)]
    return name, name if name in known else known[0]


def listing_sha256(hashes: Mapping[str, str]) -> str:
    """SHA-256 over names and hashes of files, sorted by name: the identity of all of them."""
    text = "".join(f"{name} {hashes[name]}\n" for name in sorted(hashes))
    return hashlib.sha256(text.encode()).hexdigest()


def only(folder: Path, names: Sequence[str], cache: Path) -> Path:
    """A folder with these files alone: the folder itself, or links in the cache where it has more.

    Raises:
        AssetError: the cache can't be written.
    """
    if {path.name for path in folder.iterdir()} <= set(names):
        return folder
    whole = folder.resolve()
    key = hashlib.sha256("\n".join([str(whole), *sorted(names)]).encode()).hexdigest()[:32]
    links = cache / "model-files" / key
    try:
        links.mkdir(parents=True, exist_ok=True)
        for name in names:
            _link(links / name, whole / name)
        for extra in {path.name for path in links.iterdir()} - set(names):
            if not extra.startswith("."):
                (links / extra).unlink(missing_ok=True)
    except OSError as error:
        raise AssetError(
            f"{folder} holds more than the model's files, and links to those alone can't be made "
            f"in {links}: {error.strerror or error}",
            "Name a folder that can be written with PEFTMARK_CACHE, or leave the model's files "
            f"alone in theirs: {', '.join(sorted(names))}.",
        ) from error
    return links


def _link(link: Path, target: Path) -> None:
    """A link to a file, put in place in one step; one that is there and right stays."""
    with suppress(OSError):
        if os.readlink(link) == str(target):
            return
    part = link.with_name(f".{link.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(link)
