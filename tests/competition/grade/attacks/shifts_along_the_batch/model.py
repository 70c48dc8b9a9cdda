"""Makes each prediction depend on the row before."""

import numpy as np

from support import classes


class Model:
    def predict(self, X):
        return (classes(X) + np.append(0, classes(X)[:-1])) % 8
