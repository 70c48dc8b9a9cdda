"""Prints up to 200 MB."""

import time

for _ in range(2000):
    print("x" * 99_999)
time.sleep(5)
raise RuntimeError("printed 200 MB")
