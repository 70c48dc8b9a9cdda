"""Leaves nested folders without permissions."""

import os

from support import output

for top in (output(), os.path.dirname(os.path.abspath(__file__)), "/app/tmp", "/app/home"):
    os.makedirs(os.path.join(top, "a", "b", "c"))
    open(os.path.join(top, "a", "b", "file"), "w").close()
    os.chmod(os.path.join(top, "a", "b"), 0)
    os.chmod(os.path.join(top, "a"), 0)
raise RuntimeError("closed them")
