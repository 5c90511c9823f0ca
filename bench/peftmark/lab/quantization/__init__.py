"""Quantised bases: one back-end a file, and the table of which quantization is whose.

A back-end (`backend.Backend`) knows how its weights are loaded, what they look like in a model,
and how a tensor without values stands for one of them. The numbers that suites and verdicts need
stand in `peftmark.catalog.quantizations`.
"""
