"""Creates 22,000 files."""

import time

for number in range(22_000):
    open(f"/app/tmp/{number}", "w").close()
time.sleep(5)
raise RuntimeError("made 22,000 files")
