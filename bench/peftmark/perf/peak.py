"""The rate of a large matrix product on this machine, per core: all cores busy, and one alone.

    python -m peftmark.perf.peak '{"cores": 2, "readings": 5}'

The last line printed is JSON: precision -> {"busy": [...], "alone": [...]}, in operations a second.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from typing import Any

PRECISIONS = ("bf16", "fp32")


def _rates(start: Any, answers: Any, precision: str, readings: int) -> None:
    """One process: read the rate a few times on one thread, each time when the others do."""
    import torch

    from peftmark.lab.measure.meters import gemm_peak

    torch.set_num_threads(1)
    gemm_peak(torch.device("cpu"), precision)
    found = []
    for _ in range(readings):
        start.wait()
        found.append(gemm_peak(torch.device("cpu"), precision))
    answers.put(found)


def rates(cores: int, precision: str, readings: int) -> list[float]:
    """Readings of `cores` processes at once, one thread each; the rate of each core."""
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(cores), context.Queue()
    processes = [
        context.Process(target=_rates, args=(start, answers, precision, readings), daemon=True)
        for _ in range(cores)
    ]
    for process in processes:
        process.start()
    found = [rate for _ in processes for rate in answers.get(timeout=120)]
    for process in processes:
        process.join()
    return found


def main(text: str) -> str:
    """Read all rates that the JSON asks for."""
    ask = json.loads(text)
    return json.dumps(
        {
            precision: {
                "busy": rates(ask["cores"], precision, ask["readings"]),
                "alone": rates(1, precision, ask["readings"]),
            }
            for precision in PRECISIONS
        }
    )


if __name__ == "__main__":
    print(main(sys.argv[1]))
