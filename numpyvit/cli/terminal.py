"""Terminals as they are: closed, or without the characters that a table would like to have."""
import codecs
import os
import sys

ALIKE = str.maketrans({"×": "x", "·": ".", "−": "-", "–": "-", "…": "...", "→": "->", "⟨": "<", "⟩": ">", "ᵀ": "T",
                       "√": "sqrt", "²": "2", "≤": "<=", "≥": ">=", "─": "-", "━": "-", "│": "|", "╭": "+", "╮": "+",
                       "╰": "+", "╯": "+"})


def plain(error):
    """For codecs.register_error: characters that an encoding does not have become others that look alike, or "?"."""
    text = error.object[error.start:error.end].translate(ALIKE)
    return text.encode("ascii", "replace").decode(), error.end


codecs.register_error("numpyvit.plain", plain)


def prepare_streams():
    """Make standard output and error safe to print to, whatever they are: a closed one becomes /dev/null."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            null = os.open(os.devnull, os.O_WRONLY)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, open(number, "w", closefd=False))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="numpyvit.plain")
