"""Progress with the time left, for anything that takes more than two seconds."""

import sys

from tqdm import tqdm


def progress(iterable=None, desc=None, total=None, **arguments):
    """`tqdm` that appears after two seconds; where nobody watches (a log file) it speaks every half minute."""
    pause = 0.2 if sys.stderr.isatty() else 30
    return tqdm(iterable, desc, total, delay=2, leave=False, mininterval=pause, **arguments)
