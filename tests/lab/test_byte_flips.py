"""A bit that flips in a file that decides a number: refused, made again, or of no consequence."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

import tiny
from peftmark.catalog.models import MODELS
from peftmark.catalog.tasks import TASKS
from peftmark.core.errors import UserError
from peftmark.core.hashes import forget_hashes, sha256_file
from peftmark.lab.data.token_cache import token_table
from peftmark.lab.models import anatomy
from peftmark.lab.quantized_cache import load_base
from peftmark.memory import forecast
from peftmark.sources.assets import Places, model_files
from peftmark.sources.manifest import MANIFEST, AssetEntry, FileEntry, Manifest, check_mirror
from peftmark.sources.own_cache import keep_own
from peftmark.sources.task_data import load_task

TASK = "tiny-class"


@pytest.fixture
def filled(tmp_path, monkeypatch):
    """A mirror as `peftmark fetch` leaves one, with a tiny model, and a cache that a job filled."""
    mirror = tmp_path / "mirror"
    tiny.install(mirror, monkeypatch)
    monkeypatch.setattr(forecast, "made_by", lambda: "")
    shutil.rmtree(mirror / "tiny-score")
    files = {
        str(path.relative_to(mirror)): FileEntry(
            bytes=path.stat().st_size, sha256=sha256_file(path)
        )
        for path in sorted(mirror.rglob("*"))
        if path.is_file()
    }
    of = {kind: [n for n in files if n.startswith(kind)] for kind in ("models", "tiny-class")}
    manifest = Manifest(
        files=files,
        models={"tiny": AssetEntry(identity="", pinned="", source="", files=of["models"])},
        tasks={TASK: AssetEntry(identity="", pinned="", source="", files=of["tiny-class"])},
    )
    (mirror / MANIFEST).write_text(manifest.model_dump_json())
    numbers(tmp_path)
    return tmp_path


def numbers(here: Path) -> str:
    """What a job of the tiny model is made of, from a run's checks on, as one digest."""
    forget_hashes()
    mirror, cache = here / "mirror", here / "cache"
    places = Places(mirror, ("mirror",), cache)
    check_mirror(mirror, ["tiny"], [TASK])
    folder = model_files(MODELS["tiny"], places).path
    data = load_task(TASKS[TASK], places)
    own = keep_own(data, cache)
    job = tiny.job(quantization="nf4")
    encode = tiny.load_tokenizer(folder)
    table = token_table(
        data, folder, 16, lambda rows: [dict(encode(row.text)) for row in rows], cache
    )
    base = load_base(folder, job, TASKS[TASK], anatomy(folder, TASKS[TASK]), cache).model
    kept = forecast._kept(cache, "asked")
    if kept is None:
        kept = forecast.Forecast(allocated=123456, live={"weights": 1000})
        forecast._keep(cache, "asked", kept)
    digest = hashlib.sha256(own.read_bytes())
    told = [data.fingerprint, table.encode(data.train), table.encode(data.eval), kept.allocated]
    told += [kept.live, base.config.to_diff_dict()]
    digest.update(json.dumps(told, sort_keys=True, default=str).encode())
    for name, value in sorted(base.state_dict().items()):
        if not name.startswith("classifier"):  # the job's seed draws it
            digest.update(name.encode() + value.float().numpy().tobytes())
    return digest.hexdigest()


def flip(path: Path, chance: random.Random) -> None:
    raw = bytearray(path.read_bytes())
    raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    path.write_bytes(raw)


def cut(path: Path, chance: random.Random) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: chance.randrange(len(raw))])


def swap(path: Path, chance: random.Random) -> None:
    others = [p for p in path.parent.iterdir() if p.is_file() and p != path]
    if others:
        other = chance.choice(sorted(others))
        one, two = path.read_bytes(), other.read_bytes()
        path.write_bytes(two)
        other.write_bytes(one)


DAMAGES = {"flip": flip, "cut": cut, "swap": swap}


def damaged(filled: Path, tries: dict[str, int]) -> tuple[Counter[tuple[str, str, str]], list[str]]:
    """(folder, damage, outcome) -> how often, and what gave another number in silence."""
    whole, chance = filled.with_name("whole"), random.Random(25)
    shutil.copytree(filled, whole)
    usual = numbers(filled)
    names = [path.relative_to(whole) for path in sorted(whole.rglob("*"))]
    names = [n for n in names if (whole / n).is_file() and (whole / n).stat().st_size]
    found: Counter[tuple[str, str, str]] = Counter()
    wrong = []
    for name in names:
        for what, count in tries.items():
            for _ in range(count):
                shutil.rmtree(filled)
                shutil.copytree(whole, filled)
                DAMAGES[what](filled / name, chance)
                before = (filled / name).read_bytes()
                try:
                    same = numbers(filled) == usual
                    remade = before != (filled / name).read_bytes()
                    outcome = "made again" if remade else "the same numbers"
                except UserError:
                    same, outcome = True, "refused"
                found[name.parts[0], what, outcome] += 1
                if not same:
                    wrong.append(f"{name}: {what}")
    return found, wrong


def test_a_damaged_byte_of_any_file_never_gives_another_number(filled):
    found, wrong = damaged(filled, {"flip": 1})
    assert wrong == []
    outcomes = Counter()
    for (folder, _, outcome), count in found.items():
        outcomes[folder, outcome] += count
    assert outcomes["mirror", "refused"] >= 5
    assert outcomes["cache", "made again"] >= 5
    assert outcomes["cache", "refused"] == 0


@pytest.mark.slow
def test_no_damage_of_any_file_ever_gives_another_number(filled):
    found, wrong = damaged(filled, {"flip": 12, "cut": 4, "swap": 2})
    for (folder, what, outcome), count in sorted(found.items()):
        print(f"{folder} | {what} | {outcome} | {count}")
    assert wrong == []
