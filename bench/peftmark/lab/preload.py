"""What the server loads that workers are forked from.

A library that fails here must not end the server: each worker then loads it itself, and its row
says what is wrong.
"""

from __future__ import annotations

import importlib
from contextlib import suppress

for _name in ("peftmark.lab.recipe", "peftmark.lab.methods.adalora"):
    with suppress(BaseException):  # SystemExit too: some libraries leave when they are loaded
        importlib.import_module(_name)
