"""Makes the journal a pipe, which would never end to be read; then waits to be stopped."""

import os

from support import output

path = os.path.join(output(), "checks.json")
os.remove(path)
os.mkfifo(path)
raise RuntimeError("made it")
