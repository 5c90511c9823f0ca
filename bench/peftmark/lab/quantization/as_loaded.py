"""Base weights as they were loaded: nothing is quantised."""

from __future__ import annotations

from peftmark.lab.quantization.backend import Backend

BACKEND = Backend("none", "", config=lambda job, whole: None)
