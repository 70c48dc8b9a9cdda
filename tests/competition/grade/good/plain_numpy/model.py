"""A linear model of mean colors with its weights in the zip."""

import os

import numpy as np


class Model:
    def __init__(self):
        here = os.path.dirname(os.path.abspath(__file__))
        with np.load(os.path.join(here, "weights.npz")) as saved:
            self.kernel, self.bias = saved["kernel"], saved["bias"]

    def predict(self, X):
        means = np.asarray(X, np.float64).reshape(len(X), -1, 3).mean(axis=1)
        return ((means[:, :, None] * self.kernel).sum(axis=1) + self.bias).argmax(axis=1)
