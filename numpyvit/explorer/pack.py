"""A recording as bytes: the program as JSON, its steps with their witnesses, and the arrays from outside."""
import ast
import base64
import gzip
import json
import os
import zlib

import numpy as np

from ..ops import erf as erf_file
from .record import PACKAGE

SAMPLES = 5                                                                  # cells of a step that the page compares


def steps_of(recording):
    """[{node, id, name, module, op, phase, shape}] of every named node, in the order of computation.

    A name is the first that any line gave to the array. One that no line names is a part of a step's line.
    """
    tape, calls = recording.tape, recording.calls
    names, readers = {}, {}                                                  # reader: the first call that was handed it
    for call, line, name, node in recording.order:
        if tape.nodes[node].op == "full":                                    # zeros that the next lines fill
            continue
        argument = line == call.first and tape.nodes[node].call != call.number
        if argument and tape.nodes[node].op == "put":                        # an array that is being filled
            continue
        if argument:
            readers.setdefault(node, call)
        names.setdefault(node, f"{call.function.rpartition('.')[0] or call.function}({name})" if argument else name)
    for path, node in recording.gradients.items():
        names[node] = path.rpartition(".")[2] + ".grad"
    names |= {node: name for name, node in recording.named.items()}
    for path, node in recording.updated.items():
        names[node] = path.rpartition(".")[2] + ".new"
    for i, node in enumerate(tape.nodes):
        if node.op in ("leaf", "embedded"):
            names[i] = node.attrs["name"]
    steps, taken, modules = [], {}, module_of_nodes(recording)
    for i in sorted(names):
        node = tape.nodes[i]
        if 0 in node.shape:                                                  # the class token of a net without one
            continue
        call = calls[node.call] if node.call is not None else None
        op = node.attrs["kind"] if node.op == "leaf" else call.function if call else "input"
        step = {"node": i, "name": names[i], "module": modules[i], "op": op, "phase": call.phase if call else "forward"}
        if call is None and modules[i] == "optimizer":
            step |= {"phase": "update", "op": "clipping"}
        elif call is None and i == recording.named["dpixels"]:
            step["phase"] = "backward"
        elif call is None and i in readers and readers[i].phase == "update" and node.op != "leaf":
            reader = readers[i]                                              # Muon's matrices: views of the parameters
            step |= {"module": reader.module, "op": reader.function, "phase": reader.phase}
        key = f"{step['module'] or 'model'}/{step['op']}/{step['name']}"
        taken[key] = taken.get(key, 0) + 1
        step["id"] = key if taken[key] == 1 else f"{key}~{taken[key]}"
        steps.append(step)
    return steps


def module_of_nodes(recording):
    """The dotted module name of every node."""
    grads = {node: path.rpartition(".")[0] for path, node in [*recording.gradients.items(), *recording.updated.items()]}
    where = dict.fromkeys(("pixels", "images", "dpixels"), "image")
    where |= dict.fromkeys(("grad_squares", "grad_norm", "clip_scale"), "optimizer")
    fixed = {node: where[name] for name, node in recording.named.items() if name in where}
    modules = []
    for i, node in enumerate(recording.tape.nodes):
        module = recording.calls[node.call].module if node.call is not None else ""
        modules.append(grads.get(i, fixed.get(i, node.attrs.get("module") or module if node.op == "leaf" else module)))
    return modules


def witness(value):
    """What the page compares its values with: [finite cells, sum, sum of squares, largest magnitude, cells, samples]"""
    value = np.asarray(value, np.float64).ravel()
    finite = value[np.isfinite(value)]
    cells = sorted({int(k * 0.618034 * value.size) % value.size for k in range(1, SAMPLES + 1)}) if value.size else []
    samples = [float(value[c]) if np.isfinite(value[c]) else None for c in cells]
    largest = np.abs(finite).max(initial=0)
    return [finite.size, float(finite.sum()), float(np.square(finite).sum()), float(largest), cells, samples]


def program_of(recording, about):
    """The JSON-able program. about: what the page says about model, image and classes."""
    tape, steps = recording.tape, steps_of(recording)
    ops, shapes, files = [], [], []

    def number(of, item):
        if item not in of:
            of.append(item)
        return of.index(item)

    shape_numbers = {}

    def shape_number(shape):
        if shape not in shape_numbers:
            shape_numbers[shape] = len(shapes)
            shapes.append(list(map(int, shape)))
        return shape_numbers[shape]

    def or_minus_one(call):
        return -1 if call is None else call

    nodes = [[number(ops, n.op), n.args, n.attrs or 0, shape_number(n.shape), or_minus_one(n.call), n.line]
             for n in tape.nodes]
    calls = [{"parent": or_minus_one(c.parent), "file": number(files, c.file), "function": c.function, "first": c.first,
              "module": c.module, "phase": c.phase, "from": c.from_line, "bindings": c.bindings}
             for c in recording.calls]
    for step in steps:
        step["witness"] = witness(tape.value(step["node"]))
    return {"ops": ops, "shapes": shapes, "nodes": nodes, "calls": calls, "steps": steps,
            "files": [source(f) for f in files], "erf": {"small": erf_file.SMALL, "tail": erf_file.TAIL},
            "named": recording.named, "parameters": parameter_rows(recording), "derivations": derivations(),
            "about": about}


def parameter_rows(recording):
    """[[name, parameter node, gradient node, updated node or −1, states and text as in Recording], …]

    The updated node of a frozen parameter is the parameter node.
    """
    first = {}
    for i, node in enumerate(recording.tape.nodes):
        if node.op == "leaf" and node.attrs["kind"] == "parameter":
            first[".".join(filter(None, [node.attrs["module"], node.attrs["name"]]))] = i
    return [[name, first[name], node, recording.updated.get(name, -1), recording.states.get(name, []),
             recording.texts.get(name, "")]
            for name, node in recording.gradients.items()]


def source(file):
    """{path, text, functions: {qualified name: [first line, last line]}} of a file of the package."""
    with open(os.path.join(PACKAGE, file), encoding="utf-8") as opened:
        text = opened.read()
    functions = {}

    def visit(node, prefix):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                functions[prefix + child.name] = [child.lineno, child.end_lineno]
                visit(child, f"{prefix}{child.name}.")
    tree = ast.parse(text)
    visit(tree, "")
    statements = sorted({(n.lineno, n.end_lineno) for n in ast.walk(tree)
                         if isinstance(n, (ast.Assign, ast.AugAssign, ast.Return)) and n.end_lineno > n.lineno})
    return {"path": "numpyvit/" + file.replace(os.sep, "/"), "text": text, "functions": functions, "spans": statements}


def derivations():
    """{op: text} of ops/README.md: each heading's paragraph belongs to the ops that it links."""
    with open(os.path.join(PACKAGE, "ops", "README.md"), encoding="utf-8") as file:
        sections = file.read().split("\n### ")[1:]
    found = {}
    for section in sections:
        heading, _, text = section.partition("\n")
        for part in heading.split("[")[1:]:
            found[part.partition("]")[0]] = text.partition("\n## ")[0].strip()
    return found


# --- arrays

def keep_bits(array, bits):
    """float32 values rounded to so many significant bits (24 keeps all)."""
    words = np.ascontiguousarray(array, np.float32).view(np.uint32)
    drop = 24 - bits
    if drop <= 0:
        return words.view(np.float32)
    half = np.uint32(1 << (drop - 1))
    mask = np.uint32(0xFFFFFFFF << drop & 0xFFFFFFFF)
    rounded = np.where((words & 0x7F800000) == 0x7F800000, words, (words + half) & mask)
    return rounded.view(np.float32)


def on_grid(array, bits):
    """Values rounded to multiples of a power of two, at most 2^−bits of their root mean square (24 bits keep all)."""
    size = float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) if array.size else 0.0
    if bits >= 24 or not 0 < size < np.inf:
        return array
    step = 2.0 ** (np.floor(np.log2(size)) - bits)
    return (np.rint(np.float64(array) / step) * step + 0.0).astype(array.dtype)


def shortest(value):
    """(array, {scale, offset}): the same values in fewer bytes, value = (array − offset) · 2^scale.   value: float64

    Two bytes get an offset of 128: the high byte of most numbers is then 0, whatever their sign, and zips to nothing.
    """
    if value.size and np.isfinite(value).all():
        mantissa, exponent = np.frexp(value[value != 0])
        whole = (np.abs(mantissa) * 2**53).astype(np.int64)
        lowest = np.log2((whole & -whole).astype(np.float64)) + exponent - 53          # of the last bit that is set
        scale = int(lowest.min(initial=0))
        whole = value * 2.0**-scale if scale > -60 else np.full(1, np.inf)
        for kind, offset in ((np.uint8, 0), (np.int8, 0), (np.int16, 128)):
            if np.iinfo(kind).min <= whole.min() and whole.max() <= np.iinfo(kind).max - offset:
                return (whole + offset).astype(kind), {"scale": scale, "offset": offset}
    with np.errstate(over="ignore"):
        single = value.astype(np.float32)
    return (single if np.array_equal(single, value, equal_nan=True) else value), {}


def planes_of(array):
    """The bytes of an array: the first byte of every element, then the second, … Zip finds more in this order."""
    data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
    return np.frombuffer(data, np.uint8).reshape(-1, array.itemsize).T.tobytes()


def arrays_of(recording):
    """[{node or table, dtype, size, crc, scale, offset}] and the bytes of all of them."""
    rows, blobs = [], []

    def add(row, array):
        blobs.append(planes_of(array))
        rows.append(row | {"dtype": array.dtype.str[1:], "size": int(array.size), "crc": zlib.crc32(blobs[-1])})

    for i, node in enumerate(recording.tape.nodes):
        if node.op in ("leaf", "embedded"):
            array, how = shortest(np.asarray(recording.tape.value(i), np.float64))
            add({"node": i} | how, array)
    for i, table in enumerate(recording.tape.tables):
        add({"table": i}, table)
    return rows, b"".join(blobs)


def packed(data):
    """Bytes → base64 of gzip."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def to_json(value):
    """JSON as bytes, in as few as there can be."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
