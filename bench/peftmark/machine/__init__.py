"""The machine: processor, GPUs, power meters, installed software."""
