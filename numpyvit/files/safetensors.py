"""safetensors files, read and written with every claim of the header checked before a byte is allocated.

    8 bytes: length of the header · header: JSON {name: {dtype, shape, data_offsets}, "__metadata__": {str: str}} · data

The safetensors library reads what is written here and the other way round. It is not used, because it maps the file
(a file that shrinks meanwhile is then a crash) and copies it when it does not. On top of the format, files written
here carry a CRC-32 of header and data in their metadata, so that a flipped bit is an error and not another weight.
"""
import json
import math
import zlib

import numpy as np

from ..errors import UserError
from .atomic import open_regular, write_atomic

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
          "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}
NAMES = {np.dtype(code): name for name, code in DTYPES.items() if name != "BF16"}
MAX_HEADER = 1 << 21                                                         # bytes: some 20,000 tensors
MAX_DIMS = 8


def write_tensors(path, tensors, metadata):
    """Write {name: ndarray} and {str: str} atomically. Raises OSError, and leaves the old file, if anything fails."""
    write_atomic(path, tensor_buffers(tensors, metadata))


def tensor_buffers(tensors, metadata):
    """{name: ndarray} and {str: str} as the bytes of a file: [buffer, …]"""
    arrays = {name: np.asarray(array) for name, array in tensors.items()}
    arrays = {name: np.asarray(a, a.dtype.newbyteorder("<"), order="C") for name, a in arrays.items()}
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize))  # wide types first: all stay aligned
    header, start = {}, 0
    for name, array in arrays.items():
        header[name] = {"dtype": NAMES[array.dtype], "shape": list(array.shape),
                        "data_offsets": [start, start + array.nbytes]}
        start += array.nbytes
    crc = checksum({"__metadata__": metadata, **header}, arrays.values())
    text = json.dumps({"__metadata__": {**metadata, "crc32": crc}, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, *(flat_bytes(a) for a in arrays.values())]


def read_tensors(path, expect_checksum=False):
    """A safetensors file → ({name: ndarray}, {str: str} metadata); bfloat16 comes back as float32.

    Raises UserError, with the path, the place and the reason, for anything that is not a whole and consistent file:
    before memory is allocated for what the header claims, and in time proportional to the file's size. OSError if it
    cannot be read.
    """
    def fail(reason):
        raise UserError(f"{path}: not a usable safetensors file: {reason}")

    with open_regular(path) as (file, size):
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > size - 8:
            claims = f"the file has {size} bytes, its header claims {length} from byte 8"
            fail(claims if len(prefix) == 8 else f"only {size} bytes")
        if length > MAX_HEADER:
            fail(f"a header of {length} bytes, more than {MAX_HEADER}")
        header = parse_header(file.read(length), fail)
        metadata = check_metadata(header.pop("__metadata__", {}), fail)
        layout = check_layout(header, size - 8 - length, fail)
        data = np.empty(size - 8 - length, np.uint8)                         # not zeroed first, as a bytearray would be
        if file.readinto(data) != len(data):
            fail("it became shorter while it was read")
    tensors = {name: np.frombuffer(data, dtype, math.prod(shape), start).reshape(shape)
               for name, (dtype, shape, start) in layout.items()}
    crc = metadata.pop("crc32", None)
    if crc is None and expect_checksum:
        fail("no checksum: it was not written by numpyvit")
    if crc is not None and crc != checksum({"__metadata__": metadata, **header}, [data]):
        fail("its checksum does not fit its content, so some of it was changed after it was written")
    for name, entry in header.items():
        if entry["dtype"] == "BF16":
            tensors[name] = widen_bfloat16(tensors[name])
    return tensors, metadata


def widen_bfloat16(halves):
    """uint16 bit patterns → float32 values: a bfloat16 is the upper half of a float32."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def parse_header(text, fail):
    """The header as a dict; it has to be a JSON object in which no name occurs twice."""
    def object_of(pairs):
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a name occurs twice")
        return dict(pairs)

    try:
        header = json.loads(text.decode(), object_pairs_hook=object_of)
    except (ValueError, RecursionError) as error:                            # UnicodeDecodeError is a ValueError
        fail(f"the header is not JSON ({str(error)[:80]})")
    return header if isinstance(header, dict) else fail(f"the header is a {type(header).__name__}, not an object")


def check_metadata(metadata, fail):
    """The metadata, which have to be texts by name."""
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        fail("__metadata__ is not an object of strings")
    return metadata


def check_layout(header, num_bytes, fail):
    """{name: entry} → {name: (dtype, shape, start)}; the tensors have to cover the data without gap or overlap."""
    layout, spans = {}, []
    for name, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            fail(f"{name[:80]}: expected dtype, shape and data_offsets")
        code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(code, str) or code not in DTYPES:
            fail(f"{name[:80]}: unknown dtype {str(code)[:20]!r}")
        if not is_naturals(shape) or len(shape) > MAX_DIMS:
            fail(f"{name[:80]}: shape is not a list of at most {MAX_DIMS} natural numbers")
        if not is_naturals(offsets) or len(offsets) != 2:
            fail(f"{name[:80]}: data_offsets is not a pair of natural numbers")
        start, end = offsets
        nbytes = math.prod(shape) * np.dtype(DTYPES[code]).itemsize
        if not start <= end <= num_bytes or nbytes != end - start or max(shape, default=0) > num_bytes:
            fail(f"{name[:80]}: {code} {shape} needs {nbytes} bytes, data_offsets {offsets} of {num_bytes} bytes")
        layout[name] = DTYPES[code], tuple(shape), start
        spans.append((start, end))
    reached = 0
    for start, end in sorted(spans):
        if start != reached:
            fail(f"the tensors do not cover the data: expected one at byte {reached}, the next is at {start}")
        reached = end
    if reached != num_bytes:
        fail(f"{num_bytes} bytes of data, of which the tensors cover {reached}")
    return layout


def is_naturals(value):
    """Whether the value is a list of whole numbers from 0 up."""
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def checksum(header, buffers):
    """CRC-32 of the header and of all bytes behind it, in hexadecimal digits."""
    crc = zlib.crc32(json.dumps(header, sort_keys=True, separators=(",", ":")).encode())
    for buffer in buffers:
        crc = zlib.crc32(flat_bytes(buffer), crc)
    return f"{crc:08x}"


def flat_bytes(buffer):
    """The bytes of an array or buffer, without a copy."""
    return buffer.reshape(-1).view(np.uint8) if isinstance(buffer, np.ndarray) else buffer
