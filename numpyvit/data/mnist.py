"""MNIST (LeCun, Cortes, Burges 1998), and the reader of its IDX files that Fashion-MNIST shares.

An IDX file: two zero bytes, a byte for the kind of number (8: bytes), a byte for the number of axes, each axis as four
bytes, the values. The four files are compressed by gzip; each is checked by its size and SHA-256 before it is unpacked,
and never unpacked beyond the bytes that are expected. Unpacked copies are read, too.
"""
import gzip
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from .dataset import Dataset, ImageSet, records_checksum
from .sources import Remote, Source, load_from, reading, verified, why

SIDE, BORDER = 28, 2                                                         # pixels; 2 on each side make 32


@dataclass(frozen=True)
class Idx:
    """A data set of four IDX files: images and labels of the training set, then of the test set."""
    source: Source
    classes: tuple[str, ...]
    train: int = 60_000
    test: int = 10_000


def four_files(addresses, *facts):
    """The four files by their usual names.   facts: (bytes, SHA-256) of each   →   Remotes"""
    names = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    return tuple(Remote(name, tuple(address + name for address in addresses), size, sha256)
                 for name, (size, sha256) in zip(names, facts, strict=True))


def unpacked(remotes):
    """The names of the files without gzip."""
    return tuple(remote.name.removesuffix(".gz") for remote in remotes)


REMOTES = four_files(
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"))
MNIST = Idx(Source("mnist", "MNIST", REMOTES, unpacked(REMOTES), folders=("MNIST/raw",)), tuple("0123456789"))


def load(data_dir=None, img_size=None, download=True, progress=None, idx=None):
    """MNIST from the first place that has it, else by download to the user's cache.

    → Dataset: train 60,000 and test 10,000 grey images (n, 1, 28, 28); img_size 32 adds two black pixels on each side
    Raises NotAvailable if there is none to be had, UserError if the copy that was found is broken.
    """
    return load_idx(idx or MNIST, data_dir, img_size, download, progress)


def load_idx(idx, data_dir=None, img_size=None, download=True, progress=None):
    """A data set of IDX files from the first place that has it, else by download. Returns and raises as `load`."""
    source = idx.source
    if img_size not in (None, SIDE, SIDE + 2 * BORDER):
        raise UserError(f"{source.name}: expected an image size of 28, or 32 with a black border, got {img_size}; "
                        "choose a model for that size or another data set")
    border = BORDER if img_size == SIDE + 2 * BORDER else 0

    def read(path):
        sets = [read_set(path, source.remotes[2 * i:2 * i + 2], n, len(idx.classes), border)
                for i, n in enumerate((idx.train, idx.test))]
        return Dataset(source.name, idx.classes, *sets, records_checksum(*sets), source=f"folder {path}")
    return load_from(source, read, data_dir, download, progress)


def read_set(path, remotes, n, classes, border):
    """Images and labels of n records, with `border` black pixels around each image.   → ImageSet"""
    images = np.zeros((n, 1, SIDE + 2 * border, SIDE + 2 * border), dtype=np.uint8)
    inside = slice(border, border + SIDE)
    images[:, 0, inside, inside] = read_idx(path, remotes[0], (n, SIDE, SIDE))
    labels = read_idx(path, remotes[1], (n,)).astype(np.int64)
    if labels.max() >= classes:
        first = int(np.argmax(labels >= classes))
        raise UserError(f"{path / remotes[1].name}: expected labels 0 to {classes - 1}, got {labels[first]} at place "
                        f"{first}; get {remotes[1].name} anew")
    return ImageSet(images, labels)


def read_idx(path, remote, shape):
    """One file of bytes, compressed and verified, or unpacked and not compared.   → array of this shape, uint8"""
    raw = path / remote.name.removesuffix(".gz")
    if raw.exists() and not (path / remote.name).exists():
        with reading(raw) as (file, _):
            return parse_idx(file, raw, remote, shape)
    packed = path / remote.name
    with verified(packed, remote) as file:
        try:
            return parse_idx(gzip.GzipFile(fileobj=file), packed, remote, shape)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{packed}: not a readable gzip file ({why(error)}); get {remote.name} anew") from error


def parse_idx(file, path, remote, shape):
    """The header has to be the one of this shape, and the file has to end with its last value."""
    expected = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
    header = file.read(len(expected))
    if header != expected:
        raise UserError(f"{path}: expected the IDX header {expected.hex(' ', 4)}, got "
                        f"{header.hex(' ', 4) or 'nothing'}; get {remote.name} anew")
    size = int(np.prod(shape))
    values = file.read(size + 1)
    if len(values) != size:
        raise UserError(f"{path}: expected {size:,} bytes after the header, got "
                        f"{'more' if len(values) > size else format(len(values), ',')}; get {remote.name} anew")
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)
