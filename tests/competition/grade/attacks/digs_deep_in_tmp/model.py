"""Leaves folders 1,200 levels deep in the temporary folder, which is its own."""

import os

here = os.getcwd()
for top in ("/app/tmp", "/app/home"):
    os.chdir(top)
    for _ in range(1200):
        os.mkdir("d")
        os.chdir("d")
    open("file", "w").close()
    os.chdir(here)
raise RuntimeError("dug deep")
