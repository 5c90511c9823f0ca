"""Plant faults in a copy of the code, run a suite with it, and see what the gate says.

    python tests/inject.py [--only NAME ...] [--at-once 2]
    python tests/inject.py --slowdown 12

`tests/mutants.py` lists the faults. The smoke suite runs unharmed for a baseline, once more to be
held against it, and with each fault, in the cells that may show it, under the policy of this
repository's CI. Every run is held against two baselines: one made on this machine, and one made by
the kernels of an older processor under another name, as a machine of another kind would make it.
`tests/unit/gate` has the same faults as made-up rows.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mutants import MUTANTS, STEP

ROOT = Path(__file__).resolve().parent.parent
POLICY = ROOT / "results" / "baselines" / "policy.yaml"
ELSEWHERE = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16", "ATEN_CPU_CAPABILITY": "avx512"}
"""Kernels of an older processor that still has bf16: without it a step takes minutes."""
WANTED = 0.95
"""Share of the faults that the gate must find on the machine of the baseline."""


@dataclass(frozen=True)
class Said:
    """What a gate said of a run.

    Attributes:
        code: its exit code.
        first: its first finding but that numbers changed, or that one; empty for none.
    """

    code: int
    first: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=sorted(MUTANTS))
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="runs at a time")
    parser.add_argument("--slowdown", type=int, metavar="ROUNDS", help="a slowdown, in turns")
    options = parser.parse_args()
    if options.slowdown:
        return slowdown(options.slowdown)
    with tempfile.TemporaryDirectory(prefix="peftmark-inject-") as scratch:
        folder = Path(scratch)
        healthy = _copy(folder / "healthy")
        with ThreadPoolExecutor(options.at_once) as pool:
            list(pool.map(lambda made: made(), (
                lambda: _jobs(healthy, "first"),
                lambda: _jobs(healthy, "elsewhere", "--cpu", "another kind", more=ELSEWHERE),
                lambda: _jobs(healthy, "again"),
            )))  # fmt: skip
            here, there = (_accepted(healthy, name) for name in ("first", "elsewhere"))
            wrong = sum(_healthy(healthy, baseline) for baseline in (here, there))
            wrong += _corrupted(healthy, here) + _absent(healthy, here)

            def planted(name: str) -> tuple[str, Said, Said]:
                sick = _sick(name, folder)
                rest = str(healthy / "again")
                _jobs(sick, "new", "--rest", rest, "--cells", *MUTANTS[name].cells)
                found = name, _said(sick, "new", here), _said(sick, "new", there)
                shutil.rmtree(sick)
                print(f"{name}: {found[1].code} here, {found[2].code} elsewhere", flush=True)
                return found

            found = list(pool.map(planted, options.only or MUTANTS))
    return int(wrong > 0 or not _told(found))


def _told(found: list[tuple[str, Said, Said]]) -> bool:
    """Print the table of what was found; whether that is enough."""
    print("\n| planted | in | same kind of machine | another kind |\n|---|---|---|---|")
    for name, here, there in sorted(found, key=lambda one: not MUTANTS[one[0]].named):
        words = (f"{s.code}: {s.first}" if s.code else "**passed**" for s in (here, there))
        print(f"| {name} | {MUTANTS[name].site} | {' | '.join(words)} |")
    shares = []
    for where, at in (("the same kind of machine", 1), ("another kind", 2)):
        missed = [one[0] for one in found if not one[at].code]
        shares.append(1 - len(missed) / len(found))
        left = f"; survivors: {', '.join(missed)}" if missed else ""
        print(f"\nFound on {where}: {len(found) - len(missed)} of {len(found)}{left}")
    return shares[0] >= WANTED


def _copy(folder: Path) -> Path:
    folder.mkdir()
    for name in ("bench", "suites"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def _sick(name: str, folder: Path) -> Path:
    """A copy of the code with a fault in it."""
    sick = _copy(folder / "".join(c if c.isalnum() else "-" for c in name))
    for file, old, new in MUTANTS[name].edits:
        path = sick / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{file} has not the text of {name!r} once"
        path.write_text(text.replace(old, new), encoding="utf-8")
    return sick


def _run(
    folder: Path, *words: str, more: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A Python command with the code of a folder, in that folder."""
    own = {"PYTHONPATH": str(folder / "bench"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | own | {"OMP_NUM_THREADS": "1"} | (more or {}),
        capture_output=True,
        text=True,
        check=False,
    )


def _peftmark(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return _run(folder, "-m", "peftmark", *words)


def _jobs(folder: Path, results: str, *words: str, more: dict[str, str] | None = None) -> None:
    """Run the suite's jobs."""
    script = str(ROOT / "tests" / "support" / "one_process.py")
    done = _run(folder, script, "smoke", "offline", results, *words, more=more)
    if done.returncode:
        print(done.stderr[-2000:])


def _accepted(folder: Path, results: str) -> Path:
    """The baseline of a results folder."""
    words = ("--from", f"{results}/smoke", "--reason", "healthy", "--baselines", f"of-{results}")
    done = _peftmark(folder, "baseline", "accept", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / f"of-{results}" / "smoke" / "cpu.jsonl"


def _said(folder: Path, results: str, against: Path) -> Said:
    """What the gate says of results."""
    words = ("--against", str(against), "--results", results, "--policy", str(POLICY))
    done = _peftmark(folder, "gate", "smoke", *words)
    written = folder / "reports" / "smoke" / "gate" / "gate.json"
    if not written.is_file():
        return Said(done.returncode, (done.stdout + done.stderr).strip()[-300:])
    found = [f for f in json.loads(written.read_text())["findings"] if f["kind"] != "note"]
    written.unlink()
    # That numbers changed says least: what changed is told before it.
    found.sort(key=lambda f: f["kind"] == "numbers changed")
    first = f"{found[0]['cell'] or 'all cells'}: {found[0]['sentence']}" if found else ""
    return Said(done.returncode, first.replace("|", "/")[:160])


def _healthy(folder: Path, against: Path) -> int:
    """The same code twice must pass."""
    said = _said(folder, "again", against)
    return _verdict("nothing planted", said.code, f"0 {said.first}", said.code == 0)


def _verdict(name: str, code: int, wanted: str, right: bool) -> int:
    judged = "as it must" if right else "WRONG"
    print(f"==> {name}: exit {code}, wanted {wanted}: {judged}", flush=True)
    return int(not right)


def _corrupted(folder: Path, against: Path) -> int:
    """A digit of the baseline changed by hand."""
    text = against.read_text(encoding="utf-8")
    damaged = folder / "damaged.jsonl"
    at = text.rindex('"value": 0.') + len('"value": 0.')
    damaged.write_text(f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}", encoding="utf-8")
    said = _said(folder, "again", damaged)
    return _verdict("a corrupted baseline", said.code, "8", said.code == 8)


def _absent(folder: Path, against: Path) -> int:
    """No baseline at all."""
    nothing = str(against.with_name("gpu.jsonl"))
    said = _said(folder, "again", Path(nothing))
    return _verdict("no baseline", said.code, "5", said.code == 5)


PACE = """\
suite: pace
version: 1
summary: One short job, to be run many times in turns.
reference: {method: lora, rank: 8}
radar: {quality: {worst: 0, best: 1}}
recipe:
  {precision: bf16, batch_size: 16, steps: 40, eval_every: 40, eval_rows: 100, max_length: 64}
methods:
  - {method: lora, rank: [8], recipe: {learning_rate: 2e-3, targets: all-linear, alpha: 16}}
profiles:
  offline:
    summary: MiniLM-L6 on TREC.
    needs: nothing
    scale: reduced
    sources: [package]
    model: minilm-l6
    seeds: [0]
    tasks: {trec: {}}
"""
EXCLUSIVE = "timings: binding\nrunner: exclusive\nfew_seeds_limit: 0.5\n"
SLOW = (
    (STEP, "        stage = self._prepared.stage\n",
     "        import time\n        self.begun = time.perf_counter()\n"
     "        stage = self._prepared.stage\n"),
    (STEP, "        self.optimizer.zero_grad(set_to_none=True)\n",
     "        self.optimizer.zero_grad(set_to_none=True)\n"
     "        import time\n        time.sleep(0.3 * (time.perf_counter() - self.begun))\n"),
)  # fmt: skip


def slowdown(rounds: int) -> int:
    """Steps made 30 % slower, and steps left alone, each against healthy ones, all in turns."""
    with tempfile.TemporaryDirectory(prefix="peftmark-pace-") as scratch:
        folders = {name: _copy(Path(scratch) / name) for name in ("healthy", "twin", "slow")}
        for file, old, new in SLOW:
            path = folders["slow"] / file
            text = path.read_text(encoding="utf-8")
            assert text.count(old) == 1, f"{file} has not the text to slow down once"
            path.write_text(text.replace(old, new), encoding="utf-8")
        for folder in folders.values():
            (folder / "suites" / "pace.yaml").write_text(PACE, encoding="utf-8")
            (folder / "policy.yaml").write_text(EXCLUSIVE, encoding="utf-8")
        for number in range(rounds):
            order = list(folders.values())
            for folder in order if number % 2 == 0 else order[::-1]:
                again = ["--again"] if number else []
                done = _peftmark(folder, "run", "pace", "--jobs", "1", "--no-report", *again)
                assert done.returncode == 0, done.stdout + done.stderr
            print(f"round {number + 1} of {rounds}", flush=True)
        wrong = 0
        for name, code in (("twin", 0), ("slow", 3)):
            healthy = str(folders["healthy"] / "results")
            done = _peftmark(
                folders[name], "gate", "pace", "--against", healthy, "--policy", "policy.yaml"
            )
            print(done.stdout + done.stderr)
            right = done.returncode == code
            wrong += _verdict(f"times of the {name}", done.returncode, str(code), right)
        return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
