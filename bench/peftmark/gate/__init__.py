"""Regression tracking: two sets of rows compared, and a verdict for CI.

What is compared, in which order and with which exit code stands in docs/gate.md.
"""
