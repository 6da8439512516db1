"""Ctrl-C, SIGTERM, SIGHUP, and SIGUSR1, which schedulers send: the first signal asks the loop to stop, a second Ctrl-C
or SIGTERM ends the process at once. A terminal that closes sends SIGHUP twice: that asks once.

Under nohup, which starts a process with SIGHUP ignored, SIGHUP stays ignored.
"""
import os
import signal
import threading
from contextlib import contextmanager

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]
AT_ONCE = (signal.SIGINT, signal.SIGTERM)                                    # the second of these ends the process
EXIT_CODE = 130


def heard():
    """The signals that ask a run to stop: all but a SIGHUP that is ignored, as nohup wants it."""
    ignored = hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in SIGNALS if not (ignored and number == signal.SIGHUP)]


@contextmanager
def like_ctrl_c():
    """Inside, SIGTERM, SIGHUP and SIGUSR1 raise KeyboardInterrupt, as Ctrl-C does by itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, signal.default_int_handler) for number in heard()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Interrupts:
    """While the block runs, the first signal sets .asked. Does nothing in a thread other than the main one.

    before_exit: called by the second signal, before the process ends.
    first, second: what these signals say, on standard output and standard error; nothing if empty
    """

    def __init__(self, before_exit=lambda: None, first="", second=""):
        self.asked, self.before_exit, self.previous = False, before_exit, {}
        self.first, self.second = first, second

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self.previous = {number: signal.signal(number, self.handle) for number in heard()}
        return self

    def __exit__(self, *exc):
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def handle(self, number, frame):
        if self.asked and number not in AT_ONCE:
            return
        if self.asked:
            self.before_exit()
            tell(2, self.second)
            os._exit(EXIT_CODE)
        self.asked = True
        tell(1, self.first and f"\n{self.first}")


def tell(stream, text):
    """Write the text to the stream of this number at once: a handler must not wait for a lock that printing holds."""
    if text:
        try:
            os.write(stream, f"{text}\n".encode())
        except OSError:                                                      # nobody reads any more
            pass
