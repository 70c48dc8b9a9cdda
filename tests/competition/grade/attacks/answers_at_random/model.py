"""Predicts at random."""

import numpy as np


class Model:
    def predict(self, X):
        return np.random.default_rng().integers(0, 8, len(X))
