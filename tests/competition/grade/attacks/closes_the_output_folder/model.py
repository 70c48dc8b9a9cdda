"""Removes all permissions from the output folder."""

import os

from support import output

path = os.path.join(output(), "in")
os.chmod(output(), 0)
raise RuntimeError("made it")
