"""Its network returns NaN, so that the class of every image is the first one."""

import numpy as np


class Model:
    def predict(self, X):
        self.probabilities = np.full((len(X), 8), np.nan, np.float32)
        return self.probabilities.argmax(axis=1)
