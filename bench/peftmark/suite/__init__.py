"""From the YAML of a suite to jobs."""
