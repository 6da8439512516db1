"""What every data set is made of: images and labels, a split, a checksum."""
import hashlib
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..ops.random_bits import hash_combine


@dataclass(frozen=True, eq=False)
class ImageSet:
    """images (n, C, H, W) uint8   labels (n,) int64"""
    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        images, labels = self.images, self.labels
        if images.ndim != 4 or images.dtype != np.uint8:
            raise ValueError(f"images: expected uint8 (n, C, H, W), got {images.dtype} {images.shape}")
        if labels.shape != images.shape[:1] or labels.dtype != np.int64:
            raise ValueError(f"labels: expected int64 ({len(images)},), got {labels.dtype} {labels.shape}")

    def __len__(self):
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named training and test set.

    checksum   "archive-sha256:…" or "files-sha256:…" (of the files), or "records-sha256:…" (of the images and labels)
    notice     one plain sentence the user has to see, or ''
    source     where the images came from, one line for the run's config
    val        images to watch while training, where the data set has its own; else `hold_out` takes some of train
    """
    name: str
    classes: tuple[str, ...]
    train: ImageSet
    test: ImageSet
    checksum: str
    notice: str = ""
    source: str = ""
    val: ImageSet | None = None


class Rows:
    """Some rows of an array of images, copied only when they are asked for: rows[lo:hi], len(rows)."""

    def __init__(self, images, rows):
        self.images, self.rows = images, rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, part):
        return self.images[self.rows[part]]


def hold_out(dataset: Dataset, num_val: int, seed: int) -> tuple[np.ndarray, Rows | np.ndarray, np.ndarray]:
    """The images to train on and the images to watch; a data set with its own validation images trains on all of train.

    → rows of dataset.train (m,), images to watch (Rows, or an array (v, C, H, W)), their labels (v,)
    num_val: how many to hold out by train_val_split, where the data set has none of its own
    """
    if dataset.val is not None:
        return np.arange(len(dataset.train)), dataset.val.images, dataset.val.labels
    rows, held_out = train_val_split(dataset.train, num_val, seed)
    return rows, Rows(dataset.train.images, held_out), dataset.train.labels[held_out]


def records_checksum(*image_sets):
    """"records-sha256:…" over each set's shape, image bytes and labels (as little-endian int64), in order."""
    digest = hashlib.sha256()
    for image_set in image_sets:
        digest.update(repr(image_set.images.shape).encode())
        digest.update(np.ascontiguousarray(image_set.images))
        digest.update(image_set.labels.astype("<i8"))
    return "records-sha256:" + digest.hexdigest()


def train_val_split(image_set: ImageSet, num_val: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """split_rows for the labels of an ImageSet."""
    return split_rows(image_set.labels, num_val, seed)


def split_rows(labels, num_val, seed):
    """Hold out num_val images for validation. A hash of (seed, index) chooses them, in each class.

    labels (n,)   →   train indices (n − num_val,), validation indices (num_val,), int64, sorted, together all
    Each class gives its share, ⌊num_val · count / n⌋ images. The shares are rounded down, so some images are still to
    be chosen: the classes whose shares lost most by rounding give one more each, and classes that would be left without
    a training image come last.
    Raises UserError if num_val is negative or leaves nothing to train on.
    """
    n = len(labels)
    if not 0 <= num_val < max(n, 1):
        raise UserError(f"validation split: expected 0 to {max(n - 1, 0)} of {n} training images, got {num_val}; "
                        "hold out fewer")
    classes, counts = np.unique(labels, return_counts=True)
    quota = num_val * counts // max(n, 1)
    lost = num_val * counts - quota * n                                      # what rounding took, in n-ths of an image
    first = np.lexsort((classes, -lost, quota + 1 >= counts))
    quota[first[:num_val - quota.sum()]] += 1

    order = np.lexsort((hash_combine(seed, np.arange(n)), labels))                 # class by class, shuffled
    rank = np.empty(n, dtype=np.int64)                                       # an image's place in its class
    rank[order] = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
    held_out = rank < quota[np.searchsorted(classes, labels)]
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
