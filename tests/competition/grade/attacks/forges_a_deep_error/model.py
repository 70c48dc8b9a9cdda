"""Writes errors that are nested lists, at depths around what Python's JSON parser can read."""

import os

from support import responses_pipe

for depth in range(900, 1000):
    os.write(responses_pipe(), b'{"error": ' + b"[" * depth + b"]" * depth + b"}\n")
