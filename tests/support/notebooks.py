"""Run a notebook's code from top to bottom in this process, without a Jupyter kernel.

    python tests/support/notebooks.py docs/notebooks/results-to-paper.ipynb [--write] [--fake]

What a cell prints, its last expression and its pictures become outputs, as in Jupyter; `--write`
stores them in the file. A kernel would add some thirty packages and seconds a notebook, and run the
same code. `--fake` has runs use workers that cost nothing (`fake_worker.ok`).
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

Output = dict[str, Any]


def read(path: Path) -> dict[str, Any]:
    """A notebook of version 4."""
    notebook: dict[str, Any] = json.loads(path.read_text("utf-8"))
    assert notebook["nbformat"] == 4
    return notebook


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells with code, in order."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def text_of(outputs: list[Output]) -> list[str]:
    """What outputs say, without pictures, markup and addresses of objects."""
    found = []
    for output in outputs:
        told = output.get("text") or output.get("data", {}).get("text/plain", [])
        found.append(re.sub(r"0x[0-9a-f]+", "0x", "".join(told)))
    return found


def execute(source: str, namespace: dict[str, Any], number: int) -> list[Output]:
    """Run one cell; what it leaves to be seen."""
    body = ast.parse(source, f"cell {number}").body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    printed = io.StringIO()
    shown = None
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), f"cell {number}", "exec"), namespace)
        if isinstance(last, ast.Expr):
            code = compile(ast.Expression(last.value), f"cell {number}", "eval")
            shown = eval(code, namespace)
    found: list[Output] = []
    if printed.getvalue():
        found.append({"output_type": "stream", "name": "stdout", "text": lines(printed.getvalue())})
    if shown is not None and not source.rstrip().endswith(";"):
        data = {"text/plain": lines(repr(shown))}
        if (html := getattr(shown, "_repr_html_", lambda: None)()) is not None:
            data["text/html"] = lines(html)
        result = {"output_type": "execute_result", "execution_count": number}
        found.append({**result, "data": data, "metadata": {}})
    return [*found, *pictures()]


def pictures() -> list[Output]:
    """Every open figure, then closed."""
    if "matplotlib.pyplot" not in sys.modules:
        return []
    from matplotlib import pyplot

    found = []
    for number in pyplot.get_fignums():
        content = io.BytesIO()
        figure = pyplot.figure(number)
        figure.savefig(
            content, format="png", dpi=80, bbox_inches="tight", metadata={"Software": None}
        )
        png = base64.b64encode(content.getvalue()).decode() + "\n"
        data = {"image/png": png, "text/plain": ["<Figure>"]}
        found.append({"output_type": "display_data", "data": data, "metadata": {}})
    pyplot.close("all")
    return found


def lines(text: str) -> list[str]:
    """Text as notebooks store it."""
    return text.splitlines(keepends=True)


def run(path: Path) -> dict[str, Any]:
    """The notebook with what its cells give now, run in its own folder as Jupyter does."""
    notebook = read(path)
    os.environ["MPLBACKEND"] = "Agg"
    os.chdir(path.parent)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(code_cells(notebook), 1):
        cell["outputs"] = execute("".join(cell["source"]), namespace, number)
        cell["execution_count"] = number
    return notebook


def use_fake_workers() -> None:
    """Runs fetch nothing and train nothing."""
    from functools import partial

    import stand_ins
    from peftmark.run import runner

    stand_ins.load_early()
    runner.fetch = lambda plan: {}
    runner.execute = partial(runner.execute, worker="fake_worker:ok")


def main() -> None:
    """Run one notebook; its outputs go into the file, or as JSON to the output."""
    parser = argparse.ArgumentParser()
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--fake", action="store_true")
    options = parser.parse_args()
    if options.fake:
        use_fake_workers()
    path = options.notebook.resolve()
    made = run(path)
    if options.write:
        path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", "utf-8")
    else:
        print(json.dumps([text_of(cell["outputs"]) for cell in code_cells(made)]))


if __name__ == "__main__":
    main()
