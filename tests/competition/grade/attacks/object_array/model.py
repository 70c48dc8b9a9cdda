"""Saves an array of Python objects as its probabilities. Loading it would run code."""

import os

import numpy as np

from support import classes, output


class Model:
    def predict(self, X):
        np.save(os.path.join(output(), "probabilities.npy"), np.array([print, {}], object), allow_pickle=True)
        return classes(X)
