"""Kept adapters of language models, asked by an evaluation harness of others."""
