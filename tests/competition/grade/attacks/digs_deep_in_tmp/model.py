"""Leaves folders 1,050 levels deep in the temporary folder, which is its own."""

import os

os.chdir("/app/tmp")
for _ in range(1050):
    os.mkdir("d")
    os.chdir("d")
open("file", "w").close()
raise RuntimeError("dug deep")
