"""Class numbers from 1 to 8."""

from support import classes


class Model:
    def predict(self, X):
        return classes(X) + 8
