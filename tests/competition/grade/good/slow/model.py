"""Is slow, and stays within the time limit."""

import time

import numpy as np


class Model:
    def __init__(self):
        time.sleep(0.5)

    def predict(self, X):
        time.sleep(0.1 + 0.02 * len(X))
        return np.asarray(X).astype(np.int64).sum((1, 2, 3)) % 8
