"""Leaves a daemon: forked twice, its own session, no open file, no environment."""

import os

from support import mark

if not os.fork():
    os.setsid()
    if not os.fork():
        os.closerange(0, 256)
        os.execve("/bin/sleep", ["sleep", mark()], {})
    os._exit(0)
os.wait()
raise RuntimeError("left a daemon")
