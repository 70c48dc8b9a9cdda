"""Prints 20 MB, less than the limit, and bytes that are no text."""

import os
import sys

import numpy as np


class Model:
    def predict(self, X):
        for _ in range(400):
            print("progress " * 1111)
            print("warning", file=sys.stderr)
        os.write(1, b"\xff\xfe\n")
        return np.asarray(X).astype(np.int64).sum((1, 2, 3)) % 8
