"""A stand-in for `peftmark.lab.memory.count_worker`: counts made up from the request, at once."""

from __future__ import annotations

import json
import os
import sys

for line in sys.stdin:
    request = json.loads(line)
    with open(os.environ["FAKE_COUNTS"], "a", encoding="utf-8") as log:
        log.write(f"{request['kind']}\n")
    if request["kind"] == "poly":
        sys.exit("it fell over")
    told = {"trainable": 1000 + request["options"].get("r", 0), "parameters": 5000}
    if request["kind"] == "bone":
        told = {"absent": "the installed PEFT has no type BONE"}
    if request["kind"] == "boft":
        told = {"reason": "PEFT can't build it without weights: RuntimeError"}
    print(json.dumps(told), flush=True)
