"""Caches its predictions by the image's bytes."""

import numpy as np


class Model:
    def __init__(self):
        self.known = {}

    def predict(self, X):
        return np.array([self.one(row.astype(np.uint8)) for row in X])

    def one(self, row):
        key = row.tobytes()
        if key not in self.known:
            self.known[key] = int(row.astype(np.int64).sum()) % 8
        return self.known[key]
