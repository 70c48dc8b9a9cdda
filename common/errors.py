"""The exceptions whose text a user is meant to read."""


class CommandError(Exception):
    """An expected failure of a command. The command line prints its text as one line and exits with `exit_code`."""

    exit_code = 2


class UserError(CommandError):
    """Wrong input. The text says what is required, what was given, and how to fix it. Exit code 2."""


class InUse(UserError):
    """Another process holds the lock."""
