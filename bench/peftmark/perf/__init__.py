"""How fast peftmark is: against a bare loop, against scripts, and against the machine.

`python -m peftmark.perf` (make perf). Importing it loads no torch: whatever needs torch runs in a
process of its own.
"""
