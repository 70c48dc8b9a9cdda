"""Returns other predictions for uint8 than for float32."""

import numpy as np

from support import classes


class Model:
    def predict(self, X):
        return (classes(X) + (X.dtype == np.uint8)) % 8
