"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Something the user can mend; its text is one line: what is wrong, where, and what to do.

    The command line prints it without a stack trace and exits with 2.
    """
