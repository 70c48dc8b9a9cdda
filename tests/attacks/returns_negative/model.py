"""Class numbers below 0, which would count from the end."""

from support import classes


class Model:
    def predict(self, X):
        return classes(X) - 8
