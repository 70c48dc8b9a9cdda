"""Leaves a child in a session of its own, which ignores what it can and has shed its environment."""

import subprocess

from support import mark

subprocess.Popen(["sh", "-c", f"trap '' HUP INT TERM; sleep {mark()}"], start_new_session=True, env={})
raise RuntimeError("left a child")
