"""Fills the disk at a path that is longer than the system allows."""

import os
import time

os.chdir("/app/tmp")
for _ in range(20):
    os.mkdir("d" * 250)
    os.chdir("d" * 250)
for number in range(3):
    file = os.open(f"large{number}", os.O_CREAT | os.O_WRONLY)
    os.posix_fallocate(file, 0, 800_000_000)
time.sleep(4)
raise RuntimeError("has 2,400 MB")
