""".npz files: a zip archive of .npy arrays, as Google's vision_transformer and big_vision publish their weights.

    an array:  "\\x93NUMPY" · version · length of the header · {'descr': …, 'fortran_order': …, 'shape': …} · data

numpy.load is not used: it allocates what a header claims before it looks at the size of the file, and knows no
bfloat16, which such files hold as pairs of bytes (dtype "|V2").
"""
import math
import re

import numpy as np

from .archive import flat_bytes, open_archive, write_archive
from .safetensors import widen_bfloat16

MAGIC = b"\x93NUMPY"
HEADER = re.compile(rb"\s*\{'descr': *'([<>|=]?[a-zA-Z]\d{1,2})', *'fortran_order': *(True|False), *"
                    rb"'shape': *\(([0-9, ]*)\),? *\}\s*")
MAX_HEADER = 4096                                                            # bytes
MAX_DIMS = 8
KINDS = "fiubV"


def read_npz(path):
    """An .npz file → {name: ndarray}, names without ".npy"; bfloat16 comes back as float32.

    Raises UserError, with the path, the place and the reason, for anything that is not a whole archive of plain
    arrays (arrays of Python objects are refused: reading them would run code). OSError if the file cannot be read.
    """
    tensors = {}
    with open_archive(path, "npz") as archive:
        for name in archive.members:
            if not name.endswith("/"):
                tensors[name.removesuffix(".npy")] = parse_npy(archive.read(name), name, archive.fail)
    return tensors


def parse_npy(data, name, fail):
    """The bytes of a .npy array → a view of them (bfloat16: a float32 array)."""
    length_bytes = 2 if data[6:7] == b"\1" else 4
    start = 8 + length_bytes + int.from_bytes(data[8:8 + length_bytes], "little")
    if data[:6] != MAGIC or data[6] not in (1, 2, 3) or not start <= min(len(data), MAX_HEADER):
        fail(f"{name[:80]!r} is not a .npy array")
    header = HEADER.fullmatch(data[8 + length_bytes:start])
    if not header:
        fail(f"{name[:80]!r} has a header of another form than that of a plain array")
    code, order = header[1].decode(), "F" if header[2] == b"True" else "C"
    try:
        dtype = np.dtype(code)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in KINDS or (dtype.kind == "V" and dtype.itemsize != 2):
        fail(f"{name[:80]!r} has dtype {code!r}; expected floats, integers, booleans or bfloat16 as '|V2'")
    shape = [int(n) for n in re.findall(rb"\d{1,19}", header[3])]
    count, there = math.prod(shape), len(data) - start
    if len(shape) > MAX_DIMS or max(shape, default=0) > len(data) or count * dtype.itemsize != there:
        fail(f"{name[:80]!r}: {code} {tuple(shape)} needs {count * dtype.itemsize} bytes, {there} are there")
    array = np.frombuffer(data, "<u2" if dtype.kind == "V" else dtype, count, start)
    if dtype.kind == "V":
        array = widen_bfloat16(array)
    return array.astype(array.dtype.newbyteorder("="), copy=False).reshape(shape, order=order)


def write_npz(path, tensors):
    """Write {name: ndarray} atomically, so that numpy.load reads the same arrays. Raises OSError if anything fails."""
    members = {}
    for name, array in tensors.items():
        array = np.asarray(array)
        code = array.dtype.newbyteorder("<").str
        shape = "".join(f"{n}, " for n in array.shape)
        shape = shape.rstrip() if array.ndim == 1 else shape[:-2]
        header = f"{{'descr': '{code}', 'fortran_order': False, 'shape': ({shape}), }}"
        header += " " * (-(10 + len(header) + 1) % 64) + "\n"
        prefix = MAGIC + b"\1\0" + len(header).to_bytes(2, "little") + header.encode()
        data = flat_bytes(array.astype(code, copy=False))
        members[f"{name}.npy"] = np.concatenate([np.frombuffer(prefix, np.uint8), data])
    write_archive(path, members)
