"""Kept adapters in use: loaded again, put to new rows, and written for others to load."""
