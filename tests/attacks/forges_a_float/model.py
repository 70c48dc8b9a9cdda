"""Writes a header with a number of classes that is no whole number."""

import json
import os
import time

from support import answers_pipe


class Model:
    def predict(self, X):
        header = {"kind": "tensor", "dtype": "int64", "shape": [len(X)], "confidence": True, "classes": 8.0}
        os.write(answers_pipe(), json.dumps(header).encode() + b"\n" + bytes(8 + 32))
        time.sleep(5)
