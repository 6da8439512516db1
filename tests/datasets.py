"""Small data sets for the tests of data: CIFAR-10 with seven images a file, a server, mutated bytes."""
import contextlib
import hashlib
import http.server
import io
import tarfile
import threading
from dataclasses import replace

import numpy as np
import pytest

from numpyvit.data import UserError, cifar10

Image = pytest.importorskip("PIL.Image")

RECORDS = 7
ARCHIVE_NAME = "cifar-10-binary.tar.gz"
RECORD = cifar10.CIFAR10.record


def with_remote(records, **changes):
    """A CIFAR description with another archive: its urls, size or sha256."""
    return replace(records, source=replace(records.source, remotes=(replace(records.archive, **changes),)))


SMALL = replace(cifar10.CIFAR10, train_files=tuple((name, RECORDS) for name, _ in cifar10.CIFAR10.train_files),
                test_file=(cifar10.CIFAR10.test_file[0], RECORDS))
SMALL = with_remote(SMALL, urls=("",))


def records(seed):
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, (RECORDS, RECORD), dtype=np.uint8)
    raw[:, 0] = rng.integers(0, 10, RECORDS)
    return raw


CONTENT = {name: records(seed).tobytes() for seed, name in enumerate(SMALL.counts)}


def tar_bytes(members, mode="w:gz"):
    """members: (name, bytes) or (name, bytes, tar type); what is no file still claims a file's size"""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content, *kind in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if kind:
                info.type, info.linkname, info.size = kind[0], "elsewhere", RECORDS * RECORD
            tar.addfile(info, None if kind else io.BytesIO(content))
    return buffer.getvalue()


def official(content=CONTENT):
    """The members of an archive like the official one, in another order."""
    return [("cifar-10-batches-bin", b"", tarfile.DIRTYPE), ("cifar-10-batches-bin/readme.html", b"<html>")] + [
        (f"cifar-10-batches-bin/{name}", content[name]) for name in reversed(content)]


def small_archive(blob):
    return with_remote(SMALL, size=len(blob), sha256=hashlib.sha256(blob).hexdigest())


BLOB = tar_bytes(official())
ARCHIVE = small_archive(BLOB)


def write_archive(directory, blob=BLOB):
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / ARCHIVE_NAME
    path.write_bytes(blob)
    return path


def write_folder(directory, content=CONTENT):
    directory.mkdir(parents=True)
    for name, blob in content.items():
        (directory / name).write_bytes(blob)
    return directory


def assert_is_content(dataset):
    assert dataset.name == "cifar10" and dataset.classes == cifar10.CIFAR10.classes and dataset.notice == ""
    assert dataset.train.images.shape == (5 * RECORDS, 3, 32, 32) and dataset.test.images.shape == (RECORDS, 3, 32, 32)
    assert dataset.train.labels.dtype == np.int64
    for i, name in enumerate(CONTENT):
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


def outcome(function, *arguments):
    """"read" or "refused": anything but a result or one line is an error of the test."""
    try:
        function(*arguments)
        return "read"
    except UserError as error:
        assert str(error) and "\n" not in str(error)
        return "refused"


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


@contextlib.contextmanager
def server(blob=BLOB, cut=(), status=None, chunked=False, length=None, pause=0.0):
    """Serves blob on 127.0.0.1 → (address, requests so far).   cut: after how many bytes each answer in turn breaks off

    (then: never).   blob may be {path: bytes}.   pause: seconds between two blocks of 16 KiB
    """
    asked, cuts = [], list(cut)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            content = blob.get(self.path.lstrip("/")) if isinstance(blob, dict) else blob
            if status or content is None:
                self.send_error(status or 404)
                return
            self.send_response(200)
            if not chunked:
                self.send_header("Content-Length", str(length or len(content)))
            self.end_headers()
            content = content[:cuts.pop(0)] if cuts else content
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for start in range(0, len(content), 1 << 14 if pause else max(len(content), 1)):
                    self.wfile.write(content[start:start + (1 << 14)] if pause else content)
                    if pause:
                        threading.Event().wait(pause)
                self.wfile.flush()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{running.server_address[1]}/{ARCHIVE_NAME}", asked
        finally:
            running.shutdown()


@pytest.fixture(autouse=True)
def nothing_to_be_found(tmp_path, monkeypatch):
    """No copy of a data set anywhere, no proxy, a cache of the test's own, and no waiting between two attempts."""
    from pooch import core
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("NUMPYVIT_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(core.time, "sleep", lambda seconds: None)


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


def write_images(root, split="train", classes=("ant", "bee"), count=3, suffix=".png", first=0):
    """ROOT/split/CLASS/0.png …, every image another one. first: of the images that are drawn"""
    for label, name in enumerate(classes):
        (root / split / name).mkdir(parents=True)
        for i in range(count):
            picture(1000 * label + first + i).save(root / split / name / f"{i}{suffix}")
    return root
