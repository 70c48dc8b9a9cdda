"""Refuses everything that is no batch of images, and returns the smallest integer type."""

import numpy as np


class Model:
    def predict(self, X):
        if X.ndim != 4:
            raise ValueError(f"expected a batch of images, got the shape {X.shape}")
        return (X.astype(np.int64).sum((1, 2, 3)) % 8).astype(np.uint8)
