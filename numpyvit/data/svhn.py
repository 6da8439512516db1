"""SVHN, street view house numbers (Netzer et al. 2011): cropped digits in colour, 32 × 32, two MATLAB files.

Each file has X (32, 32, 3, n), rows first, and y (n, 1), in which 10 stands for the digit 0.
"""
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..files.matlab import read_mat
from .dataset import Dataset, ImageSet, records_checksum
from .sources import Remote, Source, load_from, verified

DIGITS = tuple("0123456789")
ADDRESS = "http://ufldl.stanford.edu/housenumbers/"


@dataclass(frozen=True)
class Cropped:
    """The two files of cropped digits, and how many images each has."""
    source: Source
    train: int = 73_257
    test: int = 26_032


SVHN = Cropped(Source("svhn", "SVHN", (
    Remote("train_32x32.mat", (ADDRESS + "train_32x32.mat",), 182_040_794,
           "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"),
    Remote("test_32x32.mat", (ADDRESS + "test_32x32.mat",), 64_275_384,
           "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"))))


def load(data_dir=None, img_size=None, download=True, progress=None, cropped=None):
    """SVHN's cropped digits from the first place that has them, else by download to the user's cache.

    → Dataset: train 73,257 and test 26,032 images (n, 3, 32, 32)
    Raises NotAvailable if there is none to be had, UserError if the copy that was found is broken.
    """
    cropped = cropped or SVHN
    if img_size not in (None, 32):
        raise UserError(f"svhn: expected an image size of 32, got {img_size}; choose a model for that size or another "
                        "data set")

    def read(path):
        sets = [read_set(path / remote.name, remote, n)
                for remote, n in zip(cropped.source.remotes, (cropped.train, cropped.test))]
        return Dataset("svhn", DIGITS, *sets, records_checksum(*sets), source=f"folder {path}, SHA-256 verified")
    return load_from(cropped.source, read, data_dir, download, progress)


def read_set(path, remote, n):
    """One file, verified and then read.   → ImageSet of n images"""
    with verified(path, remote) as file:
        arrays = read_mat(file, path, {"X": 3 * 32 * 32 * n, "y": 8 * n})
    pixels, digits = arrays["X"], arrays["y"].reshape(-1)
    if pixels.shape != (32, 32, 3, n) or pixels.dtype != np.uint8 or len(digits) != n:
        raise UserError(f"{path}: expected X of uint8 (32, 32, 3, {n}) and y of {n}, got {pixels.dtype} {pixels.shape} "
                        f"and {len(digits)}; get {remote.name} anew")
    wrong = ~np.isin(digits, np.arange(1, 11))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise UserError(f"{path}: expected labels 1 to 10, got {digits[first]} at place {first}; get {remote.name} "
                        "anew")
    return ImageSet(np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)), digits.astype(np.int64) % 10)
