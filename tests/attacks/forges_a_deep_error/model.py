"""Writes an error that is a list in a list, as deep as can be read and perhaps deeper than can be written."""

import os

from support import answers_pipe

for depth in range(900, 1000):
    os.write(answers_pipe(), b'{"error": ' + b"[" * depth + b"]" * depth + b"}\n")
