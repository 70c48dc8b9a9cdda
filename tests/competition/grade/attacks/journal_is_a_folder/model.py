"""Makes the journal a folder with a file in it, and its temporary file too."""

import os

from support import output

path = os.path.join(output(), "checks.json")
os.remove(path)
os.makedirs(path + "/in")
os.makedirs(path + ".tmp/in")
raise RuntimeError("made it")
