"""Weights in safetensors files: round trips, other resolutions and heads, and files that are not what they claim."""
import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch

import numpyvit
from numpyvit.errors import UserError
from numpyvit.files.safetensors import MAX_HEADER, read_tensors
from numpyvit.files import atomic as files
from numpyvit.weights.fit import resize_grid
from tiny import FAMILIES, FaultyOs, same

FIELDS = dict(img_size=16, patch_size=4, embed_dim=24, depth=1, num_heads=2, num_classes=5)


def vit(**fields):
    return numpyvit.create_model("vit", seed=fields.pop("seed", 0), dtype=fields.pop("dtype", "float32"), **{**FIELDS, **fields})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "w.safetensors"


@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip(family, path):
    model = numpyvit.create_model(family, num_classes=5, seed=1, **FAMILIES[family])
    other = numpyvit.create_model(family, num_classes=5, seed=2, **FAMILIES[family])
    assert not same(model.state_dict(), other.state_dict())
    numpyvit.save_weights(model, path)
    assert numpyvit.load_weights(other, path) == []
    assert same(model.state_dict(), other.state_dict())
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_safetensors_library_reads_it_and_the_other_way_round(path):
    model, other = vit(seed=1), vit(seed=2)
    numpyvit.save_weights(model, path)
    assert same(safetensors.numpy.load_file(path), model.state_dict())
    with safetensors.safe_open(path, "np") as file:
        assert json.loads(file.metadata()["config"])["embed_dim"] == 24 and file.metadata()["family"] == "vit"
    safetensors.numpy.save_file(model.state_dict(), path)
    assert numpyvit.load_weights(other, path) == []
    assert same(model.state_dict(), other.state_dict())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes_are_converted_and_said(path, dtype):
    import safetensors.torch
    model, other = vit(seed=1), vit(seed=2)
    tensors = {name: torch.tensor(array).to(getattr(torch, dtype)) for name, array in model.state_dict().items()}
    safetensors.torch.save_file(tensors, path)
    said = numpyvit.load_weights(other, path)
    assert len(said) == (dtype != "bfloat16") and all("converted" in s for s in said)
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(array, tensors[name].float().numpy())


# --- what may differ, and what may not

@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("before, after", [((8, 8), (12, 5)), ((7, 9), (3, 20)), ((1, 1), (4, 4)), ((14, 14), (24, 24))])
def test_resized_tables_are_torchs(mode, before, after):
    table = np.random.default_rng(0).standard_normal((*before, 6))
    image = torch.tensor(table).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(image, size=after, mode=mode, align_corners=False)[0].permute(1, 2, 0)
    np.testing.assert_allclose(resize_grid(table, after, mode), expected.numpy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.parametrize("size, grid", [(24, (6, 6)), ((8, 16), (2, 4)), ((8, 32), (2, 8))])
def test_positions_of_another_resolution(path, pool, size, grid):
    """(8, 32) has as many patches as 16 × 16, in another grid: the shape alone would not tell."""
    model, other = vit(seed=1, global_pool=pool), vit(seed=2, global_pool=pool, img_size=size)
    numpyvit.save_weights(model, path)
    said = numpyvit.load_weights(other, path, resize="bilinear")
    assert len(said) == 1 and "4 × 4" in said[0] and f"{grid[0]} × {grid[1]}" in said[0] and "bilinear" in said[0]
    old, new, token = model.pos_embed.data[0], other.pos_embed.data[0], pool == "token"
    np.testing.assert_array_equal(new[:token], old[:token])
    np.testing.assert_array_equal(new[token:], resize_grid(old[token:].reshape(4, 4, -1), grid, "bilinear").reshape(-1, 24))


@pytest.mark.parametrize("format, file", [("timm", "w.pth"), ("google", "w.npz"), ("timm", "w.safetensors")])
def test_positions_of_an_oblong_image_are_copied(tmp_path, format, file):
    """16 positions could be a square: those of the very same model stay where they are."""
    model, other = vit(seed=1, img_size=(8, 32)), vit(seed=2, img_size=(8, 32))
    numpyvit.save_weights(model, tmp_path / file, format=format)
    said = numpyvit.load_weights(other, tmp_path / file)
    assert same(model.state_dict(), other.state_dict())
    assert any("grid of 2 × 8" in s for s in said) == (not file.endswith("safetensors"))   # which holds the config
    again = numpyvit.load_model(tmp_path / file, num_heads=2, img_size=(8, 32))
    np.testing.assert_array_equal(again.pos_embed.data, model.pos_embed.data)


def swin(seed=0, **fields):
    small = dict(img_size=16, patch_size=2, num_classes=5, embed_dim=8, depths=(2, 2), num_heads=(2, 4), window_size=4)
    return numpyvit.create_model("swin", seed=seed, **small | fields)


@pytest.mark.parametrize("fields, windows", [({"window_size": 2}, (2, 2)), ({"img_size": 28, "window_size": 7}, (7, 7)),
                                             ({"img_size": 6}, (3, 2)), ({"img_size": 24}, (4, 4))],
                         ids=["smaller", "larger", "shrunk to a small map", "the same on a larger image"])
def test_bias_tables_of_other_windows(path, fields, windows):
    """The official rule: bicubic over the offsets, by torch's interpolate; whatever keeps its window is copied."""
    model, other = swin(seed=1), swin(seed=2, **fields)
    numpyvit.save_weights(model, path)
    said = numpyvit.load_weights(other, path)
    old, new = model.state_dict(), other.state_dict()
    changed = [name for name in old if name.endswith("bias_table") and windows[int(name.split(".")[1])] != 4]
    assert len(said) == len(changed)
    for name, sentence in zip(sorted(changed), said):
        M = windows[int(name.split(".")[1])]
        assert name in sentence and f"from windows of 4 × 4 to {M} × {M} (bicubic)" in sentence
        grid = torch.tensor(old[name]).double().T.reshape(1, -1, 7, 7)
        expected = torch.nn.functional.interpolate(grid, size=2 * M - 1, mode="bicubic", align_corners=False)[0].flatten(1).T
        np.testing.assert_allclose(new[name], expected.numpy(), rtol=0, atol=1e-7)
    for name in old.keys() - set(changed):
        np.testing.assert_array_equal(new[name], old[name])


def test_a_bias_table_that_is_none(path):
    model = swin()
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    for shape in ((48, 2), (36, 2), (49, 3), (49,), (49, 2, 1)):
        safetensors.numpy.save_file(model.state_dict() | {name: np.zeros(shape, np.float32)}, path)
        with pytest.raises(UserError, match="no table of a window's offsets"):
            numpyvit.load_weights(model, path)


@pytest.mark.parametrize("family, field, theirs, ours", [
    ("vit", "pos_embed", "sincos2d", "none"), ("vit", "global_pool", "avg", "avg"), ("cvt", "kv_stride", 2, 1),
    ("cvt", "patch_strides", (4, 2), (2, 2)), ("swin", "norm_eps", 1e-5, 1e-4)])
def test_another_function_of_the_same_tensors_is_said(path, family, field, theirs, ours):
    model = numpyvit.create_model(family, **FAMILIES[family] | {field: theirs})
    numpyvit.save_weights(model, path)
    sentences = numpyvit.load_weights(numpyvit.create_model(family, **FAMILIES[family] | {field: ours}), path)
    said = f"the weights were made with {field} "
    assert [s.startswith(said) and "the logits differ" in s for s in sentences] == [True] * (theirs != ours)


def test_head_of_other_classes(path):
    model, other = vit(seed=1), vit(seed=2, num_classes=7)
    numpyvit.save_weights(model, path)
    before = other.state_dict()
    with pytest.raises(UserError, match="drop_head"):
        numpyvit.load_weights(other, path)
    assert same(before, other.state_dict())
    said = numpyvit.load_weights(other, path, drop_head=True)
    assert len(said) == 2 and all("head" in s for s in said)
    after = other.state_dict()
    for name in after:
        source = before if name.startswith("head") else model.state_dict()
        np.testing.assert_array_equal(after[name], source[name])


def test_each_misfit_is_named_and_nothing_is_written(path):
    model, good = vit(), vit(seed=1).state_dict()
    before = model.state_dict()
    weird = {
        "head.bias is missing": {k: v for k, v in good.items() if k != "head.bias"},
        "extra is unknown": good | {"extra": np.zeros(1, np.float32)},
        "norm.bias has shape": good | {"norm.bias": np.zeros(23, np.float32)},
        "norm.bias has dtype int64": good | {"norm.bias": np.zeros(24, np.int64)},
        "norm.bias holds values": good | {"norm.bias": np.full(24, np.nan, np.float32)},
        "norm.weight holds values": good | {"norm.weight": np.full(24, 1e300)},
        "pos_embed has shape": good | {"pos_embed": np.zeros((1, 16, 24), np.float32)},
    }
    for message, tensors in weird.items():
        safetensors.numpy.save_file(tensors, path)
        with pytest.raises(UserError, match=message) as caught:
            numpyvit.load_weights(model, path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        assert same(before, model.state_dict())
    with pytest.raises(UserError, match="bilinear"):
        numpyvit.load_weights(model, path, resize="nearest")


# --- a save that fails

@pytest.mark.parametrize("error", [28, 5, 13, "short"], ids=["ENOSPC", "EIO", "EACCES", "short write"])
def test_every_call_of_a_save_fails_in_turn(path, monkeypatch, error):
    old, new, reader = vit(seed=1), vit(seed=2), vit(seed=3)
    failures = 0
    for at in range(100):
        numpyvit.save_weights(old, path)
        faulty = FaultyOs(at, error)
        monkeypatch.setattr(files, "os", faulty)
        try:
            numpyvit.save_weights(new, path)
            failed = False
        except OSError as caught:
            assert str(path) in str(caught) or str(path.parent) in str(caught)
            failed, failures = True, failures + 1
        monkeypatch.undo()
        numpyvit.load_weights(reader, path)
        assert same(reader.state_dict(), new.state_dict()) or (failed and same(reader.state_dict(), old.state_dict()))
        if faulty.count <= at:
            break
    assert failures == (0 if error == "short" else at) and at >= 8
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_failed_save_leaves_the_old_folder(tmp_path, monkeypatch, written):
    """Whichever of the three files cannot be written, not one of the old ones is replaced, and nothing else is left."""
    from numpyvit.files import atomic
    old, new = vit(seed=1, num_heads=1), vit(seed=2, act="relu")
    numpyvit.save_weights(old, tmp_path, format="huggingface")
    before, count, write_new = contents(tmp_path), [], atomic.write_new

    def fail(path, *args):
        count.append(path)
        if len(count) > written:
            raise OSError(28, "No space left on device", path)
        write_new(path, *args)
    monkeypatch.setattr(atomic, "write_new", fail)
    with pytest.raises(OSError, match="No space") as caught:
        numpyvit.save_weights(new, tmp_path, format="huggingface")
    assert caught.value.filename == str(tmp_path / ("config.json", "preprocessor_config.json", "model.safetensors")[written])
    assert len(count) == written + 1 and contents(tmp_path) == before
    monkeypatch.undo()
    numpyvit.save_weights(new, tmp_path, format="huggingface")
    assert contents(tmp_path).keys() == before.keys() and numpyvit.load_model(tmp_path).config.act == "relu"


def test_the_folder_of_a_run_is_not_overwritten(tmp_path):
    for config, folder in (({"recipe": {}}, None), (None, "checkpoints"), ({"model_type": "vit"}, "checkpoints")):
        run = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        run.mkdir()
        if config:
            (run / "config.json").write_text(json.dumps(config))
        if folder:
            (run / folder).mkdir()
        before = contents(run)
        with pytest.raises(UserError, match="the folder of a run, whose config.json would be lost"):
            numpyvit.save_weights(vit(), run, format="huggingface")
        assert contents(run) == before


def test_classes_are_as_many_as_the_model_has(path):
    model = vit()
    for format in ("numpyvit", "timm"):
        for model.classes in (list("abcd"), list("abcdef")):
            with pytest.raises(UserError, match="expected the names of the model's 5 classes, got"):
                numpyvit.save_weights(model, path, format=format)
    assert not path.exists()


def test_paths_that_no_file_can_have():
    for wrong in ("a\0b", b"a\0b", ""):
        for call in (numpyvit.load_model, lambda p: numpyvit.load_weights(vit(), p), lambda p: numpyvit.save_weights(vit(), p)):
            with pytest.raises(UserError, match="expected the path of a file or folder"):
                call(wrong)


# --- files that are not what they claim

def container(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


HOSTILE = {
    "empty": b"",
    "seven bytes": b"1234567",
    "header longer than the file": (10**6).to_bytes(8, "little") + b"{}",
    "header of 2^63 bytes": (2**63).to_bytes(8, "little") + b"{}",
    "long header": container(b" " * (MAX_HEADER + 1)),
    "not JSON": container(b"{not json"),
    "not UTF-8": container(b'{"\xff": 1}'),
    "a list": container([]),
    "deep nesting": container(b"[" * 10**6),
    "a name twice": container(b'{"a": 1, "a": 2}'),
    "a number with many digits": container(b'{"a": ' + b"9" * 10**5 + b"}"),
    "metadata no object": container({"__metadata__": [1]}),
    "metadata no strings": container({"__metadata__": {"a": 1}}),
    "entry no object": container({"a": 1}),
    "unknown dtype": container({"a": entry("F33")}, bytes(8)),
    "dtype no string": container({"a": entry(["F32"])}, bytes(8)),
    "an extra key": container({"a": entry(x=1)}, bytes(8)),
    "negative size": container({"a": entry(shape=(-2,))}, bytes(8)),
    "fractional size": container({"a": entry(shape=(2.0,))}, bytes(8)),
    "true as size": container({"a": entry(shape=(True, 2))}, bytes(8)),
    "huge size": container({"a": entry(shape=(2**62, 2**62))}, bytes(8)),
    "zero times huge": container({"a": entry(shape=(0, 2**62), offsets=(0, 0))}),
    "many dimensions": container({"a": entry(shape=(1,) * 9 + (2,))}, bytes(8)),
    "size and bytes differ": container({"a": entry(shape=(3,))}, bytes(8)),
    "offsets swapped": container({"a": entry(shape=(0,), offsets=(8, 0))}, bytes(8)),
    "offsets beyond the data": container({"a": entry(offsets=(8, 16))}, bytes(8)),
    "overlap": container({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
    "gap": container({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20)),
    "bytes behind": container({"a": entry()}, bytes(9)),
    "truncated data": container({"a": entry()}, bytes(7)),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_are_one_error(path, content):
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a usable safetensors file") as caught:
        read_tensors(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 500


def test_folders_pipes_and_nothing_are_errors(tmp_path):
    import os
    os.mkfifo(tmp_path / "pipe")
    for name in (".", "pipe"):
        with pytest.raises(UserError, match="expected a file"):
            read_tensors(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "nothing")


def test_a_flipped_bit_is_an_error(path):
    rng = np.random.default_rng(0)
    numpyvit.save_weights(vit(), path)
    whole = path.read_bytes()
    for place in [*range(0, 8), *rng.integers(8, len(whole), 200)]:
        broken = bytearray(whole)
        broken[place] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
        try:
            tensors, metadata = read_tensors(path)
        except UserError:
            continue
        text = bytes(broken)[8:8 + int.from_bytes(broken[:8], "little")]     # the one harmless place: the name of the checksum
        assert b'"crc32"' not in text, place
