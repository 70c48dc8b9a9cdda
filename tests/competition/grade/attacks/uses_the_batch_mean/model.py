"""Makes each prediction depend on the mean of the batch."""

import numpy as np

from support import classes


class Model:
    def predict(self, X):
        return (classes(X) + int(np.mean(X) * 1000)) % 8
