"""The static site: evidence from published rows, and the docs in four rooms."""
