"""Starts 300 children that sleep."""

import os
import time

for _ in range(300):
    if not os.fork():
        time.sleep(20)
        os._exit(0)
time.sleep(20)
raise RuntimeError("started 300 processes")
