"""Published data sets and the built-in one: what is read is what was written, and what is broken is refused in one line."""
import errno
import gzip
import hashlib
import inspect
import io
import os
import random
import tarfile
import tempfile
import typing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from datasets import (ARCHIVE, ARCHIVE_NAME, BLOB, CONTENT, RECORD, RECORDS, SMALL, assert_is_content, mutate,
                      nothing_to_be_found, official, outcome, refused, small_archive, tar_bytes, write_archive,   # noqa: F401
                      write_folder)
from numpyvit import data
from numpyvit.data import ImageSet, cifar10, load, mapped, shapes, train_val_split
from numpyvit.data.mapped import OnDisk, put_aside

THOROUGH = bool(os.environ.get("NUMPYVIT_THOROUGH"))                           # 100,000 mutated files of each kind


# What the official archive is.

def test_the_official_archive_is_described_as_published():
    records, archive = cifar10.CIFAR10, cifar10.CIFAR10.archive
    assert archive.size == 170_052_171 and len(records.counts) == 6
    assert [count * records.record for count in records.counts.values()] == [30_730_000] * 6
    assert archive.sha256 == "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
    assert archive.urls == ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",)


# Reading.

def test_archive_is_read_by_member_name_whatever_the_order(tmp_path):
    dataset = cifar10.read_archive(write_archive(tmp_path), ARCHIVE)
    assert_is_content(dataset)
    assert dataset.checksum == "archive-sha256:" + ARCHIVE.archive.sha256
    assert sorted(p.name for p in tmp_path.iterdir()) == [ARCHIVE_NAME, "work"]   # nothing extracted


def test_folder_is_read_and_its_checksum_is_of_its_records(tmp_path):
    dataset = cifar10.read_folder(write_folder(tmp_path / "x"), SMALL)
    assert_is_content(dataset)
    assert dataset.checksum == "files-sha256:" + hashlib.sha256(b"".join(CONTENT[n] for n in SMALL.counts)).hexdigest()
    assert dataset.checksum.split(":")[1] in dataset.source


@pytest.mark.parametrize("place", ["data_dir", "data_dir is the folder", "data_dir is the archive", "NUMPYVIT_DATA",
                                   "NUMPYVIT_DATA is the folder", "./data", "cache"])
def test_places_that_are_searched(place, tmp_path, monkeypatch):
    data_dir, root = None, tmp_path / "root"
    if place.startswith("data_dir"):
        data_dir = root
    elif place.startswith("NUMPYVIT_DATA"):
        monkeypatch.setenv("NUMPYVIT_DATA", str(root))
    else:
        root = Path("data") if place == "./data" else tmp_path / "cache" / "numpyvit"
    if place.endswith("is the folder"):
        write_folder(root)
    elif place == "data_dir is the archive":
        data_dir = write_archive(root)
    else:
        write_archive(root)
    assert_is_content(cifar10.load(data_dir, download=False, records=ARCHIVE))
    if data_dir is None:
        monkeypatch.setenv("NUMPYVIT_DATA", str(tmp_path / "nowhere"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nowhere"))
        monkeypatch.chdir(tmp_path)
        refused(cifar10.load, None, download=False, records=ARCHIVE, match="no whole copy")


def test_data_dir_comes_before_the_other_places(tmp_path, monkeypatch):
    write_archive(tmp_path / "cache" / "numpyvit")
    other = dict(CONTENT, **{"test_batch.bin": CONTENT["data_batch_1.bin"]})
    write_folder(tmp_path / "mine" / "cifar-10-batches-bin", other)
    dataset = cifar10.load(tmp_path / "mine", download=False, records=ARCHIVE)
    np.testing.assert_array_equal(dataset.test.images, dataset.train.images[:RECORDS])


@pytest.mark.parametrize("at_once", [1, 3, 7])
def test_files_are_read_in_parts(at_once, tmp_path, monkeypatch):
    """Whatever the parts, the images and the checksum are the same; an end in the middle of a later part is noticed."""
    write_folder(tmp_path / "whole")
    checksum = cifar10.load(tmp_path / "whole", download=False, records=ARCHIVE).checksum
    monkeypatch.setattr(cifar10, "AT_ONCE", at_once)
    dataset = cifar10.load(tmp_path / "whole", download=False, records=ARCHIVE)
    assert_is_content(dataset)
    assert dataset.checksum == checksum
    for left_out in (1, RECORD, RECORDS * RECORD - 1):
        file = io.BytesIO(CONTENT["test_batch.bin"][:-left_out])
        images, labels = np.empty((RECORDS, 3, 32, 32), np.uint8), np.empty(RECORDS, np.int64)
        refused(cifar10.read_records, file, "here", ARCHIVE, images, labels,
                match=f"here: expected {RECORDS * RECORD:,} bytes, got {RECORDS * RECORD - left_out:,}; it is truncated")


def with_label_10(raw, record=3):
    return raw[:record * RECORD] + b"\x0a" + raw[record * RECORD + 1:]


LINK = [(n, b"", kind) if n.endswith("batch_2.bin") else (n, c, *k) for n, c, *k in official() for kind in (tarfile.SYMTYPE,)]
BROKEN_ARCHIVES = {
    "member missing": (official()[:-1], "data_batch_1.bin missing"),
    "no member at all": ([], "missing"),
    "member is a symbolic link": (LINK, "another kind"),
    "member is a hard link": ([(n, c, tarfile.LNKTYPE) if k == [tarfile.SYMTYPE] else (n, c, *k) for n, c, *k in LINK], "another kind"),
    "member is a directory": ([(n, c, tarfile.DIRTYPE) if k == [tarfile.SYMTYPE] else (n, c, *k) for n, c, *k in LINK], "another kind"),
    "member is a pipe": ([(n, c, tarfile.FIFOTYPE) if k == [tarfile.SYMTYPE] else (n, c, *k) for n, c, *k in LINK], "another kind"),
    "member twice": (official() + official()[-1:], "twice"),
    "member too short": (official(dict(CONTENT, **{"test_batch.bin": CONTENT["test_batch.bin"][:-1]})), "21,510"),
    "member too long": (official(dict(CONTENT, **{"test_batch.bin": CONTENT["test_batch.bin"] + b"x"})), "21,512"),
    "member empty": (official(dict(CONTENT, **{"test_batch.bin": b""})), "of 0"),
    "label 10": (official(dict(CONTENT, **{"test_batch.bin": with_label_10(CONTENT["test_batch.bin"])})), "labels 0 to 9, got 10 in record 3"),
    "other paths": ([(f"../{n}", c, *k) for n, c, *k in official()], "missing"),
    "absolute paths": ([(f"/{n}", c, *k) for n, c, *k in official()], "missing"),
}


@pytest.mark.parametrize("kind", BROKEN_ARCHIVES)
def test_archive_of_the_right_hash_but_wrong_inside(kind, tmp_path):
    members, words = BROKEN_ARCHIVES[kind]
    blob = tar_bytes(members)
    path = write_archive(tmp_path, blob)
    message = refused(cifar10.read_archive, path, small_archive(blob), match=words)
    assert str(path) in message


@pytest.mark.parametrize("blob, words", [
    (BLOB[:len(BLOB) // 2], "truncated"), (b"", "truncated"), (BLOB + b"\0", "another file"),
    (BLOB[:-9] + bytes([BLOB[-9] ^ 1]) + BLOB[-8:], "SHA-256")], ids=["truncated", "empty", "longer", "one bit"])
def test_archive_of_the_wrong_size_or_hash(blob, words, tmp_path):
    message = refused(cifar10.read_archive, write_archive(tmp_path, blob), ARCHIVE, match=words)
    assert ARCHIVE_NAME in message


@pytest.mark.parametrize("blob", [b"", b"not gzip" * 9, gzip.compress(b"not tar" * 999), gzip.compress(b""), BLOB[:5000],
                                  tar_bytes(official(), "w")], ids=range(6))
def test_archive_that_is_none(blob, tmp_path):
    refused(cifar10.read_archive, write_archive(tmp_path, blob), small_archive(blob))


def test_archive_that_is_a_directory_or_a_pipe(tmp_path):
    (tmp_path / "a" / ARCHIVE_NAME).mkdir(parents=True)
    refused(cifar10.load, tmp_path / "a", download=False, records=ARCHIVE, match="expected a file")
    if hasattr(os, "mkfifo"):
        (tmp_path / "b").mkdir()
        os.mkfifo(tmp_path / "b" / ARCHIVE_NAME)
        refused(cifar10.load, tmp_path / "b", download=False, records=ARCHIVE, match="expected a file")
        target = write_folder(tmp_path / "c")
        (target / "data_batch_3.bin").unlink()
        os.mkfifo(target / "data_batch_3.bin")
        refused(cifar10.load, tmp_path / "c", download=False, records=ARCHIVE, match="expected a file")


@pytest.mark.parametrize("change, words", [
    (lambda path: path.unlink(), "cannot be read"),
    (lambda path: path.write_bytes(b""), "got 0"),
    (lambda path: path.write_bytes(path.read_bytes()[:-1]), "got 21,510"),
    (lambda path: path.write_bytes(path.read_bytes() + b"x"), "got 21,512"),
    (lambda path: path.write_bytes(with_label_10(path.read_bytes(), 6)), r"record 6 \(byte 18,438\)"),
    (lambda path: (path.unlink(), path.mkdir()), "expected a file"),
    (lambda path: (path.unlink(), path.symlink_to("nowhere")), "cannot be read")],
    ids=["missing", "empty", "short", "long", "label 10", "directory", "dangling link"])
@pytest.mark.parametrize("name", ["data_batch_1.bin", "data_batch_4.bin", "test_batch.bin"])
def test_broken_folder_is_an_error_and_not_a_reason_to_look_elsewhere(change, words, name, tmp_path):
    write_archive(tmp_path / "cache" / "numpyvit")
    change(write_folder(tmp_path / "mine" / "cifar-10-batches-bin") / name)
    message = refused(cifar10.load, tmp_path / "mine", records=ARCHIVE, match=words)
    assert name in message


def test_label_9_and_zero_are_labels(tmp_path):
    raw = np.frombuffer(CONTENT["test_batch.bin"], np.uint8).reshape(RECORDS, -1).copy()
    raw[:, 0] = [0, 9, 0, 9, 0, 9, 0]
    write_folder(tmp_path / "x", dict(CONTENT, **{"test_batch.bin": raw.tobytes()}))
    assert cifar10.read_folder(tmp_path / "x", SMALL).test.labels.tolist() == [0, 9, 0, 9, 0, 9, 0]


def test_mutated_archives_of_the_right_hash(tmp_path, figures):
    random_, seen = random.Random(1), {"read": 0, "refused": 0}
    plain = gzip.decompress(BLOB)
    headers = [at for at in range(0, len(plain), 512) if plain[at + 257:at + 262] == b"ustar"]
    for i in range(100_000 if THOROUGH else 150):
        if i % 3 == 0:
            blob = mutate(BLOB, random_)
        elif i % 3 == 1:
            blob = gzip.compress(mutate(plain, random_), 1)
        else:                                                                # inside one member's header
            at = random_.choice(headers)
            header = mutate(plain[at:at + 512], random_)[:512].ljust(512, b"\0")
            checksum = sum(header[:148]) + 256 + sum(header[156:])
            header = header[:148] + b"%06o\0 " % checksum + header[156:]
            blob = gzip.compress(plain[:at] + header + plain[at + 512:], 1)
        seen[outcome(cifar10.read_archive, write_archive(tmp_path, blob), small_archive(blob))] += 1
        figures.add()
    assert seen["read"] and seen["refused"] > 50
    assert sorted(p.name for p in tmp_path.iterdir()) == [ARCHIVE_NAME, "work"] and not list((tmp_path / "work").iterdir())


def test_mutated_folders(tmp_path, figures):
    random_, seen = random.Random(2), {"read": 0, "refused": 0}
    target = write_folder(tmp_path / "x")
    for _ in range(100_000 if THOROUGH else 100):
        name = random_.choice(list(CONTENT))
        (target / name).write_bytes(mutate(CONTENT[name], random_))
        seen[outcome(cifar10.read_folder, target, SMALL)] += 1
        figures.add()
        (target / name).write_bytes(CONTENT[name])
    assert seen["read"] and seen["refused"]



# Split.

def labelled(labels):
    return ImageSet(np.zeros((len(labels), 1, 1, 1), np.uint8), np.asarray(labels, dtype=np.int64))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from([0, 1, 2, 5, 40]), min_size=1, max_size=80), st.data(), st.integers(0, 2**62))
def test_split_is_stratified_sorted_and_complete(labels, draw, seed):
    num_val = draw.draw(st.integers(0, len(labels) - 1))
    image_set = labelled(labels)
    train, val = train_val_split(image_set, num_val, seed)
    assert len(val) == num_val and train.dtype == val.dtype == np.int64
    assert (np.diff(train) > 0).all() and (np.diff(val) > 0).all()
    np.testing.assert_array_equal(np.sort(np.concatenate([train, val])), np.arange(len(labels)))
    for label in set(labels):
        exact = num_val * labels.count(label) / len(labels)
        assert abs((image_set.labels[val] == label).sum() - exact) < 1
    again = train_val_split(image_set, num_val, seed)
    np.testing.assert_array_equal(val, again[1])


def test_split_depends_on_the_seed_and_refuses_what_is_impossible():
    image_set = labelled(np.arange(1000) % 10)
    a, b = (train_val_split(image_set, 100, seed)[1] for seed in (0, 1))
    assert 50 < len(np.setdiff1d(a, b))
    assert np.bincount(image_set.labels[a]).tolist() == [10] * 10
    for wrong in (-1, 1000, 5000):
        refused(train_val_split, image_set, wrong, 0, match="validation split")


def test_image_set_refuses_other_arrays():
    for images, labels in ((np.zeros((2, 3, 4, 4)), np.zeros(2, int)), (np.zeros((2, 4, 4), np.uint8), np.zeros(2, int)),
                           (np.zeros((2, 3, 4, 4), np.uint8), np.zeros(3, int)),
                           (np.zeros((2, 3, 4, 4), np.uint8), np.zeros(2, np.float32))):
        with pytest.raises(ValueError, match="expected"):
            ImageSet(images, labels)


# Shapes.

def test_shapes_are_the_same_bytes_everywhere():
    digest = hashlib.sha256(shapes.generate(400).images).hexdigest()
    assert digest[:16] == SHAPES_DIGEST


SHAPES_DIGEST = "65eedeee17a4a281"


def test_shapes_are_a_pure_function_of_seed_split_and_index():
    base = shapes.generate(60)
    np.testing.assert_array_equal(base.images[:25], shapes.generate(25).images)
    for other in (shapes.generate(60, seed=1), shapes.generate(60, split=shapes.TEST)):
        assert (base.images != other.images).any(axis=(1, 2, 3)).all()
    one = shapes.draw(base.labels[[17]], shapes.hash_combine(0, shapes.TRAIN, np.array([17])))
    np.testing.assert_array_equal(one[0], base.images[17])


def test_shapes_load():
    dataset = load("shapes")
    assert dataset.train.images.shape == (20_000, 3, 32, 32) and dataset.test.images.shape == (2_000, 3, 32, 32)
    assert len(dataset.classes) == len(set(dataset.classes)) == 10 and dataset.checksum.startswith("records-sha256:")
    assert (np.bincount(dataset.test.labels) == 200).all() and (np.bincount(dataset.train.labels) == 2_000).all()
    assert len(np.unique(dataset.test.images.reshape(2_000, -1), axis=0)) == 2_000
    assert load("shapes", img_size=48).train.images.shape[1:] == (3, 48, 48)
    for wrong in (8, 1000, -3):
        refused(load, "shapes", img_size=wrong, match="image size")


def test_shapes_are_too_hard_for_a_linear_model():
    """Ridge regression on the pixels. That a small transformer learns them is shown where the training is tested."""
    dataset = shapes.load(num_train=6_000, num_test=1_000, img_size=16)
    x, t = (s.images.reshape(len(s), -1).astype(np.float64) / 127.5 - 1 for s in (dataset.train, dataset.test))
    target = np.eye(10)[dataset.train.labels] - 0.1
    for ridge in (30, 3_000):
        weight = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ target)
        assert ((t @ weight).argmax(axis=1) == dataset.test.labels).mean() < 0.4


def test_every_shape_can_be_seen():
    for image, label in zip(shapes.generate(500).images.astype(float), np.arange(500) % 10):
        grey = image.mean(axis=0)
        dark, light = np.percentile(grey, [3, 97])
        assert light - dark > 60, shapes.CLASSES[label]
        border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
        assert border.std() < grey.std(), shapes.CLASSES[label]              # the background is what touches the border


def test_public_functions_have_type_hints():
    """What an editor shows of numpyvit.data: the kind of every result."""
    functions = [getattr(data, name) for name in data.__all__ if inspect.isfunction(getattr(data, name))]
    assert len(functions) >= 8
    for function in functions:
        assert typing.get_type_hints(function)["return"] is not None, function.__name__


@pytest.mark.parametrize("n", [0, 7])
def test_images_that_are_put_aside_are_the_same(n, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (n, 3, 5, 5), dtype=np.uint8)
    there = ImageSet(images, np.arange(n))
    aside = put_aside(there)
    assert isinstance(aside.images, OnDisk) and len(aside.images) == len(aside) == n and aside.labels is there.labels
    for rows in (slice(None), slice(2, 5), slice(6, 9), slice(5, 2), np.array([n // 2, 0, n // 2])[:n]):
        np.testing.assert_array_equal(aside.images[rows], images[rows])
        assert type(aside.images[rows]) is np.ndarray
    with ThreadPoolExecutor(4) as pool:
        for i, part in enumerate(pool.map(lambda i: aside.images[i:i + 1], 20 * list(range(n)))):
            np.testing.assert_array_equal(part[0], images[i % n])
    assert put_aside(aside) is aside, "they are on the disk already"

    monkeypatch.setattr(mapped, "LARGEST", images.nbytes)
    assert isinstance(put_aside(there).images, OnDisk)
    monkeypatch.setattr(mapped, "LARGEST", images.nbytes - 1)
    assert put_aside(there) is there
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "TemporaryFile", full_disk)
    assert put_aside(there) is there


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")
