"""Process that calls metrics of one's own once, so that whoever asks loads nothing of theirs."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout

import numpy as np

from peftmark.catalog import plugins
from peftmark.core.errors import UserError
from peftmark.lab.own_metric import value_of


def main() -> None:
    """Call the metrics that a line of JSON names, and write what is wrong and its remedy as JSON.

    Nulls where nothing is. `references`, `predictions` and `probabilities` are as of `value_of`.
    """
    asked = json.load(sys.stdin)
    plugins.load({("metric", key) for key in asked["keys"]})
    texts = bool(asked["references"]) and isinstance(asked["references"][0], str)
    references, predictions = (
        np.array(asked[name], dtype=object if texts else np.float64)
        for name in ("references", "predictions")
    )
    given = asked["probabilities"]
    probabilities = None if given is None else np.array(given, dtype=np.float64)
    fault: tuple[str | None, str | None] = (None, None)
    with redirect_stdout(sys.stderr):  # what the functions print is no answer
        for key in asked["keys"]:
            try:
                value_of(key, references, predictions, probabilities)
            except UserError as error:
                fault = error.what, error.remedy
                break
    print(json.dumps(fault))


if __name__ == "__main__":
    main()
