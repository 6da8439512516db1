"""The two errors that everybody may raise, and the text of a message."""


def on_one_line(text):
    """The text as a line that a terminal shows and does not obey: names from a file may hold control characters, which
    become escapes such as \\x1b. Bytes of a file's name that are not UTF-8 stay as they are.
    """
    def shown(c):
        return c if c.isprintable() or "\ud800" <= c <= "\udfff" else c.encode("unicode_escape").decode()

    return "".join(map(shown, " ".join(str(text).split())))


class UserError(ValueError):
    """Something outside the program is not as it has to be: a file, an option, a name.

    The message is one line that says what was expected, what came, and what to do. The command line prints it and exits
    with 2, without a traceback.
    """

    def __init__(self, message):
        super().__init__(on_one_line(message))


class Interrupted(Exception):
    """The user stopped the run, and a checkpoint has been written. The message says how to go on; the status is 130."""
