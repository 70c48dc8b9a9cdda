"""Fills the memory, up to 1.5 GB."""

import time

hoard = []
for _ in range(100):
    hoard.append(b"x" * 15_000_000)
    time.sleep(0.02)
time.sleep(5)
raise RuntimeError("has 1,500 MB")
