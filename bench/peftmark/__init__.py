"""peftmark: a benchmark harness for parameter-efficient fine-tuning methods.

    import peftmark

    runs = peftmark.load_results("glue")      # a tidy pandas frame: one row a run
    print(peftmark.table("glue"))             # a paper's table

docs/python.md has every function. Importing this loads no other library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftmark.api.calls import compare, curves, gate, load_results, plan, report, run, table
from peftmark.core.errors import UserError

if TYPE_CHECKING:
    from peftmark.api.names import METHODS, MODELS, TASKS

__version__ = "0.1.0"
__all__ = [
    "METHODS",
    "MODELS",
    "TASKS",
    "UserError",
    "compare",
    "curves",
    "gate",
    "load_results",
    "plan",
    "report",
    "run",
    "table",
]


def __getattr__(name: str) -> Any:
    """The catalogues, read when they are asked for."""
    if name in ("METHODS", "MODELS", "TASKS"):
        from peftmark.api import names

        return getattr(names, name)
    raise AttributeError(f"module 'peftmark' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What is there to be used."""
    return [*__all__, "__version__"]
