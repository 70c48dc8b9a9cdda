"""What can go wrong at the server, by exit code."""

from common.errors import CommandError


class Refused(CommandError):
    """The server says no, or the submission failed. The text says why. Exit code 1."""

    exit_code = 1
    multiline = True


class Unclear(Refused):
    """The server accepted the call, but its answer is not one of Codabench's."""


class NoAnswer(CommandError):
    """The server could not be reached, or failed each time. Exit code 3.

    Attributes:
        status: the last HTTP status, or None if no answer came.
    """

    exit_code = 3

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status
