"""torch's files (.pth, .pt, .bin), read without torch and without running code; what is written here torch.load reads.

    since torch 1.6   a zip archive:  NAME/data.pkl, the pickle · NAME/data/KEY, the numbers of one storage each
    before            pickles in a row:  magic number · version · sizes · the value · keys;  then the storages

A file may hold a whole training run, {"model": {name: tensor}, "optimizer": …}. What counts as the weights is
searched for in UNWRAP's order and said in a sentence; only the storages of these tensors are read.
"""
import io
import math

import numpy as np

from ..errors import UserError
from .archive import flat_bytes, open_archive, write_archive
from .atomic import open_regular
from .safetensors import widen_bfloat16
from .state_pickle import MAX_BYTES, STORAGES, TensorRef, read_pickle

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
MAX_DIMS = 8
# the running average of the weights comes first, as in timm: it is what was to be evaluated
UNWRAP = ("state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict", "model", "module", "net")
PREFIXES = ("module.", "_orig_mod.", "model.")                               # of torch's wrappers around a model


def read_pth(path):
    """A torch file → ({name: ndarray}, [what was unwrapped, in sentences]); bfloat16 comes back as float32.

    Raises UserError, with the path, the place and the reason, for anything that is not a whole file of plain tensors;
    a pickle that calls anything that weights do not need is refused by the name of that call. OSError if the file
    cannot be read.
    """
    with open_regular(path) as (file, size):
        is_zip = file.read(4) == b"PK\3\4"
        return read_zip(path) if is_zip else read_legacy(path, file, size)


def read_zip(path):
    """What extract returns, from the archive that torch.save has written since version 1.6."""
    with open_archive(path, "torch") as archive:
        pickles = [name for name in archive.members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1 or archive.members[pickles[0]].size > MAX_BYTES:
            archive.fail(f"expected one data.pkl of at most {MAX_BYTES} bytes in the archive, found {len(pickles)}")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.members and archive.read(f"{root}byteorder") != b"little":
            archive.fail("its numbers are big-endian")
        value = read_pickle(io.BytesIO(archive.read(pickles[0])), archive.fail)

        def read_storage(storage):
            name = f"{root}data/{storage.key}"
            if name not in archive.members:
                archive.fail(f"its pickle speaks of the storage {storage.key[:40]!r}, which is not in the archive")
            return archive.read(name)
        return extract(value, read_storage, archive.fail)


def read_legacy(path, file, size):
    """What extract returns, from the row of pickles that torch.save wrote before version 1.6."""
    def fail(reason):
        raise UserError(f"{path}: not a usable torch file: {reason}")

    file.seek(0)
    head = io.BytesIO(file.read(min(size, MAX_BYTES)))
    if head.getbuffer()[:1] != b"\x80":
        fail("it begins neither like a zip archive nor like a pickle")
    magic, protocol, _, value, keys = (read_pickle(head, fail) for _ in range(5))
    if magic != MAGIC or protocol != PROTOCOL:
        fail("a pickle, but none that torch wrote")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
        fail("no list of its storages")
    places = find_storages(value, keys, head.tell(), file, size, fail)

    def read_storage(storage):
        if storage.key not in places:
            fail(f"its pickle speaks of the storage {storage.key[:40]!r}, which is not in the file")
        start, nbytes = places[storage.key]
        file.seek(start)
        data = bytearray(nbytes)
        return data if file.readinto(data) == nbytes else fail("it became shorter while it was read")
    return extract(value, read_storage, fail)


def find_storages(value, keys, at, file, size, fail):
    """{key: (start, bytes)} of the storages that follow the pickles, each behind its count of numbers."""
    dtypes, stack, seen, places = {}, [value], set(), {}
    while stack:                                                             # a pickle can nest and share as it likes
        item = stack.pop()
        if isinstance(item, TensorRef):
            dtypes[item.storage.key] = item.storage.dtype
        elif isinstance(item, (dict, list, tuple)) and id(item) not in seen:
            seen.add(id(item))
            stack.extend(item.values() if isinstance(item, dict) else item)
    for key in keys:
        file.seek(at)
        count = int.from_bytes(file.read(8), "little")
        if key not in dtypes:
            fail(f"the storage {key[:40]!r} belongs to no tensor")
        nbytes = count * itemsize(dtypes[key])
        if at + 8 + nbytes > size:
            fail(f"the storage {key[:40]!r} claims {nbytes} bytes from byte {at + 8} of {size}")
        places[key] = at + 8, nbytes
        at += 8 + nbytes
    return places


# --- from the pickle's value to arrays

def extract(value, read_storage, fail):
    """The value of the pickle, read_storage(Storage) → bytes   →   {name: ndarray}, sentences"""
    references, sentences = unwrap(value, fail)
    arrays, used = {}, {}
    for name, tensor in references.items():
        check_tensor(name, tensor, fail)
        if used.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
            fail(f"the storage {tensor.storage.key[:40]!r} is said to be of two kinds")
    for key, storage in used.items():
        data = read_storage(storage)
        if len(data) != storage.count * itemsize(storage.dtype):
            fail(f"the storage {key[:40]!r} has {len(data)} bytes, expected {storage.count} numbers of {storage.dtype}")
        halves = storage.dtype == "bfloat16"
        arrays[key] = widen_bfloat16(np.frombuffer(data, "<u2")) if halves else np.frombuffer(data, storage.dtype)
    tensors = {}
    for name, (storage, offset, shape, strides) in references.items():
        array = arrays[storage.key]
        if 0 in shape:
            tensors[name] = np.empty(shape, array.dtype)
        else:
            steps = tuple(step * array.itemsize for step in strides)
            tensors[name] = np.ndarray(shape, array.dtype, array, offset * array.itemsize, steps)
    return tensors, sentences


def check_tensor(name, tensor, fail):
    """Refuse a tensor that claims numbers beyond its storage."""
    storage, offset, shape, strides = tensor
    if len(shape) != len(strides) or len(shape) > MAX_DIMS or max((*shape, *strides, 0)) >= 2**48:
        fail(f"{name[:80]}: shape {shape[:9]} and strides {strides[:9]}")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides)) if 0 not in shape else -1
    if last >= storage.count or math.prod(shape) > storage.count:
        fail(f"{name[:80]}: shape {shape} needs more than the {storage.count} numbers of its storage")


def unwrap(value, fail):
    """The dictionary of tensors in a checkpoint   →   {name: TensorRef}, sentences"""
    sentences = []
    for _ in range(4):                                                       # wrappers inside wrappers
        if not isinstance(value, dict):
            fail(f"it holds a {type(value).__name__}, not a dictionary of tensors")
        inside = next((key for key in UNWRAP if isinstance(value.get(key), dict) and value[key]), None)
        if inside is None or any(isinstance(v, TensorRef) for v in value.values()):
            break
        sentences.append(f"took the weights from {inside!r} of the checkpoint, which holds {listing(value)}")
        value = value[inside]
    references = {key: item for key, item in value.items() if isinstance(key, str) and isinstance(item, TensorRef)}
    if not references:
        fail(f"no tensors under names; it holds {listing(value)}")
    if len(references) < len(value):
        others = {key: None for key in value if key not in references}
        sentences.append(f"left out {listing(others)}, which are no tensors")
    references, removed = without_prefixes(references)
    return references, sentences + removed


def without_prefixes(tensors):
    """{name: array} without what torch's wrappers put before every name, in any order.   →   the same, sentences

    AveragedModel, with which torchvision keeps its running average, has the counter n_averaged beside module.NAME.
    """
    sentences, names = [], [name for name in tensors if name != "n_averaged"]
    if len(names) < len(tensors) and names and all(name.startswith("module.") for name in names):
        tensors = {name: tensors[name] for name in names}
        sentences.append("left out n_averaged, the counter of a running average")
    while prefix := next((p for p in PREFIXES if tensors and all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): array for name, array in tensors.items()}
        sentences.append(f"removed the prefix {prefix!r} from every name")
    return tensors, sentences


def listing(value):
    """The first five keys, for a message."""
    names = [str(key)[:40] for _, key in zip(range(6), value)]
    return ", ".join(names[:5]) + (" and more" if len(names) > 5 else "") or "nothing"


def itemsize(dtype):
    """Bytes of one number."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


# --- writing

TYPES = {np.dtype(code): name.encode() for name, code in STORAGES.items() if code != "bfloat16"}


def write_pth(path, tensors, wrapped=None):
    """Write {name: ndarray} atomically as a dictionary of tensors that torch.load(path, weights_only=True) reads.

    wrapped: a name; the dictionary is then the one entry of another.   Raises OSError if the file cannot be written.
    """
    pickle, members = [b"\x80\x02" + (b"}" + text(wrapped) if wrapped else b"") + b"}("], {}
    for key, (name, array) in enumerate(tensors.items()):
        array = np.asarray(array)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        strides = [math.prod(array.shape[i + 1:]) for i in range(array.ndim)]
        kind = b"ctorch\n" + TYPES[array.dtype] + b"\n"
        storage = b"(" + text("storage") + kind + text(str(key)) + text("cpu") + whole(array.size) + b"tQ"
        view = whole(0) + numbers(array.shape) + numbers(strides)            # offset, shape, strides
        hooks = b"\x89ccollections\nOrderedDict\n)R"                        # no gradient, no hooks
        pickle.append(text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view + hooks + b"tR")
        members[f"archive/data/{key}"] = flat_bytes(array)
    pickle.append(b"us." if wrapped else b"u.")
    head = {"archive/data.pkl": b"".join(pickle), "archive/byteorder": b"little"}
    write_archive(path, {**head, **members, "archive/version": b"3\n"})


def text(value):
    """A text in the language of pickles."""
    raw = value.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def numbers(tuple_of):
    """A tuple of whole numbers in the language of pickles."""
    return b"(" + b"".join(map(whole, tuple_of)) + b"t"


def whole(n):
    """A whole number in the language of pickles."""
    return b"J" + n.to_bytes(4, "little") if n < 2**31 else b"\x8a\x08" + n.to_bytes(8, "little")
