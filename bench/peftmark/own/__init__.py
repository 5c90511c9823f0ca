"""Tasks of one's own: from the files people have to checked rows, splits and a task."""
