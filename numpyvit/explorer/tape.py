"""Arrays that remember how they were computed: every NumPy operation on them is written on a tape, with its operands.

The definitions of ops/ and the methods of layers.py and models/ run unchanged on such arrays (arrays.py). The tape is
then a program of some forty primitives, and each of its nodes knows the source line that it came from.

    view, gather   reshape, transpose, slices, take, repeat, …: each result cell is a copy of one operand cell
    put            an assignment to a part of an array, as a new array: forward in place, functional on the tape
    ufuncs         add, multiply, exp, matmul, … with NumPy's broadcasting
    const, sum, mean, max, min, concat, where, bincount, full, erf
    leaf           given from outside: a parameter, a buffer, the image, a table that the model made when it was built
    embedded       the result of any other NumPy function: its values are kept, and the page names the function
"""
import numpy as np

from .arrays import Traced
from .functions import place, plain

UNARY = {"negative", "exp", "log", "sqrt", "tanh", "absolute", "square", "reciprocal", "sin", "cos", "positive"}
BINARY = {"add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "greater", "greater_equal", "less",
          "less_equal", "equal", "not_equal", "copysign", "matmul"}
UFUNCS = UNARY | BINARY


class Node:
    """One result: the primitive, its operands (numbers of nodes), attributes, shape, and the call and line of it."""

    def __init__(self, op, args, attrs, shape, call, line):
        self.op, self.args, self.attrs, self.shape, self.call, self.line = op, args, attrs, shape, call, line


class Tape:
    """The nodes in the order of their computation, and the float64 value of every one that is no mere view."""

    def __init__(self, where=lambda: (None, 0)):
        self.nodes, self.values, self.where = [], {}, where
        self.constants, self.known, self.tables, self.table_numbers = {}, {}, [], {}

    def node(self, op, args, attrs, value):
        self.nodes.append(Node(op, args, attrs, value.shape, *self.where()))
        number = len(self.nodes) - 1
        if op != "view":
            self.values[number] = value
        return number

    def traced(self, value, number, parent=None, index=None):
        """value as the array of a node; parent and index: the array it is a view of, and which of its cells."""
        array = value.view(Traced)
        array.tape, array.number = self, number
        array.parent, array.index, array.seen = parent, index, parent.number if parent is not None else None
        return array

    def leaf(self, value, name, module="", kind="parameter"):
        """An array given from outside, as float64."""
        value = np.array(value, dtype=np.float64)
        return self.traced(value, self.node("leaf", [], {"name": name, "module": module, "kind": kind}, value.copy()))

    def operand(self, x):
        """The number of the node that x is. A plain array that no line computed is a table: it becomes a leaf."""
        if isinstance(x, Traced):
            if x.number is None:
                raise NotImplementedError("a NumPy method that the recording does not know made this array")
            return x.current()
        value = np.asarray(x)
        if value.ndim == 0:
            key = ("number", float(value))
            if key not in self.constants:
                self.constants[key] = self.node("const", [], {"value": float(value)}, np.asarray(float(value)))
            return self.constants[key]
        value = value.astype(np.float64)
        key = (value.shape, value.tobytes())
        if key not in self.constants:
            module, name = self.known.get(id(x), ("", "table"))
            self.constants[key] = self.node("leaf", [], {"name": name, "module": module, "kind": "table"}, value)
        return self.constants[key]

    def table(self, index):
        """The number of an integer table of cells."""
        index = np.ascontiguousarray(index, dtype=np.int32)
        key = index.tobytes()
        if key not in self.table_numbers:
            self.table_numbers[key] = len(self.tables)
            self.tables.append(index.ravel())
        return self.table_numbers[key]

    def value(self, number):
        """The float64 array of a node, as it was when it was computed."""
        if number in self.values:
            return self.values[number]
        node = self.nodes[number]
        source = np.ascontiguousarray(self.value(node.args[0])).ravel()
        offset, strides = node.attrs["offset"], node.attrs["strides"]
        index = np.full(node.shape, offset)
        for axis, stride in enumerate(strides):
            index = index + stride * np.arange(node.shape[axis]).reshape(-1, *[1] * (len(strides) - axis - 1))
        return source[index.astype(np.int64)].reshape(node.shape)

    def result(self, op, args, attrs, value):
        value = np.asarray(value)
        return self.traced(value, self.node(op, args, attrs, value))

    def ufunc(self, ufunc, inputs, out, kwargs):
        name = ufunc.__name__
        args = [self.operand(x) for x in inputs]
        value = np.asarray(ufunc(*map(plain, inputs), **kwargs))
        if name not in UFUNCS or kwargs:
            name, args, attrs = "embedded", [], {"name": f"numpy.{ufunc.__name__}"}
        else:
            attrs = {}
        if out is None:
            return self.result(name, args, attrs, value)
        self.keep(out)
        plain(out)[...] = value
        self.assign(out, self.node(name, args, attrs, value))
        return out

    def keep(self, array):
        """Before array is changed in place: keep the values that its memory holds now for the nodes they are of."""
        while array is not None:
            number = array.current()
            if number in self.values:
                self.values[number] = self.values[number].copy()
            array = array.parent

    def assign(self, array, number):
        """array has a new value: so has every array that it is a view of."""
        array.number = number
        if array.parent is not None:
            parent = array.parent
            attrs = place(array.index, self, region=True)
            value = plain(parent).copy()
            self.assign(parent, self.node("put", [parent.current(), number], attrs, value))
            array.seen = parent.number

    def rearrange(self, x, function, kind):
        """A function that only moves or copies cells, found out by what it does to their numbers."""
        cells = np.arange(x.size).reshape(x.shape)
        index = function(cells)
        value = np.asarray(function(plain(x)))
        attrs = place(index, self) | {"kind": kind}
        number = self.node("view" if "strides" in attrs else "gather", [x.current()], attrs, value)
        shares = value.size and np.may_share_memory(value, plain(x))
        return self.traced(value, number, x if shares else None, index if shares else None)
