"""Runs of one suite compared with the first of them: what differs, and how sure that is."""
