"""The exceptions whose text a user is meant to read."""

import errno

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)  # the disk is full or cannot be used


class CommandError(Exception):
    """An expected failure of a command. The command line prints its text as one line and exits with `exit_code`."""

    exit_code = 2
    multiline = False  # whether its text has lines of its own, for example the end of a log


class UserError(CommandError):
    """Wrong input. The text says what is required, what was given, and how to fix it. Exit code 2."""


class InUse(UserError):
    """Another process holds the lock."""


class Diverged(UserError):
    """The loss, the gradients or the weights of a training are no longer finite."""
