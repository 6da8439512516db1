"""The command line: numpyvit COMMAND, where each file beside this one adds a group of commands.

Exit 0; 2 with one line on standard error for everything that the user can mend; 130 when interrupted.
A command imports its modules when it runs, so that --help does not wait for compilers.
"""
import argparse
import difflib
import os
import re
import sys
import warnings

from .. import __version__
from ..errors import Interrupted
from ..training import ranks
from . import convert, explore, inspect, manage, score, train
from .terminal import prepare_streams


def main(argv=None):
    """Run one command. → exit status"""
    warnings.filterwarnings("ignore", category=RuntimeWarning)               # overflow: the loss will not be finite
    prepare_streams()
    if ranks.launched()[0] > 0:
        sys.stdout = open(os.devnull, "w")                                   # rank 0 alone prints
    try:
        args = parse(sys.argv[1:] if argv is None else argv)
        status = args.run(args)
        sys.stdout.flush()
        return leave(status or 0)
    except BrokenPipeError:                                                  # | head: nobody reads any more
        return leave(0)
    except KeyboardInterrupt:
        return leave(130, "interrupted")
    except (ValueError, OSError, MemoryError, OverflowError, ImportError) as error:
        if os.environ.get("NUMPYVIT_DEBUG"):
            raise
        return leave(2, message_of(error))
    except Interrupted as error:
        return leave(130, str(error))


def leave(status, message=None):
    """Say one line on standard error, where there still is one, and make sure that nothing fails after it."""
    def say(message):
        print(f"numpyvit: {message}", file=sys.stderr, flush=True)

    try:
        ranks.leave(status, message, say)
        sys.stdout.flush()
    except (OSError, ValueError):
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    return status


def message_of(error):
    """An exception in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        text = f"out of memory: {text or 'the system has no more'}; try a smaller --batch-size, --micro-batch or model"
    return "; ".join([text or type(error).__name__, *getattr(error, "__notes__", [])])


class Parser(argparse.ArgumentParser):
    """argparse whose complaint is one line, with the command or the option that was probably meant."""

    def error(self, message):
        text = " ".join(message.split())
        if choice := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", text):
            text += suggestion(choice[1], [name.strip("' ") for name in choice[2].split(",")])
        self.exit(2, f"{self.prog}: {text}; see {self.prog} --help\n" if ranks.launched()[0] == 0 else None)

    def refuse(self, words):
        """Leave with a line about arguments that no option takes."""
        text = f"unrecognized arguments: {' '.join(words)}"
        options = [word for word in words if word.startswith("-")]
        if options:
            text += suggestion(options[0].partition("=")[0], self._option_string_actions)
        elif "=" in words[0]:
            text += f"; each FIELD=VALUE takes a --set of its own: --set {words[0]}"
        self.error(text)


def suggestion(word, names):
    """"; did you mean NAME?", or "" where no name is near."""
    near = difflib.get_close_matches(word, names, 1)
    return f"; did you mean {near[0]}?" if near else ""


def parse(words):
    """The words of a command line as a namespace; options may stand between the other words of a command."""
    root = parser()
    args, unknown = root.parse_known_args(words)
    if unknown and args.parser.prog == f"{root.prog} {words[0]}":            # root itself cannot be parsed in this way
        args, unknown = args.parser.parse_known_intermixed_args(words[1:])
    if unknown:
        args.parser.refuse(unknown)
    return args


def parser():
    """The parser of the whole command line."""
    root = Parser(prog="numpyvit",
                  description="Vision transformers in NumPy and Numba, every gradient written by hand.")
    root.add_argument("--version", action="version", version=f"numpyvit {__version__}")
    root.set_defaults(run=lambda args: root.print_help(), parser=root)       # numpyvit alone
    commands = root.add_subparsers(metavar="COMMAND", parser_class=Parser)
    for group in (train, score, manage, convert, inspect, explore):
        group.add_commands(commands)
    for command in commands.choices.values():
        command.set_defaults(parser=command)
    return root
