"""Creates one file of 1.5 GB."""

import os

file = os.open("/app/tmp/large", os.O_CREAT | os.O_WRONLY)
os.posix_fallocate(file, 0, 1_500_000_000)
raise RuntimeError("has 1,500 MB")
