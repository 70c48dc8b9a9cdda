"""Leaves out the last rows of larger batches."""

from support import classes


class Model:
    def predict(self, X):
        return classes(X)[: max(1, len(X) // 4 * 4)]
