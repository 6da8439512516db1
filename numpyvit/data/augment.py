"""Random crops, flips, erased boxes, mixtures: every one a pure function of (seed, epoch, image index).

An image's augmentation does not depend on its batch, on the order or on the thread, and there is no generator state to
save: all randomness is hash_combine(seed, epoch, what, index). draws.py draws; ops/augment.py moves the pixels.

A *view* of an image is its crop, flip and erased boxes, normalised, and resized where training images are smaller than
those of the data set. A training image is a view, or a mixture of its own view with that of a partner, another image
that the same hash chooses.
"""
from dataclasses import dataclass

import numpy as np

from ..checks import check_choice, check_numbers, check_types
from ..errors import UserError
from ..ops.augment import Mixtures, Views
from .dataset import ImageSet
from .draws import draw_mixtures, draw_partners, draw_views, draw_windows
from .resize import resize_windows, shrink

FLIPS = ("none", "random", "alternating")


@dataclass(frozen=True)
class Augment:
    """What is done to a training image. The default is crop and flip; `Augment(padding=0, flip="none")` does nothing.

    padding  reflect-pad by so many pixels and crop back to size at a random place (0: no crop)
    flip     "none", "random" (each epoch with probability ½) or "alternating" (random in epoch 0, then the other way
             each epoch, so that two epochs in a row show both: Jordan 2024, arXiv 2404.00498)
    cutout   side of a square of mean colour around a random pixel (0: none)      DeVries, Taylor 2017
    erasing  probability of a random rectangle of random bytes                    Zhong et al. 2017, algorithm 1
    mixup    α of the Beta(α, α) weight of a mixture of two images (0: off)       Zhang et al. 2018
    cutmix   α of the Beta(α, α) area of a box from another image (0: off)        Yun et al. 2019
    side     of the training images, where they are smaller than the data set's (0: as large)
    window   least side of a random square of the view; the square, and not the whole view, becomes the smaller image
             (0: the whole view)                                                  Szegedy et al. 2015, section 6
    With both mixup and cutmix on, each image takes one of the two with probability ½.
    """
    padding: int = 4
    flip: str = "alternating"
    cutout: int = 0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    side: int = 0
    window: int = 0

    def __post_init__(self):
        check_types(self)
        check_choice(self, "flip", FLIPS)
        check_numbers(self, "padding", "cutout", "side", "window", least=0, most=65535)
        check_numbers(self, "erasing", least=0, most=1)
        check_numbers(self, "mixup", "cutmix", least=0, most=100)


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, of pixels in [0, 1].

    images (n, C, H, W) uint8   →   (C,), (C,) float64
    Exact, from one histogram a channel. A constant channel gets a deviation of 1, so that it can be divided by.
    """
    counts = np.zeros((images.shape[1], 256), dtype=np.int64)
    some = max(2**20 // images[0, 0].size, 1) if len(images) else 1          # images at a time: a million pixels
    for start in range(0, len(images), some):
        for channel, count in enumerate(counts):
            count += np.bincount(images[start:start + some, channel].ravel(), minlength=256)
    value = np.arange(256) / 255
    total = np.maximum(counts.sum(axis=1), 1)
    mean = (counts * value).sum(axis=1) / total
    std = np.sqrt((counts * (value - mean[:, None]) ** 2).sum(axis=1) / total)
    return mean, np.where(np.count_nonzero(counts, axis=1) > 1, std, 1.0)


def value_table(mean, std, dtype):
    """What each of the 256 bytes becomes in each channel, (byte / 255 − mean) / std.   (C,), (C,) → (C, 256)"""
    mean, std = np.asarray(mean, dtype=np.float64), np.asarray(std, dtype=np.float64)
    if mean.ndim != 1 or mean.shape != std.shape or not (std > 0).all():
        raise ValueError(f"mean, std: expected two arrays (C,), std > 0, got {mean.shape} and {std.shape}")
    return ((np.arange(256) / 255 - mean[:, None]) / std[:, None]).astype(dtype)


def normalise(images: np.ndarray, mean, std, dtype="float32") -> np.ndarray:
    """(images / 255 − mean) / std, for evaluation.   images (n, C, H, W) uint8, mean, std (C,) → (n, C, H, W) dtype"""
    table = value_table(mean, std, dtype)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != len(table):
        raise ValueError(f"images: expected uint8 (n, {len(table)}, H, W), got {images.dtype} {images.shape}")
    from .. import functional as F                                           # here, as Numba is slow to import
    indices, zeros = np.arange(len(images)), np.zeros(len(images), dtype=np.int64)
    no_boxes, no_noise = np.zeros((len(images), 4), dtype=np.int64), np.zeros((0, *images.shape[1:]), dtype=np.uint8)
    as_they_are = Views(indices, zeros, zeros, zeros.astype(bool), no_boxes, no_boxes, no_noise, zeros)
    return F.augment_views(images, as_they_are, table)


def augment_batch(data: ImageSet, indices, seed: int, epoch: int, augment: Augment, mean, std, num_classes: int,
                  dtype="float32", partners=None) -> tuple[np.ndarray, np.ndarray]:
    """A training batch: views of data.images[indices], mixed if asked, and their soft targets.

    data       ImageSet of n images            indices   (b,) ints
    mean, std  (C,), of pixels in [0, 1]       partners  indices that mixtures may draw from; None: all n. Give the
                                                         training indices when data also holds the validation images.
    → images (b, C, H, W) dtype, targets (b, K) dtype, each row of which sums to 1

    Raises ValueError if an index, a label or the padding is out of range.
    """
    from .. import functional as F
    indices = np.asarray(indices, dtype=np.int64)
    table = value_table(mean, std, dtype)
    check_batch(data, indices, augment, table, num_classes)
    images = views(data.images, indices, seed, epoch, augment, table)
    targets = np.zeros((len(indices), num_classes), dtype=dtype)
    rows = np.arange(len(indices))
    if not (augment.mixup or augment.cutmix):
        targets[rows, data.labels[indices]] = 1
        return images, targets

    partner = draw_partners(indices, seed, epoch, len(data), partners)
    check_batch(data, partner, augment, table, num_classes)
    others = views(data.images, partner, seed, epoch, augment, table)
    weight, boxes, share = draw_mixtures(indices, seed, epoch, augment, images.shape)
    images = F.augment_mixtures(images, others, Mixtures(weight.astype(dtype), (1 - weight).astype(dtype), boxes))
    targets[rows, data.labels[indices]] = share
    targets[rows, data.labels[partner]] += (1 - share).astype(dtype)
    return images, targets


def views(images, indices, seed, epoch, augment, table):
    """The views of some of the images, as large as training images are.   (n, C, H, W) uint8 → (b, C, side, side)"""
    from .. import functional as F
    drawn = draw_views(indices, seed, epoch, augment, images.shape[1:])
    drawn = drawn._replace(indices=np.arange(len(indices)))                  # images may be on the disk: read these
    seen = F.augment_views(images[indices], drawn, table)
    if not augment.side:
        return seen
    if not augment.window:
        return shrink(seen, augment.side)
    windows = draw_windows(indices, seed, epoch, augment.window, images.shape[-1])
    return resize_windows(seen, windows, augment.side)


def check_sizes(augment, height, width):
    """Raise UserError for a smaller image, or a window, that images of this size do not have."""
    for name, value in (("small_size", augment.side), ("small_window", augment.window)):
        if value and height != width:
            raise UserError(f"{name}: expected square images, got {height} × {width} pixels")
        if value > height:
            raise UserError(f"{name}: expected at most the {height} pixels of the data set's images, got {value}")


def check_padding(augment, height, width):
    """Raise UserError for a padding that images of this size do not have enough pixels to reflect for."""
    if augment.padding >= min(height, width):
        raise UserError(f"padding: expected less than the image's {min(height, width)} pixels, got {augment.padding}")


def check_batch(data, indices, augment, table, num_classes):
    """Raise for indices, channels, a padding or labels that are out of range."""
    n, channels, height, width = data.images.shape
    if indices.ndim != 1 or (len(indices) and not (0 <= indices.min() and indices.max() < n)):
        raise ValueError(f"indices: expected (b,) of 0 … {n - 1}, got {indices.shape} with values out of that range")
    if channels != len(table):
        raise ValueError(f"mean, std: expected {channels} channels, got {len(table)}")
    check_padding(augment, height, width)
    check_sizes(augment, height, width)
    labels = data.labels[indices]
    if len(labels) and not (0 <= labels.min() and labels.max() < num_classes):
        raise ValueError(f"labels: expected 0 … {num_classes - 1}, got {labels.min()} … {labels.max()}")
