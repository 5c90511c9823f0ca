"""What a picture shows, as plain data; `peftmark.render.draw` draws it."""

from __future__ import annotations

from dataclasses import dataclass

from peftmark.analysis.pareto import Standing
from peftmark.analysis.stats import Estimate
from peftmark.render.layer_specs import LayerChange


@dataclass(frozen=True)
class Mark:
    """How a cell looks in every chart.

    Attributes:
        series: what decides colour and marker: a family of methods (one of `SERIES`), or other.
        variant: 0 for the first cell of a series, then 1, 2, ...: another dash and fill.
    """

    label: str
    series: str
    variant: int = 0


@dataclass(frozen=True)
class StripRow:
    """One cell in the summary strip; ratios are to the reference."""

    mark: Mark
    quality: Estimate | None
    memory: float | None
    speed: float | None
    parameters: float | None
    missing: str = ""


@dataclass(frozen=True)
class Strip:
    """Quality, memory, speed and parameters of every cell on shared axes.

    Attributes:
        axis: what the score is.
        narrow: whether its panels stand below one another, for a phone.
    """

    rows: tuple[StripRow, ...]
    reference: str
    axis: str
    narrow: bool = False


@dataclass(frozen=True)
class StackRow:
    """One cell in a stacked bar chart; `sizes` is empty where `missing` says why."""

    mark: Mark
    sizes: tuple[float, ...]
    missing: str = ""


@dataclass(frozen=True)
class Stack:
    """Bars made of parts that add up, the same parts in every row."""

    rows: tuple[StackRow, ...]
    parts: tuple[str, ...]
    axis: str


@dataclass(frozen=True)
class DotRow:
    """One cell in a dot plot: a dot a seed, mean and interval; `missing` says why there is none."""

    mark: Mark
    values: tuple[float, ...]
    estimate: Estimate | None
    missing: str = ""


@dataclass(frozen=True)
class Dots:
    """Scores of one task, with a line at the baseline predictor, or differences with one at 0.

    Attributes:
        line: what stands above the line.
        width: of the picture in pixels.
    """

    rows: tuple[DotRow, ...]
    axis: str
    baseline: float | None
    line: str = "baseline predictor"
    width: int = 500


@dataclass(frozen=True)
class TaskLane:
    """Scores of one task, an estimate a cell; None where a cell has none."""

    title: str
    axis: str
    estimates: tuple[Estimate | None, ...]
    baseline: float | None


@dataclass(frozen=True)
class Lanes:
    """Scores of several tasks side by side, a row a cell; below one another if narrow."""

    marks: tuple[Mark, ...]
    lanes: tuple[TaskLane, ...]
    narrow: bool = False


@dataclass(frozen=True)
class CurveLine:
    """Learning curves of one cell: one a seed, and their mean."""

    mark: Mark
    seeds: tuple[tuple[tuple[int, float], ...], ...]
    mean: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Curves:
    """Learning curves of one task.

    Attributes:
        span: lowest and highest score of the task's curves, the same in all its panels.
    """

    lines: tuple[CurveLine, ...]
    axis: str
    target: float | None
    span: tuple[float, float]


@dataclass(frozen=True)
class WaitLine:
    """Kaplan-Meier curve of one cell.

    Attributes:
        points: (step, share of runs not at the target after it), from (0, 1) on.
        end: the last step that any run was watched at.
    """

    mark: Mark
    points: tuple[tuple[float, float], ...]
    end: float


@dataclass(frozen=True)
class Waits:
    """Share of runs that have not reached the target of one task, by step.

    Attributes:
        end: the last step of training, the same in all panels of a task.
    """

    lines: tuple[WaitLine, ...]
    end: float


@dataclass(frozen=True)
class SweepLine:
    """Scores of one cell by the values of a setting; a value without a score breaks the line.

    Attributes:
        points: (value, score), in the order in which they are drawn.
        chosen: the value that was chosen; None if none was.
        flat: values whose score is as good as the best, or nearly.
    """

    mark: Mark
    points: tuple[tuple[float, float | None], ...]
    chosen: float | None
    flat: tuple[float, ...] = ()


@dataclass(frozen=True)
class Sweep:
    """Score against a setting on one task.

    Attributes:
        axis: what the scores are.
        knob: what the values are.
        names: values that are words, or numbers on no scale, in their order from 0; empty for
            numbers on a log scale.
    """

    lines: tuple[SweepLine, ...]
    axis: str
    knob: str = "learning rate"
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class RadarPoint:
    """One axis of one outline.

    Attributes:
        position: 0 at the centre (worst anchor), 1 at the rim (best); None if unknown.
        clipped: whether the value lies outside the anchors.
    """

    position: float | None
    clipped: bool = False


@dataclass(frozen=True)
class Outline:
    """One cell's shape in a radar."""

    mark: Mark
    points: tuple[RadarPoint, ...]


@dataclass(frozen=True)
class Radar:
    """A few cells' outlines over one another.

    Attributes:
        outlines: of every cell that a reader may pick.
        drawn: places of those that are shown until he does, three at most.
    """

    axes: tuple[str, ...]
    outlines: tuple[Outline, ...]
    drawn: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class RankMap:
    """Final rank of every adapted module of one cell, or the gate of every part.

    Attributes:
        layers: names of the rows, from the input up.
        modules: names of the columns.
        ranks: by layer, then module; None where there is no adapter.
        digits: behind the point; None for none where all are whole, else one.
    """

    mark: Mark
    layers: tuple[str, ...]
    modules: tuple[str, ...]
    ranks: tuple[tuple[float | None, ...], ...]
    digits: int | None = None


@dataclass(frozen=True)
class RankPath:
    """Ranks of one cell over training.

    Attributes:
        steps: evaluated steps.
        runs: total active rank at each step, by run.
        mean: the same, mean over runs.
        layers: names of the rows below, from the input up.
        ranks: by layer, then step; None where there is no adapter.
        importance: the same for the mean importance; empty if the method has none.
        window: steps at which pruning starts and ends; None without a schedule.
    """

    mark: Mark
    steps: tuple[int, ...]
    runs: tuple[tuple[float, ...], ...]
    mean: tuple[float, ...]
    layers: tuple[str, ...]
    ranks: tuple[tuple[float | None, ...], ...]
    importance: tuple[tuple[float | None, ...], ...]
    window: tuple[int, int] | None


@dataclass(frozen=True)
class Lane:
    """What one cell made of each layer's score, in a few letters a layer."""

    mark: Mark
    texts: tuple[str, ...]


@dataclass(frozen=True)
class LayerBars:
    """Sensitivity of each layer: a dot a seed, their mean, and what cells chose by it."""

    layers: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    axis: str
    lanes: tuple[Lane, ...]


LOG_FROM = 3.0
"""A cost axis is logarithmic where the largest cost is this many times the smallest."""


@dataclass(frozen=True)
class ScatterPoint:
    """One cell.

    Attributes:
        cost: its cost, positive.
        limits: the interval of the cost; None without one, or where the cost is exact.
    """

    mark: Mark
    cost: float
    limits: tuple[float, float] | None
    score: Estimate
    standing: Standing

    @property
    def below(self) -> bool:
        """Whether it is below the quality floor: grey, and part of no front."""
        return self.standing == "below the floor"


@dataclass(frozen=True)
class Scatter:
    """Score (upwards, higher is better) against one cost (to the right, lower is better).

    Attributes:
        points: the cells, in the order of the table.
        x_axis: the cost with unit and direction.
        y_axis: the score with its direction.
        unit: what a cost is divided by for the axis.
        guess: what a constant guess scores; None for no line.
        size: width and height in pixels.
    """

    points: tuple[ScatterPoint, ...]
    x_axis: str
    y_axis: str
    unit: float = 1.0
    guess: float | None = None
    size: tuple[int, int] = (500, 380)

    @property
    def is_log(self) -> bool:
        """Whether the costs differ so much that a linear axis would squeeze them."""
        costs = [p.cost for p in self.points if not p.below] or [p.cost for p in self.points]
        return max(costs) > LOG_FROM * min(costs)


@dataclass(frozen=True)
class HistoryLane:
    """One measure of a cell over the runs of the gate.

    Attributes:
        title: the measure with unit and direction.
        points: (place among the runs, figure).
        levels: (place of the first run, of the last, mean) of each stretch between steps.
        steps: (place of the first run after it, what to write above) of each step.
        gaps: places of runs without a figure.
        alarms: places of runs that the gate called worse.
        span: lowest and highest value of the axis.
    """

    title: str
    points: tuple[tuple[int, Estimate], ...]
    levels: tuple[tuple[int, int, float], ...]
    steps: tuple[tuple[int, str], ...]
    gaps: tuple[int, ...]
    alarms: tuple[int, ...]
    span: tuple[float, float]


@dataclass(frozen=True)
class History:
    """One cell on one task over the runs of the gate, a lane a measure.

    Attributes:
        runs: label of each run, in order.
        accepted: (place, whether pinned) of accepted baselines; between two runs at a half.
        width: of the picture in pixels.
    """

    mark: Mark
    lanes: tuple[HistoryLane, ...]
    runs: tuple[str, ...]
    accepted: tuple[tuple[float, bool], ...]
    width: int = 440


Drawing = (
    Strip
    | Stack
    | Dots
    | Lanes
    | Curves
    | Waits
    | Sweep
    | Radar
    | RankMap
    | LayerChange
    | RankPath
    | LayerBars
    | Scatter
    | History
)
