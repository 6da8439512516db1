"""CIFAR-10 (Krizhevsky 2009) in its binary version: found, downloaded, verified, read.

An image is one record of 3,073 bytes: the label, then 32 × 32 red, green and blue values, row by row. Six files hold
10,000 records each. They are read from the archive's own stream by exact member name, so nothing is extracted and no path
inside the archive is used; the archive's size and SHA-256 are checked before its first byte is interpreted.
"""
import hashlib
import http.client
import os
import stat
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from numpyvit.data.dataset import Dataset, ImageSet
from numpyvit.errors import UserError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGE_SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
BLOCK = 1 << 18


@dataclass(frozen=True)
class Archive:
    """What the official archive is; the tests describe smaller ones."""
    url: str = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    name: str = "cifar-10-binary.tar.gz"
    size: int = 170_052_171
    sha256: str = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"   # of MD5 c32a1d4ab5d03f1284b67883e8d87530
    folder: str = "cifar-10-batches-bin"
    train_files: tuple[str, ...] = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
    test_file: str = "test_batch.bin"
    records: int = 10_000                                                    # in each file

    @property
    def files(self):
        return (*self.train_files, self.test_file)

    @property
    def file_size(self):
        return self.records * RECORD


OFFICIAL = Archive()


class NotAvailable(UserError):
    """There is no copy of CIFAR-10 and none could be fetched; `reason` says why, in a few words."""

    def __init__(self, reason, archive):
        self.reason = " ".join(str(reason).split())
        super().__init__(
            f"CIFAR-10 is not available: {self.reason}. Three ways out: (1) run once with a network, to download it; "
            f"(2) put {archive.name} or the unpacked folder {archive.folder} under --data-dir or $NUMPYVIT_DATA; "
            "(3) use --data shapes, which needs no files")


class DownloadFailed(UserError):
    """The archive could not be fetched. What has arrived stays in the .part file, unless it was wrong."""


def load(data_dir=None, img_size=None, download=True, progress=None, archive=None):
    """CIFAR-10 from the first place that has it, else by download to the user's cache.

    → Dataset: train 50,000 and test 10,000 images (n, 3, 32, 32)
    Raises NotAvailable if there is none to be had, UserError if the copy that was found is broken.
    """
    archive = archive or OFFICIAL
    if img_size not in (None, 32):
        raise UserError(f"cifar10: expected an image size of 32, got {img_size}; CIFAR-10 images are 32 × 32, choose a "
                        "model for that size or another data set")
    if data_dir is not None and not Path(data_dir).exists():
        raise UserError(f"data directory: {data_dir} does not exist; give the directory that has {archive.folder} or "
                        f"{archive.name}")
    if data_dir is not None and not Path(data_dir).is_dir() and not str(data_dir).endswith(".tar.gz"):
        raise UserError(f"data directory: expected a directory or {archive.name}, got the file {data_dir}")
    cached = cache_dir() / archive.name
    for place in search_places(data_dir):
        found = find(place, archive)
        if found is None:
            continue
        if not found.name.endswith(".tar.gz"):
            return read_folder(found, archive)
        try:
            return read_archive(found, archive)
        except UserError:
            if found != cached or not download:                              # a cached copy gone bad is fetched anew
                raise
    if data_dir is not None and (Path(data_dir) / "train").is_dir():
        raise UserError(f"{data_dir}: expected {archive.folder} or {archive.name}, found train/; for a folder of images "
                        "use --data folder")

    looked = "not found in " + ", ".join(str(place) for place in search_places(data_dir))
    for place in search_places(data_dir):
        for other in ("cifar-10-batches-py", "cifar-10-python.tar.gz"):
            if (place / other).exists():
                looked += f" ({place / other} is the pickled version, which is not read)"
    if not download:
        raise NotAvailable(f"{looked}, and downloading is switched off", archive)
    try:
        fetch(cached, archive, progress)
    except DownloadFailed as error:
        raise NotAvailable(f"{looked}; {error}", archive) from error
    return read_archive(cached, archive)


# ── finding ──────────────────────────────────────────────────────────────────────────────────────────────────────────

def cache_dir():
    """$XDG_CACHE_HOME/numpyvit, or ~/.cache/numpyvit"""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~"), ".cache")) / "numpyvit"


def search_places(data_dir=None):
    """Where a copy is looked for, in order."""
    named = [data_dir, os.environ.get("NUMPYVIT_DATA"), "data"]
    return [Path(place).expanduser() for place in named if place] + [cache_dir()]


def find(place, archive=OFFICIAL):
    """The unpacked folder or the archive in or at a path, or None.

    The folder comes first: it needs no decompression. One of its six files is enough to be taken for it, so that a
    missing one is an error and not a silent search elsewhere.
    """
    try:
        if place.is_file() and place.name.endswith(".tar.gz"):
            return place
        for folder in (place / archive.folder, place):
            if any((folder / name).exists() for name in archive.files):
                return folder
        candidate = place / archive.name
        return candidate if candidate.exists() else None
    except OSError as error:
        raise UserError(f"{place}: cannot be looked into ({_why(error)}); check its permissions") from error


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────

def read_archive(path, archive=OFFICIAL):
    """The archive file, verified and then read from its stream.   Raises UserError."""
    path = Path(path)
    with _open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != archive.size:
            what = "it is truncated" if size < archive.size else "it is another file"
            raise UserError(f"{path}: expected {archive.size:,} bytes, got {size:,}; {what}: delete it to have it "
                            f"downloaded again, or get {archive.name} anew")
        digest = _sha256(file)
        if digest != archive.sha256:
            raise UserError(f"{path}: expected SHA-256 {archive.sha256}, got {digest}; it is damaged or another file: "
                            f"delete it to have it downloaded again, or get {archive.name} anew")
        file.seek(0)
        try:
            train, test = _read_members(path, file, archive)
        except UserError:
            raise
        except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, OverflowError, IndexError) as error:
            raise UserError(f"{path}: not a readable tar.gz archive ({_why(error)}); get {archive.name} anew") from error
    return Dataset("cifar10", CLASSES, train, test, "archive-sha256:" + digest, source=f"archive {path}, SHA-256 verified")


def _read_members(path, file, archive):
    wanted = {f"{archive.folder}/{name}": name for name in archive.files}
    train, test, places = _allocate(archive)
    with tarfile.open(fileobj=file, mode="r|gz") as tar:
        for member in tar:
            name = wanted.get(member.name)
            if name is None:
                continue
            if not member.isreg() or member.size != archive.file_size:
                raise UserError(f"{path}: member {member.name}: expected a regular file of {archive.file_size:,} bytes, "
                                f"got {'one' if member.isreg() else 'another kind'} of {member.size:,}; get "
                                f"{archive.name} anew")
            if name not in places:
                raise UserError(f"{path}: member {member.name} is there twice; get {archive.name} anew")
            _read_records(tar.extractfile(member), f"{path}: member {member.name}", archive, *places.pop(name))
    if places:
        raise UserError(f"{path}: expected {len(wanted)} members, {', '.join(places)} missing; get {archive.name} anew")
    return train, test


def read_folder(path, archive=OFFICIAL):
    """An unpacked folder: six files of exactly their size, labels 0 … 9.   Raises UserError.

    The images need not be the official bytes: the checksum says which they are.
    """
    path = Path(path)
    for name in archive.files:
        with _open_regular(path / name) as file:
            size = os.fstat(file.fileno()).st_size
        if size != archive.file_size:
            raise UserError(f"{path / name}: expected {archive.file_size:,} bytes, got {size:,}; unpack {archive.name} "
                            "again")
    train, test, places = _allocate(archive)
    digest = hashlib.sha256()
    for name, place in places.items():
        with _open_regular(path / name) as file:
            digest.update(_read_records(file, path / name, archive, *place))
    checksum = digest.hexdigest()
    return Dataset("cifar10", CLASSES, train, test, "records-sha256:" + checksum,
                   source=f"folder {path}, sha256 {checksum} of its six files (not the archive's, so not compared)")


def _allocate(archive):
    """→ train, test: ImageSets to be filled;   {file name: its part of (images, labels)}, in order"""
    n, places = archive.records, {}
    train, test = (ImageSet(np.empty((n * files, *IMAGE_SHAPE), dtype=np.uint8), np.empty(n * files, dtype=np.int64))
                   for files in (len(archive.train_files), 1))
    for i, name in enumerate(archive.train_files):
        places[name] = train.images[i * n:(i + 1) * n], train.labels[i * n:(i + 1) * n]
    places[archive.test_file] = test.images, test.labels
    return train, test, places


def _read_records(file, where, archive, images, labels):
    """Fill images (n, 3, 32, 32) and labels (n,) from one file of records; → its bytes"""
    try:
        raw = file.read(archive.file_size)
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({_why(error)})") from error
    if len(raw) != archive.file_size:
        raise UserError(f"{where}: expected {archive.file_size:,} bytes, got {len(raw):,}; it is truncated, get "
                        f"{archive.name} anew")
    records = np.frombuffer(raw, dtype=np.uint8).reshape(archive.records, RECORD)
    labels[:] = records[:, 0]
    if labels.max() >= len(CLASSES):
        first = int(np.argmax(labels >= len(CLASSES)))
        raise UserError(f"{where}: expected labels 0 to 9, got {labels[first]} in record {first} (byte "
                        f"{first * RECORD:,}); it is damaged, get {archive.name} anew")
    images[:] = records[:, 1:].reshape(images.shape)
    return raw


def _open_regular(path):
    """Opened for reading, if it is a file: a pipe or a device would block or never end."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError(f"{path}: expected a regular file, got something else; replace it")
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({_why(error)}); check that it exists and its permissions") from error


def _sha256(file):
    """SHA-256 of an open file from its beginning, as hex."""
    file.seek(0)
    digest = hashlib.sha256()
    try:
        while block := file.read(BLOCK):
            digest.update(block)
    except OSError as error:
        raise UserError(f"{file.name}: cannot be read ({_why(error)})") from error
    return digest.hexdigest()


def _why(error):
    """An exception in a few words, on one line."""
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        error = error.reason
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) if text else type(error).__name__


# ── downloading ──────────────────────────────────────────────────────────────────────────────────────────────────────

ATTEMPTS = 20                                                                # requests, as long as each brings something
TIMEOUT = 10                                                                 # seconds without an answer or without data
PAUSE = 1                                                                    # seconds between two attempts


def fetch(path, archive=OFFICIAL, progress=None):
    """Download archive.url to path by way of path.part, so that path is either absent or the verified archive.

    What an earlier attempt left in path.part is continued by an HTTP range request; if the whole then has the wrong
    checksum, it is fetched once more from the start.
    Raises DownloadFailed (no network, a wrong file, another process at it) and UserError (the disk).
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(part, "a+b", buffering=0)
    except OSError as error:
        raise UserError(f"{part}: cannot be written ({_why(error)}); set XDG_CACHE_HOME to a directory that can") from error
    with file:
        _lock(file, part)
        show = progress or Display(f"downloading {archive.name}")
        try:
            resumed = _size(file) > 0
            _transfer(file, archive, show)
            digest = _sha256(file)
            if digest != archive.sha256 and resumed:
                _truncate(file)
                _transfer(file, archive, show)
                digest = _sha256(file)
        finally:
            if progress is None:
                show.close()
        if digest != archive.sha256:
            _truncate(file)
            raise DownloadFailed(f"{archive.url} gave a file of SHA-256 {digest}, expected {archive.sha256}")
        try:
            os.fsync(file.fileno())
            os.replace(part, path)
            _fsync_directory(path.parent)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({_why(error)})") from error


def _transfer(file, archive, show):
    """Append to file until it has archive.size bytes; a connection that broke is taken up again where it broke."""
    url, failure = archive.url, "too many attempts"
    begun_again, patience = False, 1                                         # patience: attempts that may bring nothing
    for _ in range(ATTEMPTS):
        if _size(file) > archive.size:
            _truncate(file)
        before = _size(file)
        if before == archive.size:
            return
        try:
            _request(url, file, before, archive, show)
            failure = "the connection ended early"
        except urllib.error.HTTPError as error:
            error.close()
            failure = f"{error.code} {error.reason}"
            if error.code == 416:                                            # no such range
                _truncate(file)
        except UserError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            failure = _why(error)
        size = _size(file)
        if size == archive.size:
            return
        if size == 0 and before:                                             # what we had was of no use
            if begun_again:
                break
            begun_again = True
            continue
        patience = 2 if size > before else patience - 1
        if not patience:
            break
        time.sleep(PAUSE)
    if _size(file) != archive.size:
        raise DownloadFailed(f"{url} could not be downloaded ({failure}; {_size(file):,} of {archive.size:,} bytes so far)")


def _request(url, file, start, archive, show):
    """One request; what it brings is appended to file, which has start bytes."""
    headers = {"User-Agent": "numpyvit", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
        if start and answer.status != 206:                                   # the whole file, whatever was asked
            _truncate(file)
            start = 0
        if start and not (answer.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
            _truncate(file)
            return
        length = answer.headers.get("Content-Length")
        if length is not None and length.isdigit() and start + int(length) != archive.size:
            raise DownloadFailed(f"{url} offers a file of {start + int(length):,} bytes, expected {archive.size:,}")
        done = start
        show(done, archive.size)
        while block := answer.read1(BLOCK):
            done += len(block)
            if done > archive.size:
                _truncate(file)
                raise DownloadFailed(f"{url} gives more than the expected {archive.size:,} bytes")
            try:
                while block:
                    block = block[file.write(block):]
            except OSError as error:
                raise UserError(f"{file.name}: cannot be written ({_why(error)}); make room or set XDG_CACHE_HOME to "
                                "another disk, the download will continue") from error
            show(done, archive.size)


def _size(file):
    return os.fstat(file.fileno()).st_size


def _truncate(file):
    file.seek(0)
    file.truncate()


def _lock(file, path):
    """One process downloads; the lock goes with the process, however that ends."""
    try:
        import fcntl
    except ImportError:                                                      # not on this system
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise DownloadFailed(f"another process is downloading {path.name} to {path.parent}; wait for it") from error


def _fsync_directory(path):
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:                                                          # a directory cannot be opened on this system
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Display:
    """A progress bar on a terminal; on anything else a plain line every tenth of the way."""

    def __init__(self, what):
        self.what, self.bar, self.task, self.told = what, None, None, -1
        if sys.stdout is not None and sys.stdout.isatty():
            try:
                from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
            except ImportError:
                return
            self.bar = Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                                TimeRemainingColumn())

    def __call__(self, done, total):
        if self.bar is not None:
            if self.task is None:
                self.bar.start()
                self.task = self.bar.add_task(self.what, total=total)
            self.bar.update(self.task, completed=done)
        elif sys.stdout is not None and 10 * done // total != self.told:
            self.told = 10 * done // total
            print(f"{self.what}: {done / 1e6:.0f} of {total / 1e6:.0f} MB", flush=True)

    def close(self):
        if self.bar is not None:
            self.bar.stop()
