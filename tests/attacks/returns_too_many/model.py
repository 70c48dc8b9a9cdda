"""One answer more than there are images."""

import numpy as np

from support import classes


class Model:
    def predict(self, X):
        return np.append(classes(X), 0)
