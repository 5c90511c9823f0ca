"""The report of one profile of one suite, from rows to a page."""
