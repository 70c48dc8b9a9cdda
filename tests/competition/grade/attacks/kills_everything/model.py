"""Kills its parent and every process that it can kill."""

import contextlib
import os
import signal
import time

for number in (os.getppid(), 1, -1):
    with contextlib.suppress(OSError):
        os.kill(number, signal.SIGKILL)
time.sleep(0.2)
raise RuntimeError("killed nothing")
