"""Writes the first answers before it is asked, hears no question, and leaves with exit code 0."""

import json
import os
import time

from support import answers_pipe

os.write(answers_pipe(), b"{}\n")
for count in (1, 3):
    header = {"kind": "tensor", "dtype": "int64", "shape": [count], "confidence": False}
    os.write(answers_pipe(), json.dumps(header).encode() + b"\n" + bytes(8 * count))
time.sleep(1)
os._exit(0)
