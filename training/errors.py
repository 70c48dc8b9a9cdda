"""The one exception that a user is meant to read, and what Ctrl-C is turned into."""

import contextlib
import signal
import threading


class UserError(Exception):
    """Something the user can mend; its text is one line: what is wrong, where, and what to do.

    The command line prints it without a stack trace and exits with 2.
    """


@contextlib.contextmanager
def interruptible():
    """Within it, Ctrl-C ends in a KeyboardInterrupt whatever it hits.

    Python raises one wherever it is, and in the middle of numpy's or TensorFlow's C++ that comes out as something else, a
    SystemError for example. So whatever is raised after a Ctrl-C is taken as what it is due to.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield  # not ours to hear, or ignored on purpose, as in a shell's background job
        return
    heard = []

    def hear(number, frame):
        heard.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, hear)
    try:
        yield
    except Exception as error:
        if heard:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
