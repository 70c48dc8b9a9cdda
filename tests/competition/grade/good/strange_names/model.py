"""Files with names in other scripts, nested folders, and a file with the name of a library's module."""

import os

import numpy as np


class Model:
    def __init__(self):
        here = os.path.dirname(os.path.abspath(__file__))
        with open(os.path.join(here, "a", "b", "c", "foglie \u00e8 \u53f6.txt"), encoding="utf-8") as file:
            self.step = int(file.read())

    def predict(self, X):
        return np.asarray(X).astype(np.int64)[:, :: self.step].sum((1, 2, 3)) % 8
