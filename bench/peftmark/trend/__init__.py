"""Every cell over the runs of the gate."""
