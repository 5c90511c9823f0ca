"""From stored rows to figures, intervals and verdicts. Pure functions."""
