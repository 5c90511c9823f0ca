"""What is measured of a job: clocks, memory, energy, operations, parameters."""
