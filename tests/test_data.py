"""Data sets: what is read is what was written, and what is broken is refused in one line."""
import contextlib
import gzip
import hashlib
import http.server
import io
import os
import random
import subprocess
import sys
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from numpyvit import data as numpyvit_data
from numpyvit.data import ImageSet, UserError, cifar10, folder, load, read_image, shapes, train_val_split

RECORDS = 7
SMALL = cifar10.Archive(url="", records=RECORDS)


@pytest.fixture(autouse=True)
def nothing_to_be_found(tmp_path, monkeypatch):
    """No copy of CIFAR-10 anywhere, no proxy, and a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("NUMPYVIT_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(cifar10, "TIMEOUT", 5)
    monkeypatch.setattr(cifar10, "PAUSE", 0.01)


def records(seed):
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, (RECORDS, cifar10.RECORD), dtype=np.uint8)
    raw[:, 0] = rng.integers(0, 10, RECORDS)
    return raw


CONTENT = {name: records(seed).tobytes() for seed, name in enumerate(SMALL.files)}


def tar_bytes(members, mode="w:gz"):
    """members: (name, bytes) or (name, bytes, tar type); what is no file still claims a file's size"""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content, *kind in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if kind:
                info.type, info.linkname, info.size = kind[0], "elsewhere", SMALL.file_size
            tar.addfile(info, None if kind else io.BytesIO(content))
    return buffer.getvalue()


def official(content=CONTENT):
    return [("cifar-10-batches-bin", b"", tarfile.DIRTYPE), ("cifar-10-batches-bin/readme.html", b"<html>")] + [
        (f"cifar-10-batches-bin/{name}", content[name]) for name in reversed(content)]


def small_archive(blob):
    return replace(SMALL, size=len(blob), sha256=hashlib.sha256(blob).hexdigest())


BLOB = tar_bytes(official())
ARCHIVE = small_archive(BLOB)


def write_archive(directory, blob=BLOB):
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / SMALL.name
    path.write_bytes(blob)
    return path


def write_folder(directory, content=CONTENT):
    directory.mkdir(parents=True)
    for name, blob in content.items():
        (directory / name).write_bytes(blob)
    return directory


def assert_is_content(dataset):
    assert dataset.name == "cifar10" and dataset.classes == cifar10.CLASSES and dataset.notice == ""
    assert dataset.train.images.shape == (5 * RECORDS, 3, 32, 32) and dataset.test.images.shape == (RECORDS, 3, 32, 32)
    assert dataset.train.labels.dtype == np.int64
    for i, name in enumerate(SMALL.files):
        raw = np.frombuffer(CONTENT[name], np.uint8).reshape(RECORDS, -1)
        part, where = (dataset.train, slice(i * RECORDS, (i + 1) * RECORDS)) if i < 5 else (dataset.test, slice(None))
        np.testing.assert_array_equal(part.labels[where], raw[:, 0])
        np.testing.assert_array_equal(part.images[where][:, 2, 31, 30], raw[:, 1 + 2 * 1024 + 31 * 32 + 30])
        np.testing.assert_array_equal(part.images[where].reshape(RECORDS, -1), raw[:, 1:])


def refused(function, *arguments, match=None, **more):
    """One UserError of one line."""
    with pytest.raises(UserError, match=match) as caught:
        function(*arguments, **more)
    assert "\n" not in str(caught.value) and str(caught.value)
    return str(caught.value)


# ── what the official archive is ─────────────────────────────────────────────────────────────────────────────────────

def test_the_official_archive_is_described_as_published():
    archive = cifar10.OFFICIAL
    assert archive.size == 170_052_171 and archive.file_size == 30_730_000 and len(archive.files) == 6
    assert archive.sha256 == "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
    assert archive.url.startswith("https://www.cs.toronto.edu/")


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────

def test_archive_is_read_by_member_name_whatever_the_order(tmp_path):
    dataset = cifar10.read_archive(write_archive(tmp_path), ARCHIVE)
    assert_is_content(dataset)
    assert dataset.checksum == "archive-sha256:" + ARCHIVE.sha256
    assert sorted(p.name for p in tmp_path.iterdir()) == [SMALL.name, "work"]   # nothing extracted


def test_folder_is_read_and_its_checksum_is_of_its_records(tmp_path):
    dataset = cifar10.read_folder(write_folder(tmp_path / "x"), SMALL)
    assert_is_content(dataset)
    assert dataset.checksum == "records-sha256:" + hashlib.sha256(b"".join(CONTENT[n] for n in SMALL.files)).hexdigest()
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
    assert_is_content(cifar10.load(data_dir, download=False, archive=ARCHIVE))
    if data_dir is None:
        monkeypatch.setenv("NUMPYVIT_DATA", str(tmp_path / "nowhere"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nowhere"))
        monkeypatch.chdir(tmp_path)
        refused(cifar10.load, None, download=False, archive=ARCHIVE, match="not found")


def test_data_dir_comes_before_the_other_places(tmp_path, monkeypatch):
    write_archive(tmp_path / "cache" / "numpyvit")
    other = dict(CONTENT, **{"test_batch.bin": CONTENT["data_batch_1.bin"]})
    write_folder(tmp_path / "mine" / "cifar-10-batches-bin", other)
    dataset = cifar10.load(tmp_path / "mine", download=False, archive=ARCHIVE)
    np.testing.assert_array_equal(dataset.test.images, dataset.train.images[:RECORDS])


def with_label_10(raw, record=3):
    return raw[:record * cifar10.RECORD] + b"\x0a" + raw[record * cifar10.RECORD + 1:]


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
    assert SMALL.name in message


@pytest.mark.parametrize("blob", [b"", b"not gzip" * 9, gzip.compress(b"not tar" * 999), gzip.compress(b""), BLOB[:5000],
                                  tar_bytes(official(), "w")], ids=range(6))
def test_archive_that_is_none(blob, tmp_path):
    refused(cifar10.read_archive, write_archive(tmp_path, blob), small_archive(blob))


def test_archive_that_is_a_directory_or_a_pipe(tmp_path):
    (tmp_path / "a" / SMALL.name).mkdir(parents=True)
    refused(cifar10.load, tmp_path / "a", download=False, archive=ARCHIVE, match="regular file")
    if hasattr(os, "mkfifo"):
        (tmp_path / "b").mkdir()
        os.mkfifo(tmp_path / "b" / SMALL.name)
        refused(cifar10.load, tmp_path / "b", download=False, archive=ARCHIVE, match="regular file")
        target = write_folder(tmp_path / "c")
        (target / "data_batch_3.bin").unlink()
        os.mkfifo(target / "data_batch_3.bin")
        refused(cifar10.load, tmp_path / "c", download=False, archive=ARCHIVE, match="regular file")


@pytest.mark.parametrize("change, words", [
    (lambda path: path.unlink(), "cannot be read"),
    (lambda path: path.write_bytes(b""), "got 0"),
    (lambda path: path.write_bytes(path.read_bytes()[:-1]), "got 21,510"),
    (lambda path: path.write_bytes(path.read_bytes() + b"x"), "got 21,512"),
    (lambda path: path.write_bytes(with_label_10(path.read_bytes(), 6)), r"record 6 \(byte 18,438\)"),
    (lambda path: (path.unlink(), path.mkdir()), "regular file"),
    (lambda path: (path.unlink(), path.symlink_to("nowhere")), "cannot be read")],
    ids=["missing", "empty", "short", "long", "label 10", "directory", "dangling link"])
@pytest.mark.parametrize("name", ["data_batch_1.bin", "data_batch_4.bin", "test_batch.bin"])
def test_broken_folder_is_an_error_and_not_a_reason_to_look_elsewhere(change, words, name, tmp_path):
    write_archive(tmp_path / "cache" / "numpyvit")
    change(write_folder(tmp_path / "mine" / "cifar-10-batches-bin") / name)
    message = refused(cifar10.load, tmp_path / "mine", archive=ARCHIVE, match=words)
    assert name in message


def test_label_9_and_zero_are_labels(tmp_path):
    raw = np.frombuffer(CONTENT["test_batch.bin"], np.uint8).reshape(RECORDS, -1).copy()
    raw[:, 0] = [0, 9, 0, 9, 0, 9, 0]
    write_folder(tmp_path / "x", dict(CONTENT, **{"test_batch.bin": raw.tobytes()}))
    assert cifar10.read_folder(tmp_path / "x", SMALL).test.labels.tolist() == [0, 9, 0, 9, 0, 9, 0]


# ── downloading, from a server of our own ────────────────────────────────────────────────────────────────────────────

@contextlib.contextmanager
def server(blob=BLOB, cut=(), ranges=True, status=None, chunked=False, length=None):
    """Serves blob on 127.0.0.1.   cut: after how many bytes each answer in turn breaks off (then: never)"""
    asked, cuts = [], list(cut)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            asked.append(wanted)
            start = int(wanted[6:-1]) if wanted and ranges else 0
            if status or start >= len(blob):
                self.send_error(status or 416)
                return
            self.send_response(206 if wanted and ranges else 200)
            if wanted and ranges:
                self.send_header("Content-Range", f"bytes {start}-{len(blob) - 1}/{len(blob)}")
            if not chunked:
                self.send_header("Content-Length", str(length or len(blob) - start))
            self.end_headers()
            self.wfile.write(blob[start:start + cuts.pop(0)] if cuts else blob[start:])
            self.wfile.flush()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{running.server_address[1]}/{SMALL.name}", asked
        finally:
            running.shutdown()


def silent(done, total):
    assert 0 <= done <= total == len(BLOB)


def fetch(url, path, progress=silent):
    cifar10.fetch(path, replace(ARCHIVE, url=url), progress)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "numpyvit" / SMALL.name


def part_of(target):
    return target.with_name(target.name + ".part")


@pytest.mark.parametrize("chunked", [False, True])
def test_download(target, chunked):
    seen = []
    with server(chunked=chunked) as (url, asked):
        fetch(url, target, progress=lambda *figures: seen.append(figures))
    assert target.read_bytes() == BLOB and asked == [None] and not part_of(target).exists()
    assert seen[0] == (0, len(BLOB)) and seen[-1] == (len(BLOB), len(BLOB))


def test_broken_connections_are_taken_up_where_they_broke(target):
    with server(cut=[30_000, 20_000]) as (url, asked):
        fetch(url, target)
    assert target.read_bytes() == BLOB
    assert asked == [None, "bytes=30000-", "bytes=50000-"]


def test_an_earlier_processs_part_is_resumed(target):
    target.parent.mkdir(parents=True)
    part_of(target).write_bytes(BLOB[:1234])
    with server() as (url, asked):
        fetch(url, target)
    assert target.read_bytes() == BLOB and asked == ["bytes=1234-"]


def test_a_complete_part_needs_no_request(target):
    target.parent.mkdir(parents=True)
    part_of(target).write_bytes(BLOB)
    with server() as (url, asked):
        fetch(url, target)
    assert target.read_bytes() == BLOB and asked == []


@pytest.mark.parametrize("part", [b"junk" * 500, BLOB[:100] + b"?" + BLOB[101:3000], b"x" * len(BLOB), b"x" * (len(BLOB) + 5)],
                         ids=["junk", "one byte", "as long", "longer"])
def test_a_part_of_something_else_costs_one_fresh_start(target, part):
    target.parent.mkdir(parents=True)
    part_of(target).write_bytes(part)
    with server() as (url, asked):
        fetch(url, target)
    assert target.read_bytes() == BLOB and asked[-1] is None and len(asked) <= 2


def test_a_server_without_ranges_sends_it_all_again(target):
    with server(cut=[30_000], ranges=False) as (url, asked):
        fetch(url, target)
    assert target.read_bytes() == BLOB and asked == [None, "bytes=30000-"]


@pytest.mark.parametrize("resumed", [False, True])
def test_wrong_content_is_refused_and_not_kept(target, resumed):
    wrong = bytes(len(BLOB))
    if resumed:
        target.parent.mkdir(parents=True)
        part_of(target).write_bytes(BLOB[:999])
    with server(wrong) as (url, asked):
        refused(fetch, url, target, match="SHA-256")
    assert not target.exists() and part_of(target).stat().st_size == 0
    assert asked == (["bytes=999-", None] if resumed else [None])
    with server() as (url, _):                                               # and nothing stands in the way of the next try
        fetch(url, target)
    assert target.read_bytes() == BLOB


@pytest.mark.parametrize("options, words", [
    (dict(blob=b"<html>log in</html>"), "offers a file of 19 bytes"), (dict(blob=b"<html>log in</html>", chunked=True), "0 of 129,"),
    (dict(blob=BLOB + b"x", chunked=True), "more than"), (dict(status=404), "404"), (dict(status=503), "503"),
    (dict(blob=BLOB[:-1]), "offers")], ids=["page", "page, chunked", "too long", "404", "503", "too short"])
def test_wrong_answers(target, options, words):
    with server(**options) as (url, asked):
        refused(fetch, url, target, match=words)
    assert not target.exists() and len(asked) <= 6


def test_server_gone_keeps_what_has_come(target):
    with server(cut=[40_000, 0, 0, 0, 0]) as (url, asked):
        refused(fetch, url, target, match="40,000 of")
        assert len(asked) < 5
    refused(fetch, url, target, match="could not be downloaded")
    assert part_of(target).read_bytes() == BLOB[:40_000]
    with server() as (url, asked):
        fetch(url, target)
    assert target.read_bytes() == BLOB and asked == ["bytes=40000-"]


def test_a_server_that_says_nothing_is_given_up(target, monkeypatch):
    import socket
    monkeypatch.setattr(cifar10, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        refused(fetch, f"http://127.0.0.1:{deaf.getsockname()[1]}/x", target, match="timed out")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://name.invalid/x", "no url", "http://[", ""])
def test_addresses_that_lead_nowhere(target, url):
    refused(fetch, url, target, match="could not be downloaded")


def test_two_downloads_at_once(target):
    pytest.importorskip("fcntl")
    import fcntl
    target.parent.mkdir(parents=True)
    with open(part_of(target), "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        refused(fetch, "http://127.0.0.1:1/x", target, match="another process")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk(target):
    target.parent.mkdir(parents=True)
    part_of(target).symlink_to("/dev/full")
    with server() as (url, _):
        refused(fetch, url, target, match="cannot be written")
    assert not target.exists()


def test_cache_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    refused(fetch, "http://127.0.0.1:1/x", tmp_path / "file" / SMALL.name, match="XDG_CACHE_HOME")


def test_load_downloads_reads_and_finds_it_the_next_time(target):
    with server() as (url, asked):
        archive = replace(ARCHIVE, url=url)
        assert_is_content(cifar10.load(archive=archive, progress=silent))
        assert_is_content(cifar10.load(archive=archive, progress=silent))
        assert asked == [None]
        target.write_bytes(BLOB[:-1] + b"?")                                 # gone bad in the cache: fetched anew
        assert_is_content(cifar10.load(archive=archive, progress=silent))
        assert len(asked) == 2 and target.read_bytes() == BLOB
        target.write_bytes(BLOB[:-1] + b"?")
        refused(cifar10.load, archive=archive, download=False, match="SHA-256")


def test_plain_lines_of_progress_where_there_is_no_terminal(target, capsys):
    with server() as (url, _):
        cifar10.fetch(target, replace(ARCHIVE, url=url))
    lines = capsys.readouterr().out.splitlines()
    assert 2 <= len(lines) <= 11 and all(line.startswith(f"downloading {SMALL.name}: ") for line in lines)


# ── load, as people call it ──────────────────────────────────────────────────────────────────────────────────────────

@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(cifar10, "OFFICIAL", replace(ARCHIVE, url="http://127.0.0.1:1/x"))


def test_auto_falls_back_to_shapes_and_says_so(offline):
    dataset = load("auto")
    assert dataset.name == "shapes" and "CIFAR-10" in dataset.notice and "shapes" in dataset.notice
    assert "\n" not in dataset.notice and "127.0.0.1" in dataset.notice
    assert load("auto", download=False).notice != "" == load("shapes").notice


def test_auto_takes_cifar10_where_it_is(offline, tmp_path):
    write_archive(tmp_path / "mine")
    assert_is_content(load("auto", tmp_path / "mine"))
    assert_is_content(load(data_dir=str(tmp_path / "mine")))


@pytest.mark.parametrize("download", [True, False])
def test_cifar10_that_cannot_be_had_names_three_ways_out(offline, download):
    message = refused(load, "cifar10", download=download)
    for way in ("with a network", "--data-dir or $NUMPYVIT_DATA", "--data shapes", SMALL.name, SMALL.folder):
        assert way in message


@pytest.mark.parametrize("name", ["auto", "cifar10"])
def test_a_wrong_path_or_a_broken_copy_is_no_reason_to_fall_back(offline, name, tmp_path):
    refused(load, name, tmp_path / "typo", match="typo does not exist")
    write_archive(tmp_path / "mine", BLOB[:-5])
    refused(load, name, tmp_path / "mine", match="truncated")
    refused(load, name, img_size=64, match="32")
    (tmp_path / "pictures" / "train" / "cat").mkdir(parents=True)
    refused(load, name, tmp_path / "pictures", match="--data folder")


def test_unknown_name():
    refused(load, "mnist", match="auto, cifar10, shapes, folder, got 'mnist'")
    refused(load, "folder", match="--data-dir")


# ── split ────────────────────────────────────────────────────────────────────────────────────────────────────────────

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


# ── shapes ───────────────────────────────────────────────────────────────────────────────────────────────────────────

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


# ── folders of images, and single images ─────────────────────────────────────────────────────────────────────────────

Image = pytest.importorskip("PIL.Image")


def picture(seed=0, width=20, height=14, mode="RGB"):
    rng = np.random.default_rng(seed)
    bands = {"RGB": 3, "RGBA": 4, "CMYK": 4, "LA": 2}.get(mode)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (height, width), dtype=np.uint16))
    if mode in ("P", "1"):
        return picture(seed, width, height, "RGB").convert(mode)
    array = rng.integers(0, 256, (height, width, bands) if bands else (height, width), dtype=np.uint8)
    return Image.fromarray(array, mode=None) if mode in ("RGB", "L", "RGBA", "LA") else Image.fromarray(array, mode)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_images(root, split="train", classes=("ant", "bee"), count=3, suffix=".png"):
    """ROOT/split/CLASS/…, every image another one."""
    for label, name in enumerate(classes):
        (root / split / name).mkdir(parents=True)
        for i in range(count):
            picture(1000 * label + i).save(root / split / name / f"{i}{suffix}")
    return root


def test_read_image_of_the_right_size_is_left_as_it_is(tmp_path):
    picture(width=16, height=16).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 16), np.asarray(picture(width=16, height=16)).transpose(2, 0, 1))


def test_read_image_resizes_the_short_side_and_cuts_the_centre(tmp_path):
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:50], image[:, 50:70] = (200, 10, 10), (10, 200, 10)          # the centre square: red left, green right
    Image.fromarray(image).save(tmp_path / "a.png")
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        out = read_image(path, 10)
        assert out.shape == (3, 10, 10) and out.dtype == np.uint8 and out.flags.c_contiguous
        assert (out[:, :, 2] == np.array([200, 10, 10])[:, None]).all()      # its filter reaches eight pixels each way
        assert (out[:, :, 7] == np.array([10, 200, 10])[:, None]).all()
    Image.fromarray(image.transpose(1, 0, 2)).save(tmp_path / "b.png")
    np.testing.assert_allclose(read_image(tmp_path / "b.png", 10), out.transpose(0, 2, 1), atol=1)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1", "I;16"])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_read_image_modes(mode, in_chans, tmp_path):
    picture(mode=mode).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", 8, in_chans).shape == (in_chans, 8, 8)
    if mode in ("RGB", "L", "CMYK"):
        picture(mode=mode).save(tmp_path / "a.jpg")
        assert read_image(tmp_path / "a.jpg", 8, in_chans).shape == (in_chans, 8, 8)


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png", 9) == 40_000 >> 8).all()


def test_read_image_turns_it_upright(tmp_path):
    image = Image.fromarray(np.repeat(np.arange(0, 240, 15, dtype=np.uint8)[:, None], 16, axis=1))
    exif = Image.Exif()
    exif[0x0112] = 6                                                         # turn by 90° clockwise to view
    image.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 16, 1)[0], np.rot90(np.asarray(image), -1))


def test_a_large_jpeg_is_read_with_little_memory(tmp_path):
    pytest.importorskip("resource")
    ramp = np.linspace(0, 255, 5000, dtype=np.uint8)
    Image.fromarray(np.broadcast_to(ramp[None, :, None], (4000, 5000, 3)).copy()).save(tmp_path / "a.jpg")
    code = ("import resource, sys; from numpyvit.data import read_image; import PIL.Image, PIL.JpegImagePlugin; "
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; image = read_image(sys.argv[1], 32); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, *image[0, 16, [1, 16, 30]])")
    root = Path(numpyvit_data.__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.jpg")], cwd=root, capture_output=True, text=True, check=True)
    kilobytes, left, middle, right = map(int, out.stdout.split())
    assert kilobytes < 64 * 1024 and abs(left - 37) < 9 and abs(middle - 131) < 9 and abs(right - 218) < 9


def test_images_that_are_too_large_are_refused(tmp_path):
    Image.new("1", (12_000, 12_000)).save(tmp_path / "bomb.png")
    refused(read_image, tmp_path / "bomb.png", 32, match="too many pixels")
    Image.new("RGB", (6_000, 5_000)).save(tmp_path / "large.png")
    refused(read_image, tmp_path / "large.png", 32, match="6000 × 5000 pixels would take 114 MiB")


def unreadable(tmp_path):
    png, jpeg = encoded(picture()), encoded(picture(width=200, height=200), "JPEG")
    yield "missing.png", None, "No such file"
    yield "empty.png", b"", "neither"
    yield "text.png", b"hello", "neither"
    yield "truncated.png", png[:len(png) // 2], "damaged"
    yield "header.png", png[:20], None
    yield "truncated.jpg", jpeg[:len(jpeg) // 2], "damaged"
    yield "magic.jpg", jpeg[:3], "neither"
    yield "other.gif", encoded(picture().convert("P"), "GIF"), "neither"
    yield "crc.png", png[:30] + bytes([png[30] ^ 255]) + png[31:], None


def test_unreadable_images(tmp_path):
    for name, blob, words in unreadable(tmp_path):
        if blob is not None:
            (tmp_path / name).write_bytes(blob)
        assert name in refused(read_image, tmp_path / name, 8, match=words)
    refused(read_image, tmp_path, 8, match="directory")
    refused(read_image, "a\0b", 8)
    (tmp_path / "good.png").write_bytes(encoded(picture()))
    refused(read_image, tmp_path / "good.png", 8, 4, match="in_chans")
    refused(read_image, tmp_path / "good.png", 0, match="img_size")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        refused(read_image, tmp_path / "pipe.png", 8, match="something else")


def test_without_pillow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    refused(read_image, tmp_path / "a.png", 8, match="pip install pillow")


@pytest.mark.parametrize("split", ["test", "val"])
def test_folder(split, tmp_path):
    write_images(tmp_path, classes=("bee", "ant", "cow"))
    write_images(tmp_path, split, classes=("cow", "bee"), count=2, suffix=".JPG")
    (tmp_path / "train" / "ant" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / "ant" / ".hidden.png").write_text("not an image")
    (tmp_path / "train" / "README").write_text("")
    dataset = load("folder", tmp_path, img_size=14)
    assert dataset.classes == ("ant", "bee", "cow") and dataset.notice == ""
    assert dataset.train.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 and dataset.test.labels.tolist() == [1, 1, 2, 2]
    np.testing.assert_array_equal(dataset.train.images[0], read_image(tmp_path / "train" / "ant" / "0.png", 14))
    np.testing.assert_array_equal(dataset.train.images[8], read_image(tmp_path / "train" / "cow" / "2.png", 14))
    np.testing.assert_array_equal(dataset.test.images[3], read_image(tmp_path / split / "cow" / "1.JPG", 14))
    assert load("folder", str(tmp_path)).train.images.shape == (9, 3, 32, 32)
    before = dataset.checksum
    picture(99).save(tmp_path / "train" / "ant" / "0.png")
    assert load("folder", tmp_path, img_size=14).checksum != before


def test_folder_without_a_test_set_holds_out_a_tenth(tmp_path):
    write_images(tmp_path, count=20)
    dataset = load("folder", tmp_path, img_size=8)
    assert len(dataset.train) == 36 and dataset.test.labels.tolist() == [0, 0, 1, 1]
    assert "4 of the 40 images" in dataset.notice and "test" in dataset.source
    assert len(np.unique(np.concatenate([dataset.train.images, dataset.test.images]).reshape(40, -1), axis=0)) == 40
    np.testing.assert_array_equal(dataset.test.images, load("folder", tmp_path, 8).test.images)


def test_broken_folders(tmp_path):
    refused(load, "folder", tmp_path / "nowhere", match="train")
    refused(load, "folder", tmp_path, match="train")
    (tmp_path / "train").mkdir()
    refused(load, "folder", tmp_path, match="found none")
    (tmp_path / "train" / "ant").mkdir()
    refused(load, "folder", tmp_path, match="ant.*found none")
    picture().save(tmp_path / "train" / "ant" / "0.png")
    refused(load, "folder", tmp_path, match="two images")
    picture().save(tmp_path / "train" / "ant" / "1.png")
    assert len(load("folder", tmp_path).train) == 1
    (tmp_path / "train" / "ant" / "2.png").write_bytes(encoded(picture())[:200])
    assert "2.png" in refused(load, "folder", tmp_path, match="damaged")
    (tmp_path / "train" / "ant" / "2.png").unlink()
    (tmp_path / "test" / "ant").mkdir(parents=True)
    refused(load, "folder", tmp_path, match="found none")
    (tmp_path / "test" / "wasp").mkdir()
    refused(load, "folder", tmp_path, match="'wasp' is not in")
    refused(load, "folder", tmp_path, img_size=10**7, match="img_size")


# ── anything at all ──────────────────────────────────────────────────────────────────────────────────────────────────

THOROUGH = bool(os.environ.get("NUMPYVIT_THOROUGH"))                           # 100,000 mutated files of each kind


def mutate(blob, random_):
    """A few bit flips, a cut, an insertion, a repetition or a run of one byte."""
    blob = bytearray(blob)
    for _ in range(random_.choice((1, 1, 2, 8, 40))):
        at = random_.randrange(len(blob) + 1)
        kind = random_.randrange(6)
        if kind <= 1 and at < len(blob):
            blob[at] ^= 1 << random_.randrange(8)
        elif kind == 2 and random_.random() < 0.3:
            del blob[at:]
        elif kind == 3:
            blob[at:at + 4] = random_.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"-999"))
        elif kind == 4:
            blob[at:at] = bytes(random_.randrange(256) for _ in range(random_.randrange(9)))
        elif kind == 5:
            del blob[at:at + random_.randrange(50)]
    return bytes(blob)


def outcome(function, *arguments):
    try:
        function(*arguments)
        return "read"
    except UserError as error:
        assert str(error) and "\n" not in str(error)
        return "refused"


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
    assert sorted(p.name for p in tmp_path.iterdir()) == [SMALL.name, "work"] and not list((tmp_path / "work").iterdir())


def test_mutated_folders(tmp_path, figures):
    random_, seen = random.Random(2), {"read": 0, "refused": 0}
    target = write_folder(tmp_path / "x")
    for _ in range(100_000 if THOROUGH else 100):
        name = random_.choice(SMALL.files)
        (target / name).write_bytes(mutate(CONTENT[name], random_))
        seen[outcome(cifar10.read_folder, target, SMALL)] += 1
        figures.add()
        (target / name).write_bytes(CONTENT[name])
    assert seen["read"] and seen["refused"]


@pytest.mark.parametrize("kind, options", [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True})])
def test_mutated_images(kind, options, tmp_path, figures):
    random_, seen = random.Random(3), {"read": 0, "refused": 0}
    exif = Image.Exif()
    exif[0x0112] = 3
    originals = [encoded(picture(mode=mode, width=37, height=29), kind, exif=exif, **options)
                 for mode in ("RGB", "L", *(("RGBA", "P", "I;16") if kind == "PNG" else ()))]
    for _ in range(35_000 if THOROUGH else 200):
        (tmp_path / "a.bin").write_bytes(mutate(random_.choice(originals), random_))
        seen[outcome(read_image, tmp_path / "a.bin", 16)] += 1
        figures.add()
    assert seen["read"] and seen["refused"]
