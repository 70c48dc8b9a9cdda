"""Writes temporary files and removes them."""

import os
import tempfile

import numpy as np


class Model:
    def predict(self, X):
        with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile() as other:
            path = os.path.join(folder, "images.npy")
            np.save(path, X)
            np.save(other, X)
            images = np.load(path).astype(np.int64)
        with open(os.path.join(tempfile.gettempdir(), "cache"), "wb") as file:  # its own: nobody minds
            file.write(b"x")
        return images.sum((1, 2, 3)) % 8
