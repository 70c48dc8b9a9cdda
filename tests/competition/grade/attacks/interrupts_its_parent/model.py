"""Sends its parent every signal that a program can have a handler for."""

import contextlib
import os
import signal
import time

for what in (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGALRM,
    signal.SIGUSR1,
    signal.SIGPIPE,
    signal.SIGCHLD,
):
    with contextlib.suppress(OSError):
        os.kill(os.getppid(), what)
time.sleep(0.3)
raise RuntimeError("interrupted nothing")
