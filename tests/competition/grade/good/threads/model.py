"""Predicts each image in a thread, and leaves a waiting thread."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np


class Model:
    def __init__(self):
        self.pool = ThreadPoolExecutor(8)
        threading.Thread(target=threading.Event().wait, daemon=True).start()

    def predict(self, X):
        return np.array(list(self.pool.map(lambda row: int(row.astype(np.int64).sum()) % 8, X)))
