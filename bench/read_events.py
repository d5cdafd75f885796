"""Reads a run's event files with TensorBoard's own reader and compares every scalar with what the store has: `read_events.py FOLDER STEPS.json`.

STEPS.json is what `memopt runs show ID --json` prints. TensorBoard keeps 32-bit floats, so the store's doubles are rounded to them first; nothing else may differ.
"""

import json
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
events.Reload()
with open(sys.argv[2]) as file:
    run = json.load(file)
wanted = {}
for row in run["steps"]:
    for name, value in row.items():
        if name != "step":
            wanted.setdefault(name, {})[row["step"]] = value
for row in run["evals"]:
    for name, value in row["values"].items():
        wanted.setdefault(f"eval/{name}", {})[row["step"]] = value
read = {tag: {scalar.step: scalar.value for scalar in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
rounded = lambda value: struct.unpack("f", struct.pack("f", float(value)))[0]
snake = lambda name: "".join("_" + c.lower() if c.isupper() else c for c in name)
wanted = {snake(name): {step: rounded(value) for step, value in points.items()} for name, points in wanted.items()}
different = [(name, step, value, read.get(name, {}).get(step)) for name, points in wanted.items() for step, value in points.items() if read.get(name, {}).get(step) != value]
extra = sorted(set(read) - set(wanted))
print(json.dumps({"tags": len(read), "points": sum(map(len, read.values())), "different": different[:10], "only_in_tensorboard": extra}))
sys.exit(1 if different or extra or not read else 0)
