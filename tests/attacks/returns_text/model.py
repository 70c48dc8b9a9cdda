"""Class numbers as text."""

from support import classes


class Model:
    def predict(self, X):
        return " ".join(map(str, classes(X)))
