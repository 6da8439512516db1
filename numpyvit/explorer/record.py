"""One forward and one backward pass on the tape, with the calls that made every node and the names of the results.

The model runs in float64 with the definitions of ops/ in the place of the kernels. Python reports every line of ops/,
models/ and layers.py (sys.settrace): a name that is bound to a new array makes that array a step, and the call tree
says who asked for it.
"""
import importlib
import os
import pkgutil
import re
import sys
from contextlib import contextmanager

import numpy as np

from .. import functional as F
from ..module import Module
from .arrays import Traced
from .tape import Tape

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
WATCHED = tuple(PACKAGE + part for part in ("ops" + os.sep, "models" + os.sep, "layers.py"))
NEW_ARRAYS = {"zeros": 0.0, "empty": 0.0, "ones": 1.0}


class Call:
    """A call of a function of the package: its caller, its module, and the names it bound: (line, name, node)."""

    def __init__(self, number, parent, frame, module, phase, order):
        code = frame.f_code
        self.number, self.parent, self.module, self.phase = number, parent, module, phase
        self.file, self.function, self.first = code.co_filename[len(PACKAGE):], code.co_qualname, code.co_firstlineno
        self.line, self.bound, self.bindings, self.order = frame.f_lineno, {}, [], order
        self.from_line = frame.f_back.f_lineno if frame.f_back else 0

    def look(self, frame):
        """What is bound to another array than before was bound by the line that has just run."""
        for name, value in frame.f_locals.items():
            if isinstance(value, Traced) and value.number is not None:
                before = self.bound.get(name)
                if before is None or before[0] is not value:
                    self.close(name)
                    self.bound[name] = value, value.current(), self.line
                    self.bind(name, value.number)

    def bind(self, name, node):
        self.bindings.append((self.line, name, node))
        self.order.append((self, self.line, name, node))

    def close(self, name):
        """The name goes: if its array was changed in place meanwhile, the last values are a binding of their own."""
        if name in self.bound:
            array, number, _ = self.bound[name]
            if array.number != number and array.parent is None:
                self.bind(name, array.number)


class Recorder:
    """Follows one pass. calls: every Call;   tape: every node."""

    def __init__(self, model):
        self.tape = Tape(self.where)
        self.names = {id(module): name for name, module in model.modules()}
        self.calls, self.order, self.of_frame, self.phase, self.module = [], [], {}, "forward", ""

    def where(self):
        """(call, line) of the statement of the package that is at work."""
        frame = sys._getframe(2)
        while frame:
            call = self.of_frame.get(id(frame))
            if call is not None:
                return call, frame.f_lineno
            frame = frame.f_back
        return None, 0

    def on_call(self, frame, event, _):
        code = frame.f_code
        if not code.co_filename.startswith(WATCHED) or code.co_name.startswith("<"):
            return None
        parent, back = None, frame.f_back
        while back and parent is None:
            parent, back = self.of_frame.get(id(back)), back.f_back
        owner = frame.f_locals.get("self")
        module = self.names.get(id(owner)) if isinstance(owner, Module) else None
        if module is None:
            module = self.calls[parent].module if parent is not None else self.module
        call = Call(len(self.calls), parent, frame, module, self.phase, self.order)
        self.calls.append(call)
        self.of_frame[id(frame)] = call.number
        call.look(frame)

        def on_event(frame, event, _):
            call.look(frame)
            if event == "line":
                call.line = frame.f_lineno
            elif event == "return":
                for name in call.bound:
                    call.close(name)
                self.of_frame.pop(id(frame), None)
            return on_event
        return on_event

    @contextmanager
    def recording(self):
        before = sys.gettrace()
        sys.settrace(self.on_call)
        try:
            with definitions(self.tape):
                yield
        finally:
            sys.settrace(before)


class RecordedNumpy:
    """numpy, but asarray keeps an array on the tape there, and new arrays are on the tape from the start."""

    def __init__(self, tape):
        self.tape = tape

    def __getattr__(self, name):
        function = getattr(np, name)
        if name in ("asarray", "asanyarray", "ascontiguousarray", "array"):
            return lambda x, *args, **kwargs: x if isinstance(x, Traced) else function(x, *args, **kwargs)
        if name in NEW_ARRAYS:
            def new(shape, dtype=float, **_):
                value = function(shape, dtype)
                if value.dtype.kind != "f":
                    return value
                return self.tape.result("full", [], {"value": NEW_ARRAYS[name]}, np.full(value.shape, NEW_ARRAYS[name]))
            return new
        return function


@contextmanager
def definitions(tape=None):
    """Inside, F has the definitions of ops/ only; with a tape, the models compute on it."""
    from .. import models, ops
    for package in (ops, models):
        for info in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{info.name}")
    computing = re.compile(rf"{F.__package__}\.(\w+|(ops|models)\.\w+)")
    modules = [module for name, module in list(sys.modules.items()) if computing.fullmatch(name)]
    replaced = []

    def replace(owner, name, value):
        replaced.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    try:
        for name, function in list(vars(F).items()):
            file = getattr(function, "__module__", "") or ""
            if callable(function) and file.startswith(f"{F.__package__}.kernels."):
                replace(F, name, getattr(importlib.import_module(file.replace(".kernels.", ".ops.")), name))
        recorded = RecordedNumpy(tape)
        for file in modules if tape else ():
            if getattr(file, "np", None) is np:
                replace(file, "np", recorded)
            if callable(getattr(file, "erf", None)) and not file.__name__.endswith(".erf"):
                replace(file, "erf", erf_on_tape(file.erf))
        yield
    finally:
        for owner, name, value in reversed(replaced):
            setattr(owner, name, value)


def erf_on_tape(erf):
    """The error function is one primitive: the page computes the same two series with the same coefficients."""
    def recorded(x):
        if not isinstance(x, Traced):
            return erf(x)
        return x.tape.result("erf", [x.current()], {}, erf(np.asarray(x).view(np.ndarray)))
    return recorded


def float64_twin(model):
    """A float64 model with the same weights, whose arrays nobody else has."""
    twin = type(model)(model.config, dtype="float64")
    twin.load_state_dict(model.state_dict())
    return twin


def put_on_tape(tape, model):
    """Parameters, gradients, buffers and tables of the model, on the tape. → {name: gradient}, {name: parameter}"""
    gradients, parameters = {}, {}
    for name, p in model.named_parameters():
        module, _, own = name.rpartition(".")
        parameters[name] = tape.leaf(p.data, own, module)
        gradients[name] = tape.result("full", [], {"value": 0.0}, np.zeros(p.shape))
        p.attach(parameters[name], gradients[name])
    for path, module in model.modules():
        buffers = getattr(module, "buffers", ())
        for name, value in list(vars(module).items()):
            if isinstance(value, Traced) or module is model or not isinstance(value, np.ndarray):
                continue
            if value.dtype.kind == "f":
                setattr(module, name, tape.leaf(value, name, path, "buffer" if name in buffers else "table"))
            else:
                tape.known[id(value)] = path, name
    if isinstance(getattr(model, "fixed_positions", None), np.ndarray):
        model.fixed_positions = tape.leaf(model.fixed_positions, "fixed_positions", "", "table")
    return gradients, parameters


class Recording:
    """What record() found: tape, calls, model; order: every (call, line, name, node), in time;
    named: {pixels, target, images, logits, loss, dlogits, dimages, dpixels: node}, and where an optimiser clips
    {grad_squares, grad_norm, clip_scale: node};
    gradients: {name of a parameter: node}; updated: {name: node of the parameter after a step of the optimiser};
    states: {name: [(what the optimiser remembers, node)]}; texts: {name: which step the optimiser takes of it}."""


def record(model, pixels, label, mean, std, train=False, rng=None, optimizer=None):
    """Run model forward and backward on images whose pixels are 0 to 255, against a label. → Recording

    model: any model of numpyvit; it is not changed.   pixels (B, C, H, W)   label (B,) integers
    mean, std (C,): images = (pixels / 255 − mean) / std
    train: batch norm over these images, dropout with rng; else as in evaluation.
    optimizer: None, or an UpdateStep.
    """
    model = float64_twin(model)
    model.zero_grad()
    recorder = Recorder(model)
    tape, r = recorder.tape, Recording()
    gradients, parameters = put_on_tape(tape, model)
    shape = (-1, 1, 1)
    image = tape.leaf(pixels, "pixels", "image", "image")
    target = tape.leaf(np.eye(model.config.num_classes)[np.asarray(label)], "target", "loss", "target")
    mean, std = (tape.leaf(np.reshape(x, shape), name, "image", "table") for x, name in ((mean, "mean"), (std, "std")))
    images = (image / 255.0 - mean) / std
    with recorder.recording():
        logits, cache = model.forward(images, train, rng)
        recorder.module = "loss"
        loss, loss_cache = F.cross_entropy_forward(logits, target)
        recorder.phase = "backward"
        dlogits = F.cross_entropy_backward(1.0, loss_cache)
        recorder.module = ""
        dimages = model.backward(dlogits, cache)
        dpixels = dimages / (std * 255.0)
        r.updated, r.states, r.texts, clipping = {}, {}, {}, {}
        if optimizer:
            recorder.phase = "update"
            for name, gradient in gradients.items():
                recorder.module = name.rpartition(".")[0]
                r.updated[name] = optimizer(name, parameters[name], gradient, gradients, tape)
            r.states, r.texts, clipping = optimizer.states, optimizer.texts, optimizer.clipping
    r.tape, r.calls, r.order, r.model = tape, recorder.calls, recorder.order, model
    named = dict(pixels=image, target=target, images=images, logits=logits, loss=loss, dlogits=dlogits, dimages=dimages,
                 dpixels=dpixels, **clipping)
    r.named = {name: array.current() for name, array in named.items()}
    r.gradients = {name: g.current() for name, g in gradients.items()}
    return r
