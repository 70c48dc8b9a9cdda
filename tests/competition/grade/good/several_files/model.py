"""A package and a data file in folders of their own."""

from parts.features import brightness
from parts.table import edges


class Model:
    def predict(self, X):
        return edges().searchsorted(brightness(X))
