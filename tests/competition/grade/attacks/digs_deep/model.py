"""Leaves folders 1,200 levels deep in the output folder, in its own folder and in the temporary folder."""

import os

from support import output

here = os.getcwd()
for top in (output(), os.path.dirname(os.path.abspath(__file__)), "/app/tmp"):
    os.chdir(top)
    for _ in range(1200):
        os.mkdir("d")
        os.chdir("d")
    open("file", "w").close()
    os.chdir(here)
raise RuntimeError("dug deep")
