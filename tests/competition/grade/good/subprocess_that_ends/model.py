"""Predicts in a child process and waits for it."""

import io
import subprocess
import sys

import numpy as np

CODE = "import sys, numpy as np; X = np.load(sys.stdin.buffer); print(*(X.astype(np.int64).sum((1, 2, 3)) % 8))"


class Model:
    def predict(self, X):
        data = io.BytesIO()
        np.save(data, X)
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                CODE.replace("sys.stdin.buffer", "__import__('io').BytesIO(sys.stdin.buffer.read())"),
            ],
            input=data.getvalue(),
            stdout=subprocess.PIPE,
            check=True,
        )
        return np.array(done.stdout.split(), np.int64)
