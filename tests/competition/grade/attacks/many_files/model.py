"""Creates 3,500 files."""

import time

for number in range(3500):
    open(f"/app/tmp/{number}", "w").close()
time.sleep(5)
raise RuntimeError("made 3,500 files")
