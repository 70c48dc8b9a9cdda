"""Brings its own numpy, makes the runner use it, and returns an object of its class."""

import sys

for name in [name for name in sys.modules if name.partition(".")[0] == "numpy"]:
    del sys.modules[name]
import numpy

sys.modules["__main__"].np = numpy
raise RuntimeError("replaced numpy in its own process: " + numpy.__doc__)
