"""Every named intermediate of a forward and backward pass, recorded by the interpreter: the ops know nothing of it.

    NUMPYVIT_REFERENCE=1 python
    >>> with trace(model) as tensors:
    ...     logits, cache = model.forward(images)
    ...     model.backward(dlogits, cache)
    >>> print_trace(tensors)                     # where, op, name, shape, file:line, largest magnitude
    >>> tensors.save("a.npz"); compare(Trace.load("a.npz"), Trace.load("b.npz"))

Python reports every line that it is about to run (sys.settrace), and with it the local variables: what is bound to a
new array since the line before was computed by that line.
"""
import json
import os
import sys
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field

import numpy as np

from .. import functional as F
from ..errors import UserError
from ..module import Module
from .statements import statement

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEFINITIONS, KERNELS, MODELS = (os.path.join(PACKAGE, folder) + os.sep for folder in ("ops", "kernels", "models"))
LAYERS = (MODELS, os.path.join(PACKAGE, "layers.py"))


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


@dataclass
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


class Trace(list):
    """Tensors in the order in which they were computed."""

    def find(self, name, op="", module=""):
        """The tensors called name, of ops and modules whose names contain op and module."""
        return [t for t in self if t.key.name == name and op in t.key.op and module in t.key.module]

    def save(self, path):
        """Write an .npz that load reads, in this or another process."""
        about = [(*astuple(t.key), t.file, t.line, [*map(astuple, t.operands)], t.scalars, t.caller) for t in self]
        with open(path, "wb") as to:
            np.savez_compressed(to, about=np.array(json.dumps(about)), **{f"t{i}": t.array for i, t in enumerate(self)})

    @classmethod
    def load(cls, path):
        try:
            with np.load(path, allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
                return cls(Tensor(Key(*row[:5]), *row[5:7], arrays[f"t{i}"], *read_context(*row[7:]))
                           for i, row in enumerate(about))
        except (ValueError, KeyError, TypeError, EOFError) as error:
            raise UserError(f"{path}: not a file that Trace.save wrote ({error})") from None


def read_context(operands=(), scalars=None, caller=""):
    """The last fields of a Tensor, from a file; files of older versions have none."""
    return tuple(Key(*key) for key in operands), dict(scalars or {}), caller


@contextmanager
def trace(model=None, copy=True, boundary=False, layers=False):
    """Record what the ops of this thread compute inside the block. Yields a Trace, filled as the ops return.

    model: names the module of every tensor.   copy: False keeps references: less memory, but changes in place show.
    boundary: only the arguments and results of every op, of compiled kernels too: the one way to see those, and what
    compare() needs to hold two backends against each other. Results are called result, or result[0], result[1], …
    layers: the methods of layers.py and models/, too: residual sums, class tokens, positions, and every `.grad +=`.
    An array that is changed in place is recorded as it was bound and as it is when its name goes (rebound, or at the
    return); one that numpy.empty or zeros made only as it is in the end. Not inside a debugger, coverage or another
    trace(): they use the same hook. UserError where the kernels are compiled, unless boundary is set.
    """
    if not (F.REFERENCE or boundary):
        raise UserError("trace: the compiled kernels have no variables to record; set NUMPYVIT_REFERENCE=1 in the "
                        "environment before numpyvit is imported, or trace(boundary=True) for arguments and results")
    names = {id(module): name for name, module in model.modules()} if model else {}
    recorder = Recorder(names, copy, boundary, layers)
    before = sys.gettrace()
    sys.settrace(recorder.on_call)
    try:
        yield recorder.trace
    finally:
        sys.settrace(before)


class Recorder:
    """Gives every function that the trace is about a tracer of its own."""
    def __init__(self, modules, copy, boundary, layers):
        self.trace, self.modules, self.copy, self.boundary = Trace(), modules, copy, boundary
        self.folders = (DEFINITIONS, KERNELS) if boundary else (DEFINITIONS, *LAYERS) if layers else (DEFINITIONS,)
        self.calls = {}                                                      # (module, op) → calls so far

    def on_call(self, frame, event, _):
        """A function is entered: those of ops/ get a tracer of their own, all others none."""
        code = frame.f_code
        if not code.co_filename.startswith(self.folders) or code.co_name.startswith("<"):
            return None
        of_an_op = code.co_filename.startswith((DEFINITIONS, KERNELS))
        where = self.module_of(frame), code.co_name if of_an_op else code.co_qualname
        call = self.calls[where] = self.calls.get(where, -1) + 1
        return Call(self, frame, (*where, call)).on_event

    def module_of(self, frame):
        """The dotted name of the innermost module that is at work."""
        while frame and self.modules:
            owner = frame.f_locals.get("self") if frame.f_code.co_argcount else None
            if isinstance(owner, Module) and id(owner) in self.modules:
                return self.modules[id(owner)]
            frame = frame.f_back
        return ""


class Call:
    """One call of one op: which array every name is bound to."""

    def __init__(self, recorder, frame, where):
        self.recorder, self.where, self.line = recorder, where, frame.f_code.co_firstlineno
        self.path, self.file = frame.f_code.co_filename, relative(frame.f_code.co_filename)
        self.bound, self.bindings, self.arrays = {}, {}, {}
        back = frame.f_back
        self.caller = f"{back.f_code.co_qualname} {relative(back.f_code.co_filename)}:{back.f_lineno}" if back else ""
        self.look(frame)

    def on_event(self, frame, event, value):
        if not self.recorder.boundary:
            self.look(frame)
            self.look_at_gradient(frame)
        if event == "line":
            self.line = frame.f_lineno
        elif event == "return":
            self.finish(value)
        return self.on_event

    def look(self, frame):
        """What is bound to another array than before was bound by the line that has just run."""
        new = [(name, value) for name, value in frame.f_locals.items()
               if isinstance(value, np.ndarray) and self.arrays.get(name) is not value]
        if not new:
            return
        reads, _, fresh = statement(self.path, self.line)
        operands = tuple(self.bound[name].key for name in reads if name in self.bound)
        scalars = {name: value for name, value in frame.f_locals.items() if isinstance(value, (bool, int, float))}
        for name, value in new:
            self.close(name)
            kept = value.copy() if self.recorder.copy and not fresh else value
            self.arrays[name] = value
            self.bound[name] = self.add(name, kept, operands, scalars)

    def look_at_gradient(self, frame):
        """The gradient that the line has just added to."""
        reads, target, _ = statement(self.path, self.line)
        adds = target and target[-1] == "grad" and self.line != frame.f_lineno
        value = frame.f_locals.get(target[0]) if adds else None
        for attribute in target[1:] if value is not None else ():
            value = getattr(value, attribute, None)
        if isinstance(value, np.ndarray):
            operands = tuple(self.bound[name].key for name in reads if name in self.bound)
            self.add(".".join(target[1:]), value.copy() if self.recorder.copy else value, operands, {})

    def add(self, name, array, operands, scalars):
        binding = self.bindings[name] = self.bindings.get(name, -1) + 1
        tensor = Tensor(Key(*self.where, name, binding), self.file, self.line, array, operands, scalars, self.caller)
        self.recorder.trace.append(tensor)
        return tensor

    def close(self, name):
        """The name goes: what its array holds now, if that has changed since it was bound."""
        if not self.recorder.copy or name not in self.bound:
            return
        array, tensor = self.arrays[name], self.bound[name]
        if tensor.array is array:
            tensor.array = array.copy()
        elif not np.array_equal(tensor.array, array, equal_nan=array.dtype.kind == "f"):
            self.bound[name] = self.add(name, array.copy(), (tensor.key,), tensor.scalars)

    def finish(self, value):
        for name in self.bound:
            self.close(name)
        if self.recorder.boundary:
            results = value if isinstance(value, tuple) else (value,)
            for i, array in enumerate(results):
                if isinstance(array, np.ndarray):
                    key = Key(*self.where, f"result[{i}]" if isinstance(value, tuple) else "result", 0)
                    kept = array.copy() if self.recorder.copy else array
                    self.recorder.trace.append(Tensor(key, self.file, self.line, kept, caller=self.caller))


def relative(path):
    """A file's path, from the folder that holds the package."""
    return os.path.relpath(path, os.path.dirname(PACKAGE))


# --- two traces

@dataclass
class Difference:
    """shape: of both, or None where they differ.   difference: max |a − b|; NaN if only one has a NaN.
    magnitude: max |a|, to judge it by.   note: "", or why there is no number."""
    key: Key
    shape: tuple | None
    difference: float | None
    magnitude: float | None
    note: str = ""


def compare(a, b):
    """Tensor by tensor, in the order of a, then what only b has.   → [Difference]"""
    others = {t.key: t for t in b}
    rows = [difference(t, others.pop(t.key)) if t.key in others
            else Difference(t.key, t.shape, None, None, "only in the first") for t in a]
    return rows + [Difference(t.key, t.shape, None, None, "only in the second") for t in others.values()]


def difference(a, b):
    """Difference of two tensors."""
    if a.shape != b.shape:
        return Difference(a.key, None, None, None, f"{a.shape} and {b.shape}")
    x, y = (np.asarray(t.array, np.float64) for t in (a, b))
    with np.errstate(invalid="ignore"):                  # ∞ − ∞, and NaN, which are equal to themselves here
        gap = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0, np.abs(x - y))
    finite = np.abs(x[np.isfinite(x)])
    return Difference(a.key, a.shape, float(gap.max(initial=0)), float(finite.max(initial=0)))


def print_trace(trace, console=None):
    """A table of the tensors: module, op, name, shape, dtype, file:line, largest magnitude."""
    table = new_table("module", "op", "name", "shape", "dtype", "computed at", "max |x|")
    for t in trace:
        magnitude = difference(t, t).magnitude
        op = t.key.op + (f"[{t.key.call}]" if t.key.call else "")
        table.add_row(t.key.module, op, t.key.name + "′" * t.key.binding, "×".join(map(str, t.shape)) or "()",
                      str(t.array.dtype), f"{t.file}:{t.line}", f"{magnitude:.4g}")
    show(table, console)


def print_comparison(rows, console=None):
    """A table of what compare found, without what only one of the two has; that is counted."""
    both = [row for row in rows if not row.note.startswith("only")]
    table = new_table("tensor", "shape", "max |a − b|", "max |a|")
    for row in both:
        shape = row.note if row.shape is None else "×".join(map(str, row.shape)) or "()"
        numbers = ("-", "-") if row.difference is None else (f"{row.difference:.2e}", f"{row.magnitude:.4g}")
        table.add_row(str(row.key), shape, *numbers)
    if len(both) < len(rows):
        table.caption = f"{len(both)} tensors; {len(rows) - len(both)} more are in one of the two only"
    show(table, console)


def new_table(*columns):
    """An empty table, numbers to the right."""
    from rich import box
    from rich.table import Table
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column.startswith("max") else "left", no_wrap=True)
    return table


def show(table, console=None):
    """Print a table; where the output is no terminal, as wide as it needs."""
    from rich.console import Console
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, console.measure(table, options=console.options.update(width=1000)).maximum)
    console.print(table)
