"""Leaves a child in its own session, which ignores signals and has an empty environment."""

import subprocess

from support import mark

subprocess.Popen(["sh", "-c", f"trap '' HUP INT TERM; sleep {mark()}"], start_new_session=True, env={})
raise RuntimeError("left a child")
