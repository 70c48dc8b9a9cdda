"""Writes garbage without an end of line to the pipe for the responses."""

import os

from support import responses_pipe

for _ in range(1000):
    os.write(responses_pipe(), b"{" * 65536)
