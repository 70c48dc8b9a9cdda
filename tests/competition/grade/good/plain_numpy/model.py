"""A linear model of mean colors with its weights in the zip."""

import os

import numpy as np


class Model:
    def __init__(self):
        here = os.path.dirname(os.path.abspath(__file__))
        weights = np.loadtxt(os.path.join(here, "weights.txt"))
        self.kernel, self.bias = weights[:3], weights[3]

    def predict(self, X):
        means = np.asarray(X, np.float64).reshape(len(X), -1, 3).mean(axis=1)
        return ((means[:, :, None] * self.kernel).sum(axis=1) + self.bias).argmax(axis=1)
