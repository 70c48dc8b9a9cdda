"""Writes a header that announces far more than will come, and waits."""

import json
import os
import time

from support import answers_pipe


class Model:
    def predict(self, X):
        header = {"kind": "tensor", "dtype": "int64", "shape": [len(X)], "confidence": True, "classes": 9999}
        os.write(answers_pipe(), json.dumps(header).encode() + b"\n")
        time.sleep(60)
