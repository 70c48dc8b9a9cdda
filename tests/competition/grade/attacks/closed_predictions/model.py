"""Predicts correctly, and leaves a folder without permissions in place of the predictions, which is reported."""

import os

from support import classes, output


class Model:
    def predict(self, X):
        path = os.path.join(output(), "predictions.txt")
        if not os.path.exists(path):
            os.makedirs(path + "/in")
            os.chmod(path, 0)
        return classes(X)
