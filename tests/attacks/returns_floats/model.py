"""Whole numbers as floats."""

from support import classes


class Model:
    def predict(self, X):
        return classes(X) / 1.0
