"""The commands of `python -m training`: one file for each group, one pair of functions for each command.

`_add_NAME` adds a command's options, `_NAME` runs it. The functions import Keras only when they run, because the
backend is chosen after the command line is read.
"""
