"""A generator of class numbers."""

from support import classes


class Model:
    def predict(self, X):
        return (number for number in classes(X))
