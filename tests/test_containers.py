"""Files of torch and of Google: what torch and numpy write is read, what is written here they read, and no code is ever run."""
import io
import os
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch

import numpyvit
from numpyvit.errors import UserError
from numpyvit.files import state_pickle
from numpyvit.files.npz import read_npz, write_npz
from numpyvit.files.pth import read_pth, write_pth
from numpyvit.files.safetensors import read_tensors, write_tensors
from tiny import same

VIT = dict(img_size=8, patch_size=4, embed_dim=16, depth=1, num_heads=2, num_classes=3)

LAYOUTS = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}
each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


def state():
    """A state dict with all that occurs in one: views of a shared storage, strides, an empty tensor, a scalar, every dtype."""
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm2d(2))
    shared = torch.arange(24, dtype=torch.float32)
    kinds = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
    return {**module.state_dict(), "a": shared[3:9].reshape(2, 3), "b": shared.reshape(4, 6).t(), "empty": torch.zeros(0, 3),
            "scalar": torch.tensor(2.5), "parameter": torch.nn.Parameter(torch.ones(2)),
            **{str(kind): torch.tensor([0, 1, 3]).to(kind) for kind in kinds}}


def as_arrays(tensors):
    return {name: (t.float() if t.dtype == torch.bfloat16 else t).detach().numpy() for name, t in tensors.items()}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "w.pth"


# --- torch's files

@each_layout
def test_what_torch_saves_is_read(path, layout):
    torch.save(state(), path, **layout)
    expected = torch.load(path)
    tensors, sentences = read_pth(path)
    assert same(tensors, as_arrays(expected)) and sentences == []


@each_layout
def test_a_model_with_metadata(path, layout):
    """An OrderedDict with _metadata, as Module.state_dict() returns."""
    module = torch.nn.BatchNorm2d(3)
    torch.save(module.state_dict(), path, **layout)
    assert same(read_pth(path)[0], as_arrays(module.state_dict()))


@each_layout
def test_checkpoints_are_unwrapped_and_it_is_said(path, layout):
    weights = {"a": torch.ones(2), "b": torch.zeros(3)}
    optimizer = {"state": {0: {"step": 3, "m": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0, 1], "betas": (0.9, 0.99)}]}
    training = {"model": {f"module.{k}": t for k, t in weights.items()}, "optimizer": optimizer, "epoch": 3, "best": 0.5, "note": None}
    torch.save(training, path, **layout)
    tensors, sentences = read_pth(path)
    assert same(tensors, as_arrays(weights))
    assert sentences == ["took the weights from 'model' of the checkpoint, which holds model, optimizer, epoch, best, note",
                         "removed the prefix 'module.' from every name"]
    torch.save({"state_dict": {"model": weights}, "model_ema": weights | {"a": torch.full((2,), 5.0)}}, path, **layout)
    assert read_pth(path)[0]["a"][0] == 5                                    # the average is what was to be evaluated
    torch.save({"state_dict": {"net": weights | {"step": 7}}}, path, **layout)
    tensors, sentences = read_pth(path)
    assert same(tensors, as_arrays(weights)) and len(sentences) == 3 and "left out step" in sentences[2]


def test_what_is_written_torch_loads(path):
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(12.0).reshape(3, 4).T, "n": np.array(3),
               "empty": np.zeros((0, 2), np.float16), "ü": np.array([True])}
    write_pth(path, tensors)
    loaded = torch.load(path, weights_only=True)
    assert same({name: t.numpy() for name, t in loaded.items()}, tensors) and same(read_pth(path)[0], tensors)
    assert torch.load(path, mmap=True)["b"].stride() == (3, 1)


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


FORBIDDEN = {"os.system": (os.system, "touch /tmp/numpyvit-owned"), "builtins.eval": (eval, "1/0"), "builtins.exec": (exec, "raise SystemExit"),
             "builtins.getattr": (getattr, "", "join"), "builtins.print": (print, "x"), "subprocess": (__import__("subprocess").run, ["true"]),
             "torch.load": (torch.load, "x"), "numpy": (np.load, "x"), "pathlib": (__import__("pathlib").Path, "x"), "set": (set, [1])}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("call", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_a_call_is_refused_by_name(path, layout, call, protocol, monkeypatch):
    value = {"model": {"a": Call(*call)}}
    if layout == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", pickle.dumps(value, protocol))
    else:
        path.write_bytes(b"".join(pickle.dumps(v, max(protocol, 2)) for v in (0x1950A86A20F9469CFC6C, 1001, {}, value, [])))
    with pytest.raises(UserError, match="nothing was run") as caught:
        read_pth(path)
    name = call[0].__name__
    assert f".{name}" in str(caught.value) or f".{call[0].__qualname__}" in str(caught.value)


TRICKS = {                                                                   # pickles → what is said
    "a storage as a function": (b"\x80\x02ctorch\nFloatStorage\n)R.", "a call of torch.FloatStorage"),
    "a text as a function": (b"\x80\x02X\x01\0\0\0a)R.", "a call of a str"),
    "a dotted name": (b"\x80\x02ccollections\nOrderedDict.fromkeys\n)R.", "OrderedDict.fromkeys"),
    "attributes": (b"\x80\x02ccollections\nOrderedDict\n}b.", "attributes of a Name"),
    "an extension": (b"\x80\x02\x82\x01.", "EXT1"),
    "an instance": (b"(i__main__\nA\n.", "INST"),
    "an object": (b"(cos\nsystem\no.", "os.system"),
    "an old object": (b"(ctorch\nSize\no.", "OBJ"),
    "a text as a tensor": (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(X\x01\0\0\0aK\0)))tR.", "storage"),
    "negative strides": (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0aX\3\0\0\0cpuK\1tQ"
                         b"K\0K\1\x85J\xff\xff\xff\xff\x85\x89}tR.", "storage, offset"),
    "no end": (b"\x80\x02}", "damaged"),
    "an empty stack": (b"\x80\x02.", "damaged"),
    "no mark": (b"\x80\x02}u.", "damaged"),
    "an odd number of items": (b"\x80\x02}(K\1u.", "damaged"),
    "a nested tuple as a key": (b"\x80\x02}" + b")\x85" * 3 + b"K\1s.", "an entry under a tuple"),
    "a memory of nothing": (b"\x80\x02h\x05.", "damaged"),
    "too long": (b"\x80\x02" + b"}0" * 200_000 + b".", "instructions"),
    "deep": (b"\x80\x02)" + b"\x85" * 100_000 + b".", "holds a tuple"),
    "a huge text": (b"\x80\x02X\xff\xff\xff\xffa.", "damaged"),
    "a huge number": (b"\x80\x02\x8b\xff\xff\xff\x7fa.", "damaged"),
    "a list": (b"\x80\x02].", "holds a list"),
    "no tensor": (b"\x80\x02}X\1\0\0\0aK\1s.", "no tensors under names; it holds a"),
}


@pytest.mark.parametrize("trick, said", TRICKS.values(), ids=TRICKS.keys())
def test_tricks(path, trick, said):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", trick)
    with pytest.raises(UserError, match="not a usable torch file") as caught:
        read_pth(path)
    assert said in str(caught.value)


def test_the_interpreter_has_no_way_out():
    """Each call that is carried out is one of this package's own functions."""
    assert {f.__module__ for f in state_pickle.CALLS.values()} == {"numpyvit.files.state_pickle"}
    assert all(n.module in ("torch", "torch._utils", "collections") for n in state_pickle.NAMES)


def tensor_claims(count, offset, shape, strides, numbers=b"\0" * 16):
    """A torch file of one tensor with these claims about a storage of four float32."""
    def whole(n):
        return b"\x8a\x08" + n.to_bytes(8, "little")
    def tuple_of(numbers):
        return b"(" + b"".join(map(whole, numbers)) + b"t"
    body = (b"\x80\x02}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0kX\3\0\0\0cpu"
            + whole(count) + b"tQ" + whole(offset) + tuple_of(shape) + tuple_of(strides) + b"\x89}tRs.")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", body)
        archive.writestr("x/data/k", numbers)
    return file.getvalue()


@pytest.mark.parametrize("claims", [(4, 1, (2, 2), (2, 1)), (4, 0, (2, 3), (1, 1)), (4, 0, (10**9,), (0,)), (4, 0, (5,), (1,)),
                                    (8, 0, (8,), (1,)), (3, 0, (3,), (1,)), (2**60, 0, (2**60,), (1,)), (4, 0, (2**60, 0), (1, 1)),
                                    (4, 0, (2, 2), (1,)), (4, 0, (1,) * 9, (1,) * 9), (4, 2**62, (1,), (1,)), (4, 0, (2,), (2**61,))])
def test_claims_of_tensors(path, claims):
    path.write_bytes(tensor_claims(4, 1, (3,), (1,)))
    assert read_pth(path)[0]["a"].shape == (3,)
    path.write_bytes(tensor_claims(*claims))
    with pytest.raises(UserError, match="not a usable torch file"):
        read_pth(path)


# --- .npz

def test_what_numpy_saves_is_read(path):
    rng = np.random.default_rng(0)
    tensors = {"a/b": rng.standard_normal((2, 3)), "c": np.arange(5), "scalar": np.array(2.5, np.float32), "empty": np.zeros((0, 3)),
               "order": np.asfortranarray(rng.standard_normal((3, 4))), "big": np.arange(3, dtype=">f4"), "half": np.ones(3, np.float16),
               "flag": np.array([True, False])}
    for save in (np.savez, np.savez_compressed):
        save(path, **tensors)
        read = read_npz(f"{path}.npz")
        assert read.keys() == tensors.keys() and all(np.array_equal(read[n], tensors[n]) for n in tensors)


def test_bfloat16_as_two_bytes(path):
    values = torch.randn(3, 4).bfloat16()
    halves = values.view(torch.int16).numpy().view(np.dtype("V2"))
    np.savez(path, w=halves)
    np.testing.assert_array_equal(read_npz(f"{path}.npz")["w"], values.float().numpy())


def test_what_is_written_numpy_loads(path):
    tensors = {"a/b": np.arange(6.0).reshape(2, 3), "t": np.arange(6.0, dtype=np.float32).reshape(2, 3).T, "n": np.array(7),
               "one": np.arange(3), "empty": np.zeros((0, 2))}
    write_npz(path, tensors)
    with np.load(path, allow_pickle=False) as loaded:
        assert same(dict(loaded), tensors)
    assert same(read_npz(path), tensors)


def npy(header, data=b"", version=b"\1\0"):
    header = header.encode()
    return b"\x93NUMPY" + version + struct.pack("<H" if version[0] == 1 else "<I", len(header)) + header + data


HEADER = "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}\n"
HOSTILE = {
    "not an array": b"hello",
    "nothing": b"",
    "objects": npy(HEADER.format("|O", "(1,)"), b"\x80\x04K\x01."),
    "a structure": npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }\n", bytes(4)),
    "text": npy(HEADER.format("<U1", "(1,)"), bytes(4)),
    "times": npy(HEADER.format("<M8", "(1,)"), bytes(8)),
    "three bytes": npy(HEADER.format("|V3", "(1,)"), bytes(3)),
    "32 GiB": npy(HEADER.format("<f4", f"({2**33},)"), bytes(4)),
    "huge": npy(HEADER.format("<f8", f"({10**18}, {10**18})"), bytes(8)),
    "zero times huge": npy(HEADER.format("<f8", f"(0, {10**18})")),
    "too few": npy(HEADER.format("<f8", "(2,)"), bytes(15)),
    "too many": npy(HEADER.format("<f8", "(2,)"), bytes(17)),
    "dimensions": npy(HEADER.format("<f8", str((1,) * 33)), bytes(8)),
    "code as a shape": npy(HEADER.format("<f8", "(__import__('os'),)"), bytes(8)),
    "deep": npy(HEADER.format("<f8", "(" * 2000), bytes(8)),
    "a long header": npy(HEADER.format("<f8", "(1,)") + " " * 10**5, bytes(8), b"\2\0"),
    "header beyond the end": b"\x93NUMPY\2\0" + b"\xff" * 4,
    "a version": npy(HEADER.format("<f8", "(1,)"), bytes(8), b"\x09\0"),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_arrays(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(UserError, match="not a usable npz file") as caught:
        read_npz(path)
    assert len(str(caught.value)) < 500


# --- archives

def archive_with(change):
    """A stored archive of two members whose central directory was changed: change(bytes of the first entry) → bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", npy(HEADER.format("<f8", "(1,)"), bytes(8)))
        archive.writestr("b.npy", npy(HEADER.format("<f8", "(1,)"), bytes(8)))
    whole = bytearray(file.getvalue())
    at = whole.find(b"PK\1\2")
    return bytes(change(whole, at))


def patched(offset, fmt, value):
    def change(whole, at):
        struct.pack_into(fmt, whole, at + offset, value)
        return whole
    return archive_with(change)


def bomb():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy(HEADER.format("<f8", f"({1 << 23},)"), bytes(1 << 26)))
    return file.getvalue()


def overlapping():
    def change(whole, at):
        second = whole.find(b"PK\1\2", at + 1)
        whole[second:second + 46] = whole[at:at + 46]
        whole[second + 46:second + 51] = b"a.npz"
        return whole
    return archive_with(change)


ARCHIVES = {
    "nothing": b"", "short": b"PK\5\6", "no archive": b"hello" * 100, "cut": archive_with(lambda whole, at: whole[:at + 20]),
    "encrypted": patched(8, "<H", 1), "method": patched(10, "<H", 12), "size": patched(24, "<I", 10**6), "packed size":
    patched(20, "<I", 10**6), "place": patched(42, "<I", 10**6), "place of the directory": patched(42, "<I", 5), "checksum": patched(16, "<I", 1),
    "overlap": overlapping(), "bomb": bomb(), "name": archive_with(lambda whole, at: whole.replace(b"b.npy", b"a.npy")),
    "no UTF-8": archive_with(lambda whole, at: whole.replace(b"b.npy", b"\xff.npy")),
    "count": archive_with(lambda whole, at: whole[:-12] + b"\x09\0" + whole[-10:]),
    "64 bits": archive_with(lambda whole, at: whole[:-10] + b"\xff" * 8 + whole[-2:]),
}


@pytest.mark.parametrize("content", ARCHIVES.values(), ids=ARCHIVES.keys())
def test_hostile_archives(path, content):
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a usable npz file") as caught:
        read_npz(path)
    assert len(str(caught.value)) < 500


def test_64_bit_sizes_are_read(path):
    """As torch and numpy write them above 4 GiB; here on small members."""
    array = npy(HEADER.format("<f8", "(2,)"), np.array([1.0, 2.0]).tobytes())
    crc, n = zlib.crc32(array), len(array)
    local = b"PK\3\4" + struct.pack("<5H3I2H", 45, 0, 0, 0, 33, crc, 2**32 - 1, 2**32 - 1, 5, 20) + b"a.npy" + struct.pack("<2H2Q", 1, 16, n, n)
    entry = b"PK\1\2" + struct.pack("<6H3I5H2I", 45, 45, 0, 0, 0, 33, crc, 2**32 - 1, 2**32 - 1, 5, 28, 0, 0, 0, 0, 2**32 - 1) + b"a.npy"
    entry += struct.pack("<2H3Q", 1, 24, n, n, 0)
    start = len(local) + n
    end64 = b"PK\6\6" + struct.pack("<Q2H2I4Q", 44, 45, 45, 0, 0, 1, 1, len(entry), start)
    locator = b"PK\6\7" + struct.pack("<IQI", 0, start + len(entry), 1)
    end = b"PK\5\6" + struct.pack("<4H2IH", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    path.write_bytes(local + array + entry + end64 + locator + end)
    np.testing.assert_array_equal(np.load(path)["a"], [1, 2])
    np.testing.assert_array_equal(read_npz(path)["a"], [1, 2])


# --- what torch's wrappers do to names, in every container

PREFIXES = ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.", "model._orig_mod.module.", "module.model.model."]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("suffix, write", [(".pth", write_pth), (".npz", write_npz), (".safetensors", lambda path, t: write_tensors(path, t, {}))])
def test_prefixes_are_removed_in_any_order(tmp_path, prefix, suffix, write):
    model = numpyvit.create_model("vit", **VIT)
    write(tmp_path / f"w{suffix}", {prefix + name: array for name, array in model.state_dict().items()})
    other = numpyvit.create_model("vit", seed=1, **VIT)
    said = numpyvit.load_weights(other, tmp_path / f"w{suffix}")
    assert same(model.state_dict(), other.state_dict()) and sum("removed the prefix" in s for s in said) == prefix.count(".")


def test_a_prefix_of_some_names_is_no_prefix(path):
    model = numpyvit.create_model("vit", **VIT)
    write_pth(path, {("module." if name.startswith("head") else "") + name: a for name, a in model.state_dict().items()})
    with pytest.raises(UserError, match="module.head.bias is unknown"):
        numpyvit.load_weights(model, path)


def test_the_running_average_of_torchvision(path):
    """torch.optim.swa_utils.AveragedModel: n_averaged beside module.NAME."""
    model, other = numpyvit.create_model("vit", **VIT), numpyvit.create_model("vit", seed=1, **VIT)
    numpyvit.save_weights(model, path, format="torchvision")
    tensors = {name: torch.tensor(array) for name, array in read_pth(path)[0].items()}
    torch.save({"model": {name: 0 * t for name, t in tensors.items()}, "epoch": 3,
                "model_ema": {"n_averaged": torch.tensor(5), **{f"module.{name}": t for name, t in tensors.items()}}}, path)
    said = numpyvit.load_weights(other, path)
    assert same(model.state_dict(), other.state_dict()) and any("n_averaged, the counter" in s for s in said)


@pytest.mark.parametrize("stray", ["head.weight", "norm.bias", "cls_token", "blocks.0.attn.qkv.weight"])
def test_a_stray_tensor_is_not_taken_for_another(tmp_path, stray):
    """One of this library's names in a file of Hugging Face: beside the tensor that it would replace, and instead of it."""
    model = numpyvit.create_model("vit", **VIT)
    numpyvit.save_weights(model, tmp_path, format="huggingface")
    tensors, _ = read_tensors(tmp_path / "model.safetensors")
    there = {"head.weight": "classifier.weight", "norm.bias": "vit.layernorm.bias", "cls_token": "vit.embeddings.cls_token",
             "blocks.0.attn.qkv.weight": "vit.encoder.layer.0.attention.attention.key.weight"}[stray]
    for left_out in ((), (there,)):
        changed = {name: a for name, a in tensors.items() if name not in left_out} | {stray: model.state_dict()[stray] * 2}
        write_tensors(tmp_path / "model.safetensors", changed, {"format": "pt"})
        with pytest.raises(UserError, match=f"{stray} is the name of a tensor here"):
            numpyvit.load_model(tmp_path)
