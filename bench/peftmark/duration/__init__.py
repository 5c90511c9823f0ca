"""The time of jobs, predicted; nothing here loads torch."""
