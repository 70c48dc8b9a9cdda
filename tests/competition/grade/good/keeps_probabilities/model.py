"""Keeps the probabilities of its last predictions, for the detailed results."""

import numpy as np


class Model:
    def __init__(self):
        self.probabilities = None

    def predict(self, X):
        means = np.asarray(X, np.float64).mean(axis=(1, 2, 3))
        powers = np.exp(-(((means[:, None] - np.linspace(60, 130, 8)) / 20) ** 2))
        self.probabilities = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        return self.probabilities.argmax(axis=1)
