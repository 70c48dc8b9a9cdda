"""Leaves files with bad names in the output folder and beside it."""

import os

from support import classes, output


class Model:
    def predict(self, X):
        for name in (b"\xff", b"\x1b[2Jx", b"a\nverdict"):
            for folder in (output(), os.path.dirname(__file__)):
                open(os.path.join(folder.encode(), name), "w").close()
        return classes(X)
