"""Stops itself and a child, so that neither ends when it is asked to."""

import os
import signal
import subprocess

from support import mark

child = subprocess.Popen(["sleep", mark()])
os.kill(child.pid, signal.SIGSTOP)
os.kill(os.getpid(), signal.SIGSTOP)
raise RuntimeError("went on")
