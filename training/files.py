"""Files that are either whole or not there."""

import json
import os

import numpy as np


def atomically(path, save):
    """Calls save(temporary path) and renames the result, so that a half-written file never has the real name."""
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path, value):
    """Writes a value as indented JSON."""
    atomically(path, lambda temporary: temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8"))


def write_arrays(path, *arrays, **named):
    """Writes arrays as one uncompressed .npz file: the unnamed ones as arr_0, arr_1, …"""

    def save(temporary):
        with open(temporary, "wb") as file:
            np.savez(file, *arrays, **named)

    atomically(path, save)
