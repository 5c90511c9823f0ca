"""What fails a gate and by how much: the keys of a policy file, and their defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from peftmark.core.errors import UserError
from peftmark.core.strict import Strict
from peftmark.core.strict_yaml import read_yaml
from peftmark.gate.run_lines import AS_TEXT, COUNTS
from peftmark.suite.faults import fault_lines
from peftmark.suite.names import known

Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Binding = Literal["binding", "advisory"]


class Policy(Strict):
    """What fails a gate.

    Attributes:
        alpha: chance at most that a change which alters nothing fails through a statistical test
            of quality or of learning, over all cells and tasks. Times that bind have their own.
        margin: a mean drop over all tasks within this, in units of the metric or of the share that
            is averaged, fails nothing; of a metric of one's own every drop that is shown fails.
        task_margin: the same for one task.
        quality: `no-drop` fails on a drop that is shown; `non-inferior` passes only if a drop as
            large as the margin is ruled out, and is undecided otherwise; `advisory` fails nothing.
        few_seeds_limit: with fewer than three pairs nothing can be tested; a drop larger than
            this then fails, a smaller one passes. null: undecided.
        counts: whether changed counts fail.
        ignored_counts: counts that may change.
        steps_to_target: whether slower learning fails.
        memory: whether a higher peak fails, beside live bytes, which are a count.
        memory_growth: growth of torch's peaks that fails (at least 2 MiB); the system's view of a
            process (VmHWM) is noisier and has twice that, and 64 MiB.
        timings: binding needs `runner: exclusive` and interleaved runs on both sides.
        runner: whether anything else runs on the machine.
        slowdown: a step may take this share longer.
    """

    version: Literal[1] = 1
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    margin: Share = 0.0025
    task_margin: Share = 0.01
    quality: Literal["no-drop", "non-inferior", "advisory"] = "no-drop"
    few_seeds_limit: Share | None = None
    counts: Binding = "binding"
    ignored_counts: list[Annotated[str, known("count", (*COUNTS, *AS_TEXT))]] = Field(
        default_factory=list
    )
    steps_to_target: Binding = "binding"
    memory: Binding = "binding"
    memory_growth: Share = 0.05
    timings: Binding = "advisory"
    runner: Literal["shared", "exclusive"] = "shared"
    slowdown: Annotated[float, Field(gt=0, lt=10)] = 0.10


def read_policy(path: Path | None) -> Policy:
    """The policy of a file, or the defaults.

    Raises:
        UserError: with every fault of the file, one a line.
    """
    if path is None:
        return Policy()
    raw = read_yaml(path)
    faults: list[str] = []
    policy = Policy()
    try:
        policy = Policy.model_validate({} if raw is None else raw)
    except ValidationError as error:
        faults = list(fault_lines(error))
    if not faults and policy.timings == "binding" and policy.runner != "exclusive":
        faults = ["timings: binding needs runner: exclusive; on a shared machine times say little"]
    if faults:
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise UserError(f"{path}:\n{lines}", "docs/gate.md lists the keys of a policy.")
    return policy
