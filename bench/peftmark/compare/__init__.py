"""Runs of one suite held against the first of them: what differs, and how sure that is."""
