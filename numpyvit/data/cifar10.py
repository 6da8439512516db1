"""CIFAR-10 (Krizhevsky 2009) in its binary version, and the reader that CIFAR-100 shares.

An image is one record: a label byte (two in CIFAR-100), then 32 × 32 red, green and blue values, row by row. The
records are read from the archive's own stream by exact member name, so nothing is extracted and no path inside the
archive is used; the archive's size and SHA-256 are checked before its first byte is interpreted.
"""
import hashlib
import tarfile
import zlib
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from .dataset import Dataset, ImageSet
from .sources import Remote, Source, load_from, reading, verified, why

IMAGE_SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
AT_ONCE = 1000                                                               # records that are read at a time


@dataclass(frozen=True)
class Records:
    """A CIFAR data set: where it is published, its files of records, its classes. The tests describe smaller ones.

    train_files, test_file   each with its number of records     label   which of the label_bytes is the class
    """
    source: Source
    classes: tuple[str, ...]
    train_files: tuple[tuple[str, int], ...]
    test_file: tuple[str, int]
    label_bytes: int = 1
    label: int = 0
    name: str = ""                                                           # of the data set, if not the source's

    @property
    def counts(self):
        return dict((*self.train_files, self.test_file))

    @property
    def record(self):
        return self.label_bytes + PIXELS

    @property
    def archive(self):
        return self.source.remotes[0]


BATCHES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
CIFAR10 = Records(
    Source("cifar10", "CIFAR-10", folders=("cifar-10-batches-bin",), unpacked=BATCHES,
           unread=("cifar-10-batches-py", "cifar-10-python.tar.gz"),
           remotes=(Remote("cifar-10-binary.tar.gz", ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
                           170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),)),
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    train_files=tuple((name, 10_000) for name in BATCHES[:5]), test_file=(BATCHES[5], 10_000))


def load(data_dir=None, img_size=None, download=True, progress=None, records=None):
    """CIFAR-10 from the first place that has it, else by download to the user's cache.

    → Dataset: train 50,000 and test 10,000 images (n, 3, 32, 32)
    Raises NotAvailable if there is none to be had, UserError if the copy that was found is broken.
    """
    return load_records(records or CIFAR10, data_dir, img_size, download, progress)


def load_records(records, data_dir=None, img_size=None, download=True, progress=None):
    """A CIFAR data set from the first place that has it, else by download. Returns and raises as `load`."""
    source = records.source
    if img_size not in (None, 32):
        raise UserError(f"{source.name}: expected an image size of 32, got {img_size}; {source.title} images are "
                        "32 × 32, choose a model for that size or another data set")

    def read(path):
        if path.is_file():
            return read_archive(path, records)
        if any((path / name).exists() or (path / name).is_symlink() for name in records.counts):
            return read_folder(path, records)
        return read_archive(path / records.archive.name, records)
    return load_from(source, read, data_dir, download, progress)


def read_archive(path, records):
    """The archive file, verified and then read from its stream.   Raises UserError."""
    with verified(path, records.archive) as file:
        try:
            train, test = read_members(path, file, records)
        except UserError:
            raise
        except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, OverflowError, IndexError) as error:
            raise UserError(f"{path}: not a readable tar.gz archive ({why(error)}); get {records.archive.name} "
                            "anew") from error
    return Dataset(records.name or records.source.name, records.classes, train, test,
                   "archive-sha256:" + records.archive.sha256,
                   source=f"archive {path}, SHA-256 verified")


def read_members(path, file, records):
    """→ train, test: ImageSets, from the members of an open tar.gz file"""
    wanted = {f"{records.source.folders[0]}/{name}": name for name in records.counts}
    anew = f"get {records.archive.name} anew"
    train, test, places = allocate(records)
    with tarfile.open(fileobj=file, mode="r|gz") as tar:
        for member in tar:
            name = wanted.get(member.name)
            if name is None:
                continue
            expected = records.counts[name] * records.record
            if not member.isreg() or member.size != expected:
                kind = "a regular file" if member.isreg() else "another kind"
                raise UserError(f"{path}: member {member.name}: expected a regular file of {expected:,} bytes, got "
                                f"{kind} of {member.size:,}; {anew}")
            if name not in places:
                raise UserError(f"{path}: member {member.name} is there twice; {anew}")
            read_records(tar.extractfile(member), f"{path}: member {member.name}", records, *places.pop(name))
    if places:
        raise UserError(f"{path}: expected {len(wanted)} members, {', '.join(places)} missing; {anew}")
    return train, test


def read_folder(path, records):
    """An unpacked folder: files of exactly their size, with labels of the classes.   Raises UserError.

    The images need not be the official bytes: the checksum says which they are.
    """
    for name, count in records.counts.items():
        with reading(path / name) as (_, size):
            if size != count * records.record:
                raise UserError(f"{path / name}: expected {count * records.record:,} bytes, got {size:,}; unpack "
                                f"{records.archive.name} again")
    train, test, places = allocate(records)
    digest = hashlib.sha256()
    for name, place in places.items():
        with reading(path / name) as (file, _):
            read_records(file, path / name, records, *place, digest)
    checksum = digest.hexdigest()
    return Dataset(records.name or records.source.name, records.classes, train, test, "files-sha256:" + checksum,
                   source=f"folder {path}, sha256 {checksum} of its files (not the archive's, so not compared)")


def allocate(records):
    """→ train, test: ImageSets to be filled;   {file name: its part of (images, labels)}, in order"""
    places, sets = {}, []
    for files in (records.train_files, (records.test_file,)):
        n = sum(count for _, count in files)
        sets.append(ImageSet(np.empty((n, *IMAGE_SHAPE), dtype=np.uint8), np.empty(n, dtype=np.int64)))
        end = 0
        for name, count in files:
            start, end = end, end + count
            places[name] = sets[-1].images[start:end], sets[-1].labels[start:end]
    return *sets, places


def read_records(file, where, records, images, labels, digest=None):
    """Fill images (n, 3, 32, 32) and labels (n,) from one file of records.

    digest: a hash, which gets the file's bytes. The file is read in parts: a block as large as the file would stay with
    the process as unused memory.
    """
    expected = len(labels) * records.record
    for first in range(0, len(labels), AT_ONCE):
        part = slice(first, min(first + AT_ONCE, len(labels)))
        try:
            raw = file.read((part.stop - first) * records.record)
        except OSError as error:
            raise UserError(f"{where}: cannot be read ({why(error)})") from error
        got = first * records.record + len(raw)
        if got != part.stop * records.record:
            raise UserError(f"{where}: expected {expected:,} bytes, got {got:,}; it is truncated, get "
                            f"{records.archive.name} anew")
        table = np.frombuffer(raw, dtype=np.uint8).reshape(-1, records.record)
        labels[part] = table[:, records.label]
        images[part] = table[:, records.label_bytes:].reshape(-1, *images.shape[1:])
        if digest:
            digest.update(raw)
    if labels.max() >= len(records.classes):
        wrong = int(np.argmax(labels >= len(records.classes)))
        raise UserError(f"{where}: expected labels 0 to {len(records.classes) - 1}, got {labels[wrong]} in record "
                        f"{wrong} (byte {wrong * records.record:,}); it is damaged, get {records.archive.name} anew")
