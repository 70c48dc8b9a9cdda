"""Exits with code 0 at the first prediction."""

import sys


class Model:
    def predict(self, X):
        sys.exit(0)
