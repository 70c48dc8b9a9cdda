"""Fills the disk with three files of 800 MB."""

import os
import time

os.chdir("/app/tmp")
for number in range(3):
    file = os.open(f"large{number}", os.O_CREAT | os.O_WRONLY)
    os.posix_fallocate(file, 0, 800_000_000)
time.sleep(4)
raise RuntimeError("has 2,400 MB")
