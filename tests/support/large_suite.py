"""A suite of as many jobs as one asks for, for what must hold of thousands."""

from __future__ import annotations

JOBS_A_SEED = 5 * 4
SUITE = """
suite: large
version: 1
summary: made up
reference: {{method: head}}
radar: {{}}
recipe: {{batch_size: 16, steps: 10, learning_rate: 1e-3}}
methods:
  - {{method: head}}
  - {{method: lora, rank: [2, 4, 8, 16], recipe: {{targets: attention, alpha: 8}}}}
profiles:
  quick:
    summary: s
    needs: nothing
    scale: reduced
    sources: [package]
    model: minilm-l6
    seeds: {seeds}
    tasks: {{trec: {{}}, sst-2: {{}}, cola: {{}}, rte: {{}}}}
"""


def text(seeds: int) -> str:
    """The suite with so many seeds: 20 jobs each, and the repeat."""
    return SUITE.format(seeds=list(range(seeds)))
