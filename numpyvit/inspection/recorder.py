"""The interpreter's hook of trace(): which functions are recorded, and what a line of theirs has bound."""
import os
import sys
import threading

import numpy as np

from ..module import Module
from .statements import statement
from .tensors import Key, Tensor, Trace

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEFINITIONS, KERNELS, MODELS = (os.path.join(PACKAGE, folder) + os.sep for folder in ("ops", "kernels", "models"))
LAYERS = (MODELS, os.path.join(PACKAGE, "layers.py"))


class Hook(threading.local):
    """The one hook of this thread, for all recorders that are at work: traces may lie inside each other, or overlap."""

    def __init__(self):
        self.recorders, self.before = [], None

    def add(self, recorder):
        """From now on, tell the recorder of every call."""
        if not self.recorders:
            self.before = sys.gettrace()
        self.recorders.append(recorder)
        sys.settrace(self.on_call)

    def remove(self, recorder):
        """No longer; after the last one the hook is what it was."""
        self.recorders.remove(recorder)
        sys.settrace(self.on_call if self.recorders else self.before)

    def on_call(self, frame, event, _):
        """A function is entered: its lines are traced if a recorder asks for them."""
        calls = [call for call in (recorder.enter(frame) for recorder in self.recorders) if call]

        def on_event(frame, event, value):
            for call in calls:
                call.on_event(frame, event, value)
            return on_event
        return on_event if calls else None


HOOK = Hook()


class Recorder:
    """Fills one Trace: every function that the trace is about becomes a Call."""
    def __init__(self, modules, copy, boundary, layers):
        self.trace, self.modules, self.copy, self.boundary = Trace(), modules, copy, boundary
        self.folders = (DEFINITIONS, KERNELS) if boundary else (DEFINITIONS, *LAYERS) if layers else (DEFINITIONS,)
        self.calls = {}                                                      # (module, op) → calls so far

    def enter(self, frame):
        """A function is entered. → its Call, or None for a function that the trace is not about"""
        code = frame.f_code
        if not code.co_filename.startswith(self.folders) or code.co_name.startswith("<"):
            return None
        of_an_op = code.co_filename.startswith((DEFINITIONS, KERNELS))
        where = self.module_of(frame), code.co_name if of_an_op else code.co_qualname
        call = self.calls[where] = self.calls.get(where, -1) + 1
        return Call(self, frame, (*where, call))

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
