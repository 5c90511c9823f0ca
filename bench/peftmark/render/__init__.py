"""Pages as plain data, and how they become HTML, Markdown and pictures."""
