"""What a predictor scores that has seen the training rows' answers and looks at no row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from peftmark.catalog.metrics import metric_of
from peftmark.catalog.task import Example, Task
from peftmark.lab import metrics
from peftmark.lab.data.batches import Encoder
from peftmark.lab.data.causal_rows import Reader, right_answer, unigram_likelihood
from peftmark.lab.data.held_out import HeldOut
from peftmark.lab.own_metric import NoValue


def constant_guess(
    encoder: Encoder | Reader,
    task: Task,
    rows: Sequence[Example],
    labels: np.ndarray,
    evaluated: Sequence[Example],
    held: HeldOut,
) -> tuple[float | None, str]:
    """The primary metric of the best constant predictor on held-out rows, or None and why a metric
    of one's own has no value for it.

    Args:
        rows: those that are trained on, and their labels.
        evaluated: the rows of the held-out set.
    """
    try:
        return _baseline(encoder, task, rows, labels, evaluated, held), ""
    except NoValue as error:
        return None, f"of the constant guess: {error.what}"


def _baseline(
    encoder: Encoder | Reader,
    task: Task,
    rows: Sequence[Example],
    labels: np.ndarray,
    evaluated: Sequence[Example],
    held: HeldOut,
) -> float:
    """The primary metric of a predictor that looks at no row: the majority class, the mean score,
    the commonest answer, or how often each token stands in the training rows."""
    known = metric_of(task.metric)
    own = known is not None and known.own
    if task.kind == "language":
        if own:
            raise NoValue("a metric of your own has no constant guess at a text")
        assert isinstance(encoder, Reader)
        return unigram_likelihood(
            encoder.encode(rows), encoder.encode(evaluated), encoder.vocabulary
        )
    if held.answers is not None:
        wanted, pattern = held.answers.wanted, held.answers.pattern
        # The first of equally common ones; where a part of an answer counts, by that part.
        texts = [right_answer(row) for row in rows]
        parts = {text: metrics.what_counts(text, pattern) for text in texts}
        common = Counter(parts[text] for text in texts).most_common(1)[0][0]
        answer = next(text for text, part in parts.items() if part == common)
        if own:
            told = (np.array(texts, dtype=object) for texts in (wanted, [answer] * len(wanted)))
            return metrics.with_own((task.metric,), {}, *told)[task.metric]
        by_row = metrics.answers([answer] * len(wanted), wanted, pattern)
        return float(by_row[task.metric].mean())
    # Of choices the place that is right most often.
    classes = max((len(row.choices) for row in rows), default=0) or len(task.labels)
    return metrics.baseline(task.metric, labels, held.references, classes)
