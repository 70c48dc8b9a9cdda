"""Leaves folders 1,050 levels deep, more than Python's recursion limit, in the output folder and in its own folder."""

import os

from support import output

here = os.getcwd()
for top in (output(), os.path.dirname(os.path.abspath(__file__))):
    os.chdir(top)
    for _ in range(1050):
        os.mkdir("d")
        os.chdir("d")
    open("file", "w").close()
    os.chdir(here)
raise RuntimeError("dug deep")
