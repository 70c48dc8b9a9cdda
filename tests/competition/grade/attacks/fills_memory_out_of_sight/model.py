"""Fills the memory with files that no process has mapped: 1.2 GB without a name."""

import os
import time

for _ in range(8):
    file = os.memfd_create("hoard")
    for _ in range(10):
        os.write(file, b"x" * 15_000_000)
time.sleep(3)
raise RuntimeError("has 1,200 MB")
