"""CIFAR-100, MNIST, Fashion-MNIST and SVHN from small stand-ins: read as they are published, or refused in one line."""
import base64
import gzip
import hashlib
import io
import os
import random
import struct
import zlib
from dataclasses import dataclass, replace

import numpy as np
import pytest

from datasets import mutate, nothing_to_be_found, outcome, picture, refused, server, tar_bytes   # noqa: F401
from numpyvit.data import cifar10, cifar100, fashion_mnist, load, mnist, registry, sources, svhn
from numpyvit.files.matlab import read_mat
from numpyvit.training.recipe import recipe_for

COUNT = 20_000 if os.environ.get("NUMPYVIT_THOROUGH") else 150               # mutated files of each data set
TRAIN, TEST = 11, 7
RNG = np.random.default_rng(3)


def idx_bytes(values):
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def mat_bytes(arrays, compressed=True):
    """A MATLAB 5 file of uint8 and float64 arrays, as its documentation describes one."""
    def element(kind, data):
        if 0 < len(data) <= 4:
            return struct.pack("<HH", kind, len(data)) + data.ljust(4, b"\0")
        return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)

    out = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    for name, array in arrays.items():
        mx, mi = (9, 2) if array.dtype == np.uint8 else (6, 9)
        body = (element(6, struct.pack("<II", mx, 0)) + element(5, np.array(array.shape, "<i4").tobytes())
                + element(1, name.encode()) + element(mi, array.tobytes(order="F")))
        whole = struct.pack("<II", 14, len(body)) + body
        packed = zlib.compress(whole)
        out += struct.pack("<II", 15, len(packed)) + packed if compressed else whole
    return out


@dataclass
class Stand:
    """A small stand-in of a data set: how it is described and loaded, its files, and what they hold."""
    description: object
    load: object
    argument: str
    files: dict
    train: tuple
    test: tuple
    more: dict = None

    def described(self, address="http://127.0.0.1:1/", files=None):
        """The description with these files' sizes and hashes, published at this address."""
        source, files = self.description.source, files or self.files
        remotes = tuple(replace(remote, urls=(address + remote.name,), size=len(files[remote.name]),
                                sha256=hashlib.sha256(files[remote.name]).hexdigest()) for remote in source.remotes)
        return replace(self.description, source=replace(source, remotes=remotes))

    def read(self, data_dir=None, files=None, address="http://127.0.0.1:1/", **more):
        return self.load(data_dir, **{self.argument: self.described(address, files)}, **more)

    def write(self, folder, files=None):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (files or self.files).items():
            (folder / name).write_bytes(content)
        return folder


def make_cifar100(column, load):
    raw = RNG.integers(0, 256, (TRAIN + TEST, 2 + 3072), dtype=np.uint8)
    raw[:, 0], raw[:, 1] = RNG.integers(0, 20, len(raw)), RNG.integers(0, 100, len(raw))
    parts = {"train.bin": raw[:TRAIN].tobytes(), "test.bin": raw[TRAIN:].tobytes()}
    members = [("cifar-100-binary/fine_label_names.txt", b"apple\n")]
    members += [(f"cifar-100-binary/{name}", content) for name, content in parts.items()]
    images, labels = raw[:, 2:].reshape(-1, 3, 32, 32), raw[:, column].astype(np.int64)
    small = replace(cifar100.CIFAR100, train_files=(("train.bin", TRAIN),), test_file=("test.bin", TEST))
    return Stand(small, load, "records", {"cifar-100-binary.tar.gz": tar_bytes(members)}, (images[:TRAIN], labels[:TRAIN]),
                 (images[TRAIN:], labels[TRAIN:]), {"cifar-100-binary": parts})


def make_idx(description, load):
    images = RNG.integers(0, 256, (TRAIN + TEST, 28, 28), dtype=np.uint8)
    labels = RNG.integers(0, 10, TRAIN + TEST, dtype=np.uint8)
    contents = [idx_bytes(a) for a in (images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:])]
    names = [remote.name for remote in description.source.remotes]
    raw = {name.removesuffix(".gz"): content for name, content in zip(names, contents)}
    small, images, labels = replace(description, train=TRAIN, test=TEST), images[:, None], labels.astype(np.int64)
    return Stand(small, load, "idx", {n: gzip.compress(c) for n, c in zip(names, contents)}, (images[:TRAIN], labels[:TRAIN]),
                 (images[TRAIN:], labels[TRAIN:]), {description.source.folders[0]: raw})


def make_svhn():
    images = RNG.integers(0, 256, (TRAIN + TEST, 3, 32, 32), dtype=np.uint8)
    labels = RNG.integers(0, 10, TRAIN + TEST)

    def file(rows):
        digits = np.where(labels[rows] == 0, 10, labels[rows]).reshape(-1, 1)
        return mat_bytes({"X": images[rows].transpose(2, 3, 1, 0), "y": digits.astype(np.uint8)})
    files = {"train_32x32.mat": file(slice(0, TRAIN)), "test_32x32.mat": file(slice(TRAIN, None))}
    return Stand(replace(svhn.SVHN, train=TRAIN, test=TEST), svhn.load, "cropped", files, (images[:TRAIN], labels[:TRAIN]),
                 (images[TRAIN:], labels[TRAIN:]))


STANDS = {"cifar100": make_cifar100(1, cifar100.load), "cifar100-coarse": make_cifar100(0, cifar100.load_coarse),
          "mnist": make_idx(mnist.MNIST, mnist.load), "fashion-mnist": make_idx(fashion_mnist.FASHION, fashion_mnist.load),
          "svhn": make_svhn()}
each = pytest.mark.parametrize("name", STANDS)


def assert_is_content(name, dataset):
    stand = STANDS[name]
    assert dataset.name == name and dataset.notice == "" and len(dataset.classes) == registry.TABLE[name].classes
    for got, (images, labels) in ((dataset.train, stand.train), (dataset.test, stand.test)):
        np.testing.assert_array_equal(got.images, images)
        np.testing.assert_array_equal(got.labels, labels)


# What is published. Sizes and SHA-256 as in TensorFlow Datasets' checksums; torchvision has the same files by MD5.

def test_the_published_files():
    published = {description.source.name: description.source for description in
                 (cifar10.CIFAR10, cifar100.CIFAR100, mnist.MNIST, fashion_mnist.FASHION, svhn.SVHN)}
    assert {name: [remote.size for remote in source.remotes] for name, source in published.items()} == {
        "cifar10": [170_052_171], "cifar100": [168_513_733], "mnist": [9_912_422, 28_881, 1_648_877, 4_542],
        "fashion-mnist": [26_421_880, 29_515, 4_422_102, 5_148], "svhn": [182_040_794, 64_275_384]}
    for source in published.values():
        for remote in source.remotes:
            assert len(bytes.fromhex(remote.sha256)) == 32 and all(url.endswith("/" + remote.name) for url in remote.urls)
    hashes = [remote.sha256 for source in published.values() for remote in source.remotes]
    assert len(set(hashes)) == len(hashes) == 12


def test_classes():
    """CIFAR-100's numbers follow the alphabet, in both columns; digits are their own names."""
    assert len(set(cifar100.FINE)) == 100 and list(cifar100.FINE) == sorted(cifar100.FINE)
    assert len(set(cifar100.COARSE)) == 20 and list(cifar100.COARSE) == sorted(cifar100.COARSE)
    assert mnist.MNIST.classes == svhn.DIGITS == tuple("0123456789")
    assert fashion_mnist.CLASSES[0] == "T-shirt/top" and fashion_mnist.CLASSES[9] == "Ankle boot"
    assert registry.TABLE["cifar10"].classes == registry.TABLE["shapes"].classes == 10


def test_only_digits_are_not_mirrored_and_their_recipes_say_so():
    for row in registry.TABLE.values():
        assert row.mirrored == (row.name not in ("mnist", "svhn"))
        assert (registry.recipe_defaults(row.name).get("flip") == "none") == (not row.mirrored)


# Found, downloaded, read.

@each
@pytest.mark.parametrize("place", ["", "own name", "usual folder"])
def test_read_from_a_folder(name, place, tmp_path):
    stand = STANDS[name]
    inside = {"": "", "own name": stand.description.source.name, "usual folder": (stand.description.source.folders or ("",))[0]}
    stand.write(tmp_path / inside[place])
    assert_is_content(name, stand.read(tmp_path))
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(stand.files)   # nothing extracted


@each
def test_unpacked_copies_are_read_as_well(name, tmp_path):
    stand = STANDS[name]
    for folder, files in (stand.more or {}).items():
        stand.write(tmp_path / folder, files)
        dataset = stand.read(tmp_path)
        assert_is_content(name, dataset)
        assert "archive" not in dataset.checksum
        first = next(iter(files))
        (tmp_path / folder / first).write_bytes(files[first][:-1])
        assert first.removesuffix(".gz") in refused(stand.read, tmp_path)


@each
def test_downloaded_once(name, tmp_path):
    stand = STANDS[name]
    with server(stand.files) as (url, asked):
        address = url.rpartition("/")[0] + "/"
        assert_is_content(name, stand.read(address=address, progress=lambda done, total: None))
        assert_is_content(name, stand.read(address=address, progress=lambda done, total: None))
        assert sorted(asked) == sorted("/" + file for file in stand.files)
        cache = sources.cache_dir() / stand.description.source.name
        first = sorted(stand.files)[0]
        (cache / first).unlink()                                             # one of its files is lost: it alone is fetched
        assert_is_content(name, stand.read(address=address, progress=lambda done, total: None))
        assert len(asked) == len(stand.files) + 1
    assert sorted(path.name for path in cache.iterdir()) == sorted([".lock", *stand.files])
    assert_is_content(name, stand.read())                                    # without a network


@each
def test_what_is_nowhere_names_itself_and_its_files(name):
    stand = STANDS[name]
    title = stand.description.source.title
    message = refused(stand.read, match=f"^{title} is not available: no whole copy in .*no connection")
    assert all(file in message for file in stand.files) and "CIFAR-10 " not in message
    assert "switched off" in refused(stand.read, download=False)


@each
def test_image_sizes(name, tmp_path):
    stand = STANDS[name]
    stand.write(tmp_path)
    grey = name.endswith("mnist")
    assert stand.read(tmp_path, img_size=28 if grey else 32).train.images.shape[2:] == ((28, 28) if grey else (32, 32))
    refused(stand.read, tmp_path, img_size=64, match="image size")
    if grey:
        wide = stand.read(tmp_path, img_size=32).train.images
        np.testing.assert_array_equal(wide[:, :, 2:30, 2:30], stand.train[0])
        assert wide.shape[2:] == (32, 32) and wide.sum(dtype=int) == stand.train[0].sum(dtype=int)
    else:
        refused(stand.read, tmp_path, img_size=28, match="image size")


@each
def test_files_that_are_not_the_published_ones(name, tmp_path):
    stand = STANDS[name]
    for file, content in stand.files.items():
        for changed, words in ((content[:-1], "truncated"), (content + b"\0", "another file"), (b"", "truncated"),
                               (content[:-9] + bytes([content[-9] ^ 1]) + content[-8:], "SHA-256")):
            folder = stand.write(tmp_path / "x")
            (folder / file).write_bytes(changed)
            assert file in refused(stand.read, folder, match=words)
    if hasattr(os, "mkfifo"):
        (folder / file).unlink()
        os.mkfifo(folder / file)
        refused(stand.read, folder, match="expected a file")
    if len(stand.files) > 1:
        (folder / file).unlink()
        assert file.removesuffix(".gz") in refused(stand.read, folder, match="cannot be read")


# Wrong inside, although the hash is the expected one.

def idx_with(**changes):
    """MNIST's files with one of them exchanged; the key is its beginning, as train_labels."""
    files = dict(STANDS["mnist"].files)
    for key, content in changes.items():
        name = next(name for name in files if name.startswith(key.replace("_", "-")))
        files[name] = content if content[:2] == b"\x1f\x8b" or not content else gzip.compress(content, 1)
    return files


def mat_with(compressed=True, **arrays):
    """SVHN's files with other arrays in the training set."""
    stand = STANDS["svhn"]
    x, y = stand.train[0].transpose(2, 3, 1, 0), np.ones((TRAIN, 1), np.uint8)
    return {**stand.files, "train_32x32.mat": mat_bytes({"X": x, "y": y} | arrays, compressed)}


LABELS = np.arange(TRAIN, dtype=np.uint8) % 10
WRONG_INSIDE = {
    "label 10": ("mnist", idx_with(train_labels=idx_bytes(LABELS + 1)), "labels 0 to 9, got 10 at place 9"),
    "one label less": ("mnist", idx_with(train_labels=idx_bytes(LABELS[1:])), "IDX header .*0b, got .*0a"),
    "labels for images": ("mnist", idx_with(t10k_images=idx_bytes(LABELS[:TEST])), "IDX header"),
    "another kind of number": ("mnist", idx_with(train_labels=b"\0\0\x09\x01" + idx_bytes(LABELS)[4:]), "IDX header"),
    "no header": ("mnist", idx_with(train_labels=b"\0\0"), "got 0000"),
    "nothing inside": ("mnist", idx_with(train_labels=gzip.compress(b"")), "got nothing"),
    "values missing": ("mnist", idx_with(train_labels=idx_bytes(LABELS)[:-1]), "expected 11 bytes after the header, got 10"),
    "a value more": ("mnist", idx_with(train_labels=idx_bytes(LABELS) + b"\0"), "expected 11 bytes after the header, got more"),
    "no gzip": ("mnist", idx_with(train_labels=b"\x1f\x8bnot gzip"), "not a readable gzip file"),
    "gzip cut": ("mnist", idx_with(train_labels=gzip.compress(idx_bytes(LABELS))[:-9]), "not a readable gzip file"),
    "fine label 100": ("cifar100", 100, "labels 0 to 99, got 100 in record 2"),
    "coarse label 20": ("cifar100-coarse", 20, "labels 0 to 19, got 20 in record 2"),
    "svhn label 0": ("svhn", mat_with(y=np.zeros((TRAIN, 1), np.uint8)), "labels 1 to 10, got 0 at place 0"),
    "svhn label 1.5": ("svhn", mat_with(y=np.full((TRAIN, 1), 1.5)), "labels 1 to 10, got 1.5"),
    "svhn label NaN": ("svhn", mat_with(y=np.full((TRAIN, 1), np.nan)), "labels 1 to 10, got nan"),
    "svhn labels missing": ("svhn", mat_with(y=np.ones((TRAIN - 1, 1), np.uint8)), "and y of 11, got .* and 10"),
    "svhn larger than expected": ("svhn", mat_with(X=np.zeros((32, 32, 3, TRAIN + 5), np.uint8)), "truncated, or larger"),
    "svhn not compressed, larger": ("svhn", mat_with(False, X=np.zeros((32, 32, 3, TRAIN + 5), np.uint8)), "too large"),
    "svhn of other axes": ("svhn", mat_with(X=np.zeros((3, 32, 32, TRAIN), np.uint8)), "expected X of uint8"),
    "svhn without X": ("svhn", {**STANDS["svhn"].files, "train_32x32.mat": mat_bytes({"y": LABELS})}, "array X is missing"),
    "svhn of version 7.3": ("svhn", {**STANDS["svhn"].files, "train_32x32.mat": b"\x89HDF\r\n\x1a\n" * 99}, "MATLAB 5"),
    "svhn cut": ("svhn", {**STANDS["svhn"].files, "train_32x32.mat": STANDS["svhn"].files["train_32x32.mat"][:-9]}, "truncated"),
}


@pytest.mark.parametrize("kind", WRONG_INSIDE)
def test_the_right_hash_but_wrong_inside(kind, tmp_path):
    name, files, words = WRONG_INSIDE[kind]
    if isinstance(files, int):
        parts = {part: bytearray(content) for part, content in STANDS[name].more["cifar-100-binary"].items()}
        parts["train.bin"][2 * 3074 + (name == "cifar100")] = files          # the group comes first, then the class
        members = [(f"cifar-100-binary/{part}", bytes(content)) for part, content in parts.items()]
        files = {"cifar-100-binary.tar.gz": tar_bytes(members)}
    STANDS[name].write(tmp_path, files)
    assert str(tmp_path) in refused(STANDS[name].read, tmp_path, files, match=words)


# MATLAB's format.

SCIPY = r"""
O+i#lK|&xkE-)ZXK~ybfX>4U6ARr(hARr(hARr(hARr(hARr(hARr(hARr(hARr(hARr(hARr(hARr(hARr(hARr(hARr(hARr(hARr(hARr(h
ARr(hARr(hARr(hARr(hARr(hARr(hARr(h000000000000Bu&4*&oFLI3~&c$_WB$q|4c5Jb^o2W3~#usoW7Bs2xx^)5dW(FYnVI9gNSfr9|K
JH!9o-x<8j_GUp9*Lc+R=pvcxd<I9D0vHbf001oj004NL<6~f8Z~$U9Am)J5AixUcGXXIp7&9_d0%=Yl7GQvZ5B3mR#Q^{~T>_c
"""


def test_a_file_of_another_writer():
    """Written by scipy.io.savemat(do_compression=True) of SciPy 1.17."""
    content = base64.b85decode("".join(SCIPY.split()))
    arrays = read_mat(io.BytesIO(content), "a.mat", {"X": 24, "y": 16})
    np.testing.assert_array_equal(arrays["X"], np.arange(24).reshape(2, 3, 4))
    np.testing.assert_array_equal(arrays["y"], [[1], [10]])


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_of_our_own_writer(compressed):
    arrays = {"a": np.arange(6, dtype=np.uint8).reshape(3, 2), "long_name": np.array([[0.5, -1e300]]), "e": np.zeros((0, 3))}
    got = read_mat(io.BytesIO(mat_bytes(arrays, compressed)), "a.mat", dict.fromkeys(arrays, 100))
    assert got.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[name], array)


def test_a_bomb_is_not_unpacked():
    """Fifty megabytes of zeros in fifty kilobytes: refused at the size that is expected, before they are in memory."""
    import tracemalloc
    bomb = mat_bytes({"X": np.zeros(50_000_000, np.uint8)})
    tracemalloc.start()
    refused(read_mat, io.BytesIO(bomb), "a.mat", {"X": 60_000}, match="larger than 64,096 bytes")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


# Anything at all.

@each
def test_mutated_files_of_the_right_hash(name, tmp_path, figures):
    """Bytes of a published file changed, packed and unpacked, under the expected hash: a data set, or one line."""
    random_, seen, stand = random.Random(1), {"read": 0, "refused": 0}, STANDS[name]
    for i in range(COUNT):
        file = random_.choice(sorted(stand.files))
        content = stand.files[file]
        if i % 2 and file.endswith("gz"):
            content = gzip.compress(mutate(gzip.decompress(content), random_), 1)
        elif i % 2:
            content = mutate_inside_mat(content, random_)
        else:
            content = mutate(content, random_)
        files = {**stand.files, file: content}
        stand.write(tmp_path, files)
        seen[outcome(stand.read, tmp_path, files)] += 1
        figures.add()
    assert seen["refused"] > COUNT / 10 and (seen["read"] or COUNT < 1000)


def mutate_inside_mat(content, random_):
    """Change bytes inside the compressed elements of a .mat file."""
    out, at = content[:128], 128
    while at < len(content):
        _, size = struct.unpack_from("<II", content, at)
        inside = zlib.decompress(content[at + 8:at + 8 + size])
        head = mutate(inside[:64], random_) if random_.random() < 0.7 else inside[:64]
        packed = zlib.compress(head + inside[64:], 1)
        out, at = out + struct.pack("<II", 15, len(packed)) + packed, at + 8 + size
    return out


def test_names_lead_to_the_files(tmp_path, monkeypatch):
    """load("mnist", …) and the others reach the function of their own file."""
    for name, (module, constant) in {"cifar100": (cifar100, "CIFAR100"), "cifar100-coarse": (cifar100, "CIFAR100"),
                                     "mnist": (mnist, "MNIST"), "fashion-mnist": (fashion_mnist, "FASHION"),
                                     "svhn": (svhn, "SVHN")}.items():
        monkeypatch.setattr(module, constant, STANDS[name].described())
        assert_is_content(name, load(name, STANDS[name].write(tmp_path / name)))


def test_grey_images_train_and_predict(tmp_path, monkeypatch):
    """MNIST's stand-in with a border, to a run of a model with one channel, to the class of a colour file."""
    from numpyvit.runs.classifier import Classifier
    from numpyvit.training.loop import train
    monkeypatch.setattr(mnist, "MNIST", STANDS["mnist"].described())
    STANDS["mnist"].write(tmp_path / "mnist")
    fields = dict(img_size=32, patch_size=8, embed_dim=8, depth=1, num_heads=1)
    recipe = recipe_for(data="mnist", data_dir=str(tmp_path / "mnist"), model="vit", model_fields=fields, batch_size=4, steps=2)
    train(recipe, tmp_path / "run", threads=1)
    classifier = Classifier(tmp_path / "run")
    assert classifier.model.config.in_chans == 1 and classifier.config.data.classes == list("0123456789")
    picture().save(tmp_path / "a.png")
    assert classifier.predict([tmp_path / "a.png"]).shape == (1, 10)
    assert classifier.split("test")[0].shape == (TEST, 1, 32, 32)
    (tmp_path / "scored" / "7").mkdir(parents=True)
    picture().save(tmp_path / "scored" / "7" / "a.png")
    images, labels, _ = classifier.folder(tmp_path / "scored")
    np.testing.assert_array_equal(images[0], classifier.read(tmp_path / "a.png")[0])   # the pixels that predict sees
    assert labels.tolist() == [7]


def test_recipes_take_what_the_data_set_needs_and_the_user_decides():
    """A digit is not mirrored unless the user asks for it; what the table says of the data set comes before the defaults."""
    assert recipe_for("vit", data="mnist").flip == recipe_for("cvt", data="svhn").flip == "none"
    assert recipe_for("vit", data="mnist", flip="random").flip == "random"
    assert recipe_for("vit", data="fashion-mnist").flip == recipe_for("vit").flip == "alternating"
    refused(recipe_for, "vit", data="mnits", match="data set: expected one of auto, .*mnist")
