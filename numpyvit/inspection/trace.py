"""Every named intermediate of a forward and backward pass, recorded by the interpreter: the ops know nothing of it.

    NUMPYVIT_REFERENCE=1 python
    >>> with trace(model) as tensors:
    ...     logits, cache = model.forward(images)
    ...     model.backward(dlogits, cache)
    >>> tensors                                  # a Trace: how much there is, its first and its last tensors
    >>> tensors.show()                           # all: where, op, name, shape, file:line, largest magnitude
    >>> tensors.save("a.npz"); compare(Trace.load("a.npz"), Trace.load("b.npz"))

Python reports every line that it is about to run (sys.settrace), and with it the local variables: what is bound to a
new array since the line before was computed by that line.
"""
from contextlib import contextmanager

from .. import functional as F
from ..checks import fail
from ..errors import UserError
from ..module import Module
from .compare import Comparison, Difference, compare, difference             # noqa: F401, offered from here
from .recorder import HOOK, Recorder
from .tables import print_comparison, print_trace                            # noqa: F401, offered from here
from .tensors import Key, Tensor, Trace, shown_kind                          # noqa: F401, offered from here


def trace(model=None, copy=True, boundary=False, layers=False):
    """Record what the ops of this thread compute inside a with block. Yields a Trace, filled as the ops return.

    model: names the module of every tensor.   copy: False keeps references: less memory, but changes in place show.
    boundary: only the arguments and results of every op, of compiled kernels too: the one way to see those, and what
    compare() needs to hold two backends against each other. Results are called result, or result[0], result[1], …
    layers: the methods of layers.py and models/, too: residual sums, class tokens, positions, and every `.grad +=`.
    An array that is changed in place is recorded twice: when a name is bound to it, and when that name is bound anew or
    the function returns. An array of numpy.empty or zeros is recorded the second time only. A trace() inside another
    one is recorded by both. Not inside a debugger or coverage: they use the same hook.
    Raises UserError for arguments of another kind, and where the kernels are compiled, unless boundary is set.
    """
    if not isinstance(model, Module | None):
        fail("trace: model", "a model, such as create_model('vit_nano_patch4_32'), or nothing", shown_kind(model))
    for name, value in (("copy", copy), ("boundary", boundary), ("layers", layers)):
        if not isinstance(value, bool):
            fail(f"trace: {name}", "True or False", f"{shown_kind(value)}; trace(model) runs nothing itself: call "
                 "model.forward(images) inside the with block")
    if boundary and layers:
        fail("trace", "boundary or layers", "both; boundary records arguments and results of ops alone")
    if not (F.REFERENCE or boundary):
        raise UserError("trace: the compiled kernels have no variables to record; set NUMPYVIT_REFERENCE=1 in the "
                        "environment before numpyvit is imported, or trace(boundary=True) for arguments and results")
    names = {id(module): name for name, module in model.modules()} if model is not None else {}
    return recording(Recorder(names, copy, boundary, layers))


@contextmanager
def recording(recorder):
    """Inside the block, the recorder sees every call of this thread."""
    HOOK.add(recorder)
    try:
        yield recorder.trace
    finally:
        HOOK.remove(recorder)
