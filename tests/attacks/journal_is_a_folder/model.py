"""Makes the journal a folder with something in it, and its successor as well."""

import os

from support import output

path = os.path.join(output(), "checks.json")
os.remove(path)
os.makedirs(path + "/in")
os.makedirs(path + ".tmp/in")
raise RuntimeError("made it")
