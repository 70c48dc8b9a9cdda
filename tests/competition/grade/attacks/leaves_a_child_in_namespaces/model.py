"""Leaves a child in its own user and process namespaces, where its parent's numbers mean nothing."""

import subprocess
import time

from support import mark

subprocess.Popen(
    ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount", "sleep", mark()],
    start_new_session=True,
    env={},
)
time.sleep(0.2)
raise RuntimeError("left a child")
