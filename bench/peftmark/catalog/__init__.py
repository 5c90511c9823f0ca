"""The vocabulary of a suite as plain data: what may be named, and what each name is."""
