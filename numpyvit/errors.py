"""The two errors that everybody may raise."""


class UserError(ValueError):
    """Something outside the program is not as it has to be: a file, an option, a name.

    The message is one line that says what was expected, what came, and what to do. The command line prints it and exits
    with 2, without a traceback.
    """

    def __init__(self, message):
        super().__init__(" ".join(str(message).split()))


class Interrupted(Exception):
    """The user stopped the run, and a checkpoint has been written. The message says how to go on; the status is 130."""
