"""Plant regressions in a copy of the code, run a suite with it, and see what the gate says.

    python tests/inject.py [--only NAME ...]
    python tests/inject.py --slowdown 12

Every injection is an edit that could slip through a review. The smoke suite runs once unharmed to
make a baseline and once more to be held against it, then once with each injection, on the model and
the data that a user's first run takes. `test_gate.py` has the same faults as made-up rows.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Injection:
    """An edit, and what the gate must say about it.

    Attributes:
        edits: (file, text in it, text in its place).
        code: exit code of the gate.
        check: a finding that must be there.
    """

    edits: tuple[tuple[str, str, str], ...]
    code: int
    check: str


LAB = "bench/peftmark/lab/"
STEP = LAB + "step.py"
INJECTIONS = {
    "learning rate halved": Injection(
        ((STEP, "rate = recipe.learning_rate * scale",
          "rate = 0.5 * recipe.learning_rate * scale"),),
        3, "count.learning_rate_mean",
    ),
    "AdaLoRA's update call removed": Injection(
        ((LAB + "methods/adalora.py", "self._tuner.update_and_allocate(step)", "pass"),),
        3, "run.invalid",
    ),
    "nf4 replaced by fp4": Injection(
        ((LAB + "models.py", "bnb_4bit_quant_type=job.quantization",
          'bnb_4bit_quant_type="fp4"'),),
        3, "count.base_format",
    ),
    "pooler frozen": Injection(
        ((LAB + "models.py", "if parts.pooler and train_pooler else []", "if False else []"),),
        3, "count.trainable_parameters",
    ),
    "data order of one seed": Injection(
        ((LAB + "data/job_data.py", 'generator(job.seed, "order")', 'generator(0, "order")'),
         (LAB + "data/job_data.py", 'generator(job.seed, "windows")', 'generator(0, "windows")')),
        3, "seeds.same-order",
    ),
    "a method missing": Injection(
        (("suites/smoke.yaml", "  - method: head\n    recipe: {learning_rate: 5e-3}\n", ""),),
        6, "run.missing",
    ),
    "twice the memory": Injection(
        ((STEP, "        self._rates.append",
          "        weights = self._prepared.model.parameters()\n"
          "        self._kept = [torch.ones(2, p.numel()) for p in weights]\n"
          "        self._rates.append"),),
        3, "count.live_bytes",
    ),
    "the optimizer's random numbers": Injection(
        ((STEP, "        norm = nn.utils.clip_grad_norm_",
          "        import os\n"
          "        noise = int.from_bytes(os.urandom(2), 'big') * 1e-9\n"
          "        for p in self._params:\n"
          "            p.grad.add_(noise)\n"
          "        norm = nn.utils.clip_grad_norm_"),),
        7, "bits.repeat",
    ),
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=sorted(INJECTIONS))
    parser.add_argument("--slowdown", type=int, metavar="ROUNDS", help="a slowdown, in turns")
    options = parser.parse_args()
    if options.slowdown:
        return slowdown(options.slowdown)
    with tempfile.TemporaryDirectory(prefix="peftmark-inject-") as scratch:
        folder = Path(scratch)
        healthy = _copy(folder / "healthy")
        _run(healthy, "run", "smoke", "--profile", "offline", "--results", "first", "--no-report")
        _run(
            healthy,
            "baseline",
            "accept",
            "--from",
            "first/smoke",
            "--reason",
            "a healthy run",
            "--baselines",
            "baselines",
        )
        against = healthy / "baselines" / "smoke" / "cpu.jsonl"
        wrong = 0
        _run(healthy, "run", "smoke", "--profile", "offline", "--results", "again", "--no-report")
        wrong += _told("A/A", healthy, "again", against, 0, "")
        for name in options.only or INJECTIONS:
            wrong += _injected(name, folder, against)
        wrong += _corrupted(healthy, against)
        wrong += _absent(healthy, against)
        return int(wrong > 0)


def _copy(folder: Path) -> Path:
    folder.mkdir()
    for name in ("bench", "suites"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command with the code of a folder, in that folder."""
    env = os.environ | {"PYTHONPATH": str(folder / "bench"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "peftmark", *words],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def _injected(name: str, folder: Path, against: Path) -> int:
    injection = INJECTIONS[name]
    sick = _copy(folder / name.replace(" ", "-").replace("'", ""))
    for file, old, new in injection.edits:
        path = sick / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{file} has not the text of {name!r} once"
        path.write_text(text.replace(old, new), encoding="utf-8")
    start = time.monotonic()
    done = _run(sick, "run", "smoke", "--profile", "offline", "--results", "new", "--no-report")
    seconds = time.monotonic() - start
    print(f"{name}: the run ended with {done.returncode} after {seconds:.0f} s")
    return _told(name, sick, "new", against, injection.code, injection.check)


def _told(name: str, folder: Path, results: str, against: Path, code: int, check: str) -> int:
    """Run the gate and print what it says; 1 if that is not what it must say."""
    done = _run(folder, "gate", "smoke", "--against", str(against), "--results", results)
    print(done.stdout + done.stderr)
    checks = []
    written = folder / "reports" / "smoke" / "gate" / "gate.json"
    if written.is_file():
        checks = [f["check"] for f in json.loads(written.read_text())["findings"]]
    right = done.returncode == code and (not check or check in checks)
    return _verdict(name, done.returncode, f"{code} {check}", right)


def _verdict(name: str, code: int, wanted: str, right: bool) -> int:
    judged = "as it must" if right else "WRONG"
    print(f"==> {name}: exit {code}, wanted {wanted}: {judged}\n", flush=True)
    return int(not right)


def _corrupted(folder: Path, against: Path) -> int:
    """A digit of the baseline changed by hand."""
    text = against.read_text(encoding="utf-8")
    damaged = folder / "damaged.jsonl"
    at = text.rindex('"value": 0.') + len('"value": 0.')
    damaged.write_text(f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}", encoding="utf-8")
    done = _run(folder, "gate", "smoke", "--against", str(damaged), "--results", "again")
    print(done.stdout + done.stderr)
    return _verdict("a corrupted baseline", done.returncode, "8", done.returncode == 8)


def _absent(folder: Path, against: Path) -> int:
    """No baseline at all."""
    nothing = str(against.with_name("gpu.jsonl"))
    done = _run(folder, "gate", "smoke", "--against", nothing, "--results", "again")
    print(done.stdout + done.stderr)
    return _verdict("no baseline", done.returncode, "5", done.returncode == 5)


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
     "        import time\n        started = time.perf_counter()\n"
     "        stage = self._prepared.stage\n"),
    (STEP, "        self._optimizer.zero_grad(set_to_none=True)\n",
     "        self._optimizer.zero_grad(set_to_none=True)\n"
     "        time.sleep(0.3 * (time.perf_counter() - started))\n"),
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
                done = _run(folder, "run", "pace", "--jobs", "1", "--no-report", *again)
                assert done.returncode == 0, done.stdout + done.stderr
            print(f"round {number + 1} of {rounds}", flush=True)
        wrong = 0
        for name, code in (("twin", 0), ("slow", 3)):
            healthy = str(folders["healthy"] / "results")
            done = _run(
                folders[name], "gate", "pace", "--against", healthy, "--policy", "policy.yaml"
            )
            print(done.stdout + done.stderr)
            right = done.returncode == code
            wrong += _verdict(f"times of the {name}", done.returncode, str(code), right)
        return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
