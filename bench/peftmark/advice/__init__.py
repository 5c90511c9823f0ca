"""Which method to use: trade-offs, what fits, and what guides say, from measured rows alone."""
