"""The memory of training steps, predicted; nothing here loads torch."""
