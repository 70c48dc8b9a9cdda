"""A row of zeros and a one for each image."""

import numpy as np

from support import classes


class Model:
    def predict(self, X):
        return np.eye(8, dtype=np.int64)[classes(X)]
