"""Where models and the rows of tasks come from: mirror, hub, packages; each checked by hash."""
