"""Stops itself, after a child has been stopped as well: neither can end by being asked to."""

import os
import signal
import subprocess

from support import mark

child = subprocess.Popen(["sleep", mark()])
os.kill(child.pid, signal.SIGSTOP)
os.kill(os.getpid(), signal.SIGSTOP)
raise RuntimeError("went on")
