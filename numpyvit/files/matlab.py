"""Arrays from a MATLAB 5 file, without SciPy: real numbers, compressed or not, by name.

The format is MathWorks' "MAT-File Format", chapter 1. After a header of 128 bytes a file is a row of elements: a kind
and a size of four bytes each, then the data. A compressed element holds another element. A matrix holds four: flags,
dimensions, name and numbers; an element of at most four bytes may have its size in the upper half of its kind. No code
is executed, and an element is unpacked only up to the size that is expected of it.
"""
import math
import struct
import zlib

import numpy as np

from ..errors import UserError

INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15
NUMBERS = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
OVERHEAD = 4096                                                              # bytes of an element beside its numbers
NUMERIC = range(6, 16)                                                       # classes of arrays: double … uint64
COMPLEX = 0x0800


def read_mat(file, path, limits):
    """The arrays of an open file.   limits: {name: largest number of bytes}, of the arrays that are wanted

    → {name: array with MATLAB's axes}, in the type that the numbers are stored in
    Raises UserError for another format, for a damaged file, and for an array that is missing or larger than its limit.
    """
    try:
        header = file.read(128)
        if len(header) < 128 or header[124:128] != b"\x00\x01IM":
            raise ValueError("expected a MATLAB 5 file in little-endian order")
        arrays = {}
        while tag := file.read(8):
            kind, size = struct.unpack("<II", tag)
            data = file.read(min(size, max(limits.values()) + OVERHEAD))
            if len(data) != size:
                raise ValueError(f"an element of {size:,} bytes is truncated or too large")
            if kind == COMPRESSED:
                (kind, size), data = unpack(data, max(limits.values()) + OVERHEAD)
            if kind != MATRIX or size > len(data):
                raise ValueError(f"expected an array, got an element of kind {kind} and {size:,} bytes")
            name, array = matrix(memoryview(data)[:size])
            if name in limits and array.nbytes <= limits[name]:
                arrays[name] = array
    except (ValueError, struct.error, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable .mat file ({error})") from error
    if missing := sorted(limits.keys() - arrays.keys()):
        raise UserError(f"{path}: the array {missing[0]} is missing or too large")
    return arrays


def unpack(data, limit):
    """A compressed element, of at most limit bytes.   → (kind, size), data"""
    stream = zlib.decompressobj()
    data = stream.decompress(data, limit)
    if not stream.eof:
        raise ValueError(f"a compressed element is truncated, or larger than {limit:,} bytes")
    return struct.unpack_from("<II", data), memoryview(data)[8:]


def matrix(data):
    """An array's four elements.   → name, array"""
    flags, at = element(data, 0, UINT32)
    dimensions, at = element(data, at, INT32)
    name, at = element(data, at, INT8)
    (flags,) = struct.unpack_from("<I", flags)
    if flags & 0xFF not in NUMERIC or flags & COMPLEX:
        raise ValueError("expected an array of real numbers")
    shape = np.frombuffer(dimensions, "<i4").tolist()
    numbers, _ = element(data, at, *NUMBERS)
    (kind,) = struct.unpack_from("<H", data, at)
    dtype = np.dtype(NUMBERS[kind])
    if min(shape, default=-1) < 0 or math.prod(shape) * dtype.itemsize != len(numbers):
        raise ValueError(f"an array of {shape} has {len(numbers):,} bytes")
    return bytes(name).decode("ascii"), np.frombuffer(numbers, dtype).reshape(shape, order="F")


def element(data, at, *kinds):
    """The data of the element at a place, which has to be of one of these kinds.   → data, place of the next element"""
    kind, size = struct.unpack_from("<II", data, at)
    short = kind >> 16
    start, size, kind = (at + 4, short, kind & 0xFFFF) if short else (at + 8, size, kind)
    if kind not in kinds or (short > 4) or start + size > len(data):
        raise ValueError(f"an element of kind {kind} and {size:,} bytes where another was expected")
    return data[start:start + size], at + 8 if short else start + -(-size // 8) * 8
