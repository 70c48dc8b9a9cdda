"""Writes the predictions and a journal without failures itself, with more seconds than a float can hold."""

import json
import os
import time

from support import output

names = ["import and constructor", "one image", "odd batch", "all images", "independence of neighbors"]
names += ["row permutation", "repeatability", "uint8 images", "output folder"]
record = {"passed": True, "reason": "", "fix": "", "seconds": 10**400}
with open(os.path.join(output(), "predictions.txt"), "w") as file:
    file.write("0\n" * 16)
with open(os.path.join(output(), "checks.json"), "w") as file:
    json.dump({"checks": [{"name": name, **record} for name in names], "used": {"seconds": 1.0}}, file)
for _ in range(1100):
    print("x" * 99_999)
time.sleep(5)
