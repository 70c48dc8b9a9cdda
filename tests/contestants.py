"""Contestants of `benchmarks.inference` that take no time. Their processes import them from here."""

import numpy as np

from benchmarks.inference import Contestant
from benchmarks.process import NotMeasured


class Constant:
    """Every probability is the same."""

    def __init__(self, value):
        self.value = value

    def __call__(self, images):
        return lambda batch: np.full((len(batch), 2), self.value)


def absent(images):
    raise NotMeasured("there is no such processor")


def missing(images):
    import a_package_that_nobody_has  # noqa: F401


def broken(images):
    raise ValueError("broken")


STUBS = {
    "half": Contestant(Constant(0.5), like="half"),
    "another": Contestant(Constant(0.5), like="half"),
    "different": Contestant(Constant(0.7), like="half"),
    "absent": Contestant(absent, like="half"),
    "missing": Contestant(missing, like="half"),
    "broken": Contestant(broken, like="half"),
}
