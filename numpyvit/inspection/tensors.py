"""What a trace holds: arrays, each with its key and its line of source, and files of them."""
import json
import os
import zipfile
import zlib
from dataclasses import astuple, dataclass, field

import numpy as np

from ..checks import fail, shown
from ..errors import UserError

SHOWN = 4                                                                    # rows at each end of a long repr
FILES = (ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError, NotImplementedError,
         zipfile.BadZipFile, zlib.error)                                     # what reading another file raises


@dataclass(frozen=True)
class Key:
    """Which tensor: the module whose layer called (dotted name, "" without a model), the op's function, which of its
    calls there, the variable, and which of the arrays bound to it in that call."""
    module: str
    op: str
    call: int
    name: str
    binding: int

    def __str__(self):
        call, binding = (f"[{self.call}]" if self.call else ""), "′" * self.binding
        return f"{self.module + ' ' if self.module else ''}{self.op}{call} {self.name}{binding}"


@dataclass(eq=False, repr=False)
class Tensor:
    """One recorded array; file and line are those of the assignment (of the def for an argument).

    operands   the keys of the arrays that the statement reads, in its order; none for an argument
    scalars    {name: number} that the call had at that time: scale, eps, stride, …
    caller     function and file:line that called the op
    """
    key: Key
    file: str
    line: int
    array: np.ndarray
    operands: tuple = ()
    scalars: dict = field(default_factory=dict)
    caller: str = ""

    @property
    def shape(self):
        return self.array.shape

    def __repr__(self):
        """One line, without the numbers, which are in array."""
        return f"<{self.key}: {self.shape} {self.array.dtype}, {self.file}:{self.line}>"


class Rows(list):
    """A list whose repr is short and whose slices are of its own kind. A subclass has sentence() and show()."""

    def __getitem__(self, at):
        found = super().__getitem__(at)
        return type(self)(found) if isinstance(at, slice) else found

    def __repr__(self):
        """A sentence, and the rows at both ends."""
        rows = [f"  {row}" for row in self]
        if len(rows) > 2 * SHOWN + 1:
            rows[SHOWN:-SHOWN] = [f"  … {len(rows) - 2 * SHOWN:,} more: .show() prints all"]
        return "\n".join([f"<{type(self).__name__}: {self.sentence()}", *rows]) + ">"


class Trace(Rows):
    """Tensors in the order in which they were computed."""

    def find(self, name, op="", module=""):
        """The Trace of the tensors called name, of ops and modules whose names contain op and module.

        Raises UserError for an argument that is no text.
        """
        for what, value in (("name", name), ("op", op), ("module", module)):
            if not isinstance(value, str):
                fail(f"find: {what}", "a text, as in find('scores', op='attention', module='blocks.0')", shown(value))
        return Trace(t for t in self if t.key.name == name and op in t.key.op and module in t.key.module)

    def show(self, console=None):
        """Print a row a tensor.   console: a rich.console.Console, standard output unless given"""
        from .tables import print_trace
        print_trace(self, console)

    def sentence(self):
        """How much there is, and how to choose."""
        if not self:
            return "no tensors"
        calls = len({(t.key.module, t.key.op, t.key.call) for t in self})
        return f"{len(self):,} tensors of {calls:,} calls; .find({self[-1].key.name!r}) chooses by name"

    def save(self, path):
        """Write an .npz that load reads, in this or another process. Raises UserError for a path that is none."""
        about = [(*astuple(t.key), t.file, t.line, [*map(astuple, t.operands)], t.scalars, t.caller)
                 for t in check_trace("save", self)]
        check_path("save", path)
        with open(path, "wb") as to:
            np.savez_compressed(to, about=np.array(json.dumps(about)), **{f"t{i}": t.array for i, t in enumerate(self)})

    @classmethod
    def load(cls, path):
        """The Trace of a file that save wrote. Raises UserError for any other file, OSError where there is none."""
        check_path("load", path)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
                return cls(Tensor(Key(*row[:5]), *row[5:7], arrays[f"t{i}"], *read_context(*row[7:]))
                           for i, row in enumerate(about))
        except FILES as error:
            raise UserError(f"{path}: expected a file that Trace.save wrote, got another ({error})") from None


def read_context(operands=(), scalars=None, caller=""):
    """The last fields of a Tensor, from a file; files of older versions have none."""
    return tuple(Key(*key) for key in operands), dict(scalars or {}), caller


# --- arguments

def check_path(who, path):
    """Raise UserError for a path that is no text and no Path: a number would be taken for an open file."""
    if not isinstance(path, (str, os.PathLike)):
        fail(f"{who}: path", "the name of a file, such as 'trace.npz'", shown_kind(path))


def check_trace(who, tensors):
    """The tensors, a Trace or another list of Tensors. UserError for anything else, with what to do."""
    if type(tensors) in (Trace, list, tuple) and all(isinstance(t, Tensor) for t in tensors):
        return tensors
    advice = {str: "; Trace.load reads the file of one", os.PathLike: "; Trace.load reads the file of one",
              Tensor: "; put it into a list"}
    hint = next((text for kind, text in advice.items() if isinstance(tensors, kind)),
                "; record one with: with trace(model) as tensors")
    if isinstance(tensors, Rows) and not isinstance(tensors, Trace):
        hint = "; print_comparison prints what compare returned"
    fail(who, "a Trace", shown_kind(tensors) + hint)


def shown_kind(value):
    """A value in a message: texts and numbers as they are, all others by their kind, whose repr may be long."""
    if isinstance(value, (str, int, float, type(None))):
        return shown(value)
    kind = type(value).__name__
    if isinstance(value, (list, tuple)) and value:
        return f"a {kind} of {type(value[0]).__name__}" + (" and others" if len(value) > 1 else "")
    return f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {kind.strip('_')}"
