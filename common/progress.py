"""A progress bar with the time left."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(
    iterable: Iterable | None = None, desc: str | None = None, total: float | None = None, **arguments: Any
) -> tqdm:
    """`tqdm` that appears after two seconds. In a log file it writes a line every 30 seconds."""
    pause = 0.2 if sys.stderr.isatty() else 30
    return tqdm(iterable, desc, total, delay=2, leave=False, mininterval=pause, **arguments)
