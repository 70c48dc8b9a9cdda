"""An array that says it has the right shape and has another, so that what follows it would be misread."""

import numpy as np

from support import classes


class Liar(np.ndarray):
    shape = (1,)


class Model:
    def predict(self, X):
        lies = np.append(classes(X), [1, 2]).view(Liar)
        Liar.shape = (len(X),)
        return lies
