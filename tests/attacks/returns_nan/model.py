"""NaN for every image."""

import numpy as np

from support import classes


class Model:
    def predict(self, X):
        return classes(X) * np.nan
