"""Fills the disk with files that are unlinked but open."""

import os
import time

os.chdir("/app/tmp")
for number in range(3):
    file = os.open(f"large{number}", os.O_CREAT | os.O_WRONLY)
    os.posix_fallocate(file, 0, 800_000_000)
    os.unlink(f"large{number}")
time.sleep(4)
raise RuntimeError("has 2,400 MB")
