"""NumPy's functions for arrays on a tape: what each of them writes there."""
import numpy as np


def place(index, tape, region=False):
    """Which cells of an operand: an offset and a stride an axis where they are regular, else a table."""
    index = np.asarray(index)
    strides = [int(np.take(index, 1, axis).flat[0] - index.flat[0]) if n > 1 and index.size else 0
               for axis, n in enumerate(index.shape)]
    offset = int(index.flat[0]) if index.size else 0
    regular = np.full(index.shape, offset)
    for axis, stride in enumerate(strides):
        regular = regular + stride * np.arange(index.shape[axis]).reshape(-1, *[1] * (index.ndim - axis - 1))
    attrs = {"offset": offset, "strides": strides} if np.array_equal(regular, index) else {"table": tape.table(index)}
    return attrs | ({"region": list(index.shape)} if region else {})


def plain(x):
    """An array that is not on the tape, with the same memory; anything else as it is."""
    return x.view(np.ndarray) if isinstance(x, np.ndarray) else x


REDUCTIONS = {"add": ("sum", np.sum), "mean": ("mean", np.mean), "maximum": ("max", np.max), "minimum": ("min", np.min)}


def reduce_of(x, name, axis, keepdims):
    """Sum, mean, maximum or minimum over axes."""
    op, function = REDUCTIONS[name]
    axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    value = np.asarray(function(plain(x), axis=axis, keepdims=keepdims))
    return x.tape.result(op, [x.current()], {"axes": sorted(a % x.ndim for a in axes)}, value)


# --- functions of NumPy

def tape_of(*arrays):
    """The tape of the first array that is on one."""
    return next(x.tape for x in arrays if hasattr(x, "tape"))


def concatenate(arrays, axis=0, **_):
    """numpy.concatenate"""
    tape, values = tape_of(*arrays), [np.asarray(plain(a)) for a in arrays]
    attrs = {"axis": axis % values[0].ndim}
    return tape.result("concat", [tape.operand(a) for a in arrays], attrs, np.concatenate(values, axis))


def stack(arrays, axis=0, **_):
    """numpy.stack: a new axis each, then numpy.concatenate."""
    tape = tape_of(*arrays)
    return concatenate([tape.rearrange(a, lambda x: np.expand_dims(x, axis), "reshape") for a in arrays], axis)


def split(x, parts, axis=0):
    """numpy.split: a slice each."""
    count = len(np.split(plain(x), parts, axis))
    return [x.tape.rearrange(x, lambda a, i=i: np.split(a, parts, axis)[i], "slice") for i in range(count)]


def pad(x, widths, *_, **__):
    """numpy.pad with zeros: an array of zeros, x put into it."""
    value = np.pad(plain(x), widths)
    cells = np.arange(value.size).reshape(value.shape)
    befores = np.broadcast_to(widths, (x.ndim, 2))[:, 0]
    inside = cells[tuple(slice(before, before + n) for n, before in zip(x.shape, befores))]
    zeros, attrs = full(x.tape, np.zeros(value.shape), 0.0), place(inside, x.tape, region=True) | {"kind": "pad"}
    return x.tape.result("put", [zeros.number, x.current()], attrs, value)


def full(tape, value, number):
    """An array of one number."""
    return tape.result("full", [], {"value": number}, value)


def where(condition, a, b):
    """numpy.where with three arguments"""
    tape = tape_of(condition, a, b)
    operands = [tape.operand(x) for x in (condition, a, b)]
    return tape.result("where", operands, {}, np.where(plain(condition), plain(a), plain(b)))


def norm(x):
    """numpy.linalg.norm of all elements: the root of the sum of their squares."""
    return np.sqrt((x * x).sum())


def bincount(x, weights=None, minlength=0):
    """numpy.bincount of a table x, with weights that are on the tape."""
    value = np.bincount(x, weights=plain(weights), minlength=minlength)
    return weights.tape.result("bincount", [weights.current()], {"table": weights.tape.table(x)}, value)


def moved(name):
    """A function of NumPy that only moves or copies cells."""
    return lambda x, *args, **kwargs: x.tape.rearrange(x, lambda a: getattr(np, name)(a, *args, **kwargs), name)


MOVES = ("take", "repeat", "roll", "broadcast_to", "expand_dims", "moveaxis", "swapaxes", "transpose", "reshape",
         "ravel", "squeeze", "flip", "tile")
FUNCTIONS = {name: moved(name) for name in MOVES}
FUNCTIONS |= {"concatenate": concatenate, "stack": stack, "split": split, "pad": pad, "where": where,
              "bincount": bincount, "norm": norm,
              "shape": lambda x: x.shape, "ndim": lambda x: x.ndim, "size": lambda x: x.size,
              "may_share_memory": lambda a, b: np.may_share_memory(plain(a), plain(b)),
              "clip": lambda x, low, high, **_: x.clip(low, high),
              "zeros_like": lambda x, *_, **__: full(x.tape, np.zeros(x.shape), 0.0),
              "empty_like": lambda x, *_, **__: full(x.tape, np.zeros(x.shape), 0.0),
              "ones_like": lambda x, *_, **__: full(x.tape, np.ones(x.shape), 1.0),
              "copyto": lambda to, value, **_: to.__setitem__(..., value),
              "sum": lambda x, axis=None, keepdims=False, **_: x.sum(axis, keepdims),
              "mean": lambda x, axis=None, keepdims=False, **_: x.mean(axis, keepdims),
              "amax": lambda x, axis=None, keepdims=False, **_: x.max(axis, keepdims),
              "max": lambda x, axis=None, keepdims=False, **_: x.max(axis, keepdims)}
