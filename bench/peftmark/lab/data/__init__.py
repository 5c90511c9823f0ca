"""Rows of a task as batches of tokens."""
