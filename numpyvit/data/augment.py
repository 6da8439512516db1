"""Random crops, flips, erased boxes, mixtures: every one a pure function of (seed, epoch, image index).

An image's augmentation does not depend on its batch, on the order or on the thread, and there is no generator state to
save: all randomness is hash_combine(seed, epoch, what, index). This page draws; ops/augment.py moves the pixels.

A *view* of an image is its crop, flip and erased boxes, normalised, and resized where training images are smaller than
those of the data set. A training image is a view, or a mixture of its own view with that of a partner, another image
that the same hash chooses.
"""
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..checks import check_choice, check_numbers, check_types
from ..errors import UserError
from ..ops.augment import Mixtures, Views
from ..ops.random_bits import hash_combine, mix, uniform
from .dataset import ImageSet
from .resize import resize_windows, shrink

# What a hash is drawn for: one number a decision, beyond any image index, so that no two decisions share bits.
ORDER, CROP, FLIP, CUTOUT, ERASE, NOISE, PARTNER, MIX, MIX_BOX, WINDOW = range(2**48, 2**48 + 10)

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


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits n images: the permutation that sorts their hashes.   → (n,) int64"""
    return np.argsort(hash_combine(batch_hash(seed, epoch, ORDER), np.arange(n)), kind="stable")


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
    drawn = F.augment_views(images, draw_views(indices, seed, epoch, augment, images.shape[1:]), table)
    if not augment.side:
        return drawn
    if not augment.window:
        return shrink(drawn, augment.side)
    windows = draw_windows(indices, seed, epoch, augment.window, images.shape[-1])
    return resize_windows(drawn, windows, augment.side)


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


@lru_cache(maxsize=256)
def batch_hash(*parts):
    """The part of a hash that a whole batch shares."""
    return hash_combine(*parts)


def draw_views(indices, seed, epoch, augment, shape):
    """All that is drawn for the views of these images.   indices (b,) int64   shape (C, H, W)   →   Views"""
    height, width = shape[1:]
    top, left = draw_crops(indices, seed, epoch, augment.padding)
    flip = draw_flips(indices, seed, epoch, augment.flip)
    cut = erase = np.zeros((len(indices), 4), dtype=np.int64)
    noise, noise_row = np.zeros((0, *shape), dtype=np.uint8), np.zeros(len(indices), dtype=np.int64)
    if augment.cutout:
        cut = draw_cutouts(indices, seed, epoch, augment.cutout, height, width)
    if augment.erasing:
        erase = draw_erasings(indices, seed, epoch, augment.erasing, height, width)
        erased = erase[:, 1] > 0
        noise, noise_row = draw_noise(indices[erased], seed, epoch, shape), np.cumsum(erased) - 1
    return Views(indices, top - augment.padding, left - augment.padding, flip, cut, erase, noise, noise_row)


def draw_crops(indices, seed, epoch, padding):
    """Where the crop begins in the padded image, each in 0 … 2·padding.   → top (b,), left (b,)"""
    bits = hash_combine(batch_hash(seed, epoch, CROP), indices)
    places = np.uint64(2 * padding + 1)
    return ((bits >> np.uint64(32)) % places).astype(np.int64), (bits % np.uint64(2**32) % places).astype(np.int64)


def draw_flips(indices, seed, epoch, flip):
    """Which images are mirrored left to right.   → (b,) bool"""
    if flip == "random":
        return (hash_combine(batch_hash(seed, epoch, FLIP), indices) & np.uint64(1)).astype(bool)
    if flip == "alternating":
        return ((hash_combine(batch_hash(seed, FLIP), indices) + np.uint64(epoch % 2)) & np.uint64(1)).astype(bool)
    return np.zeros(len(indices), dtype=bool)


def draw_cutouts(indices, seed, epoch, side, height, width):
    """A side × side square around a random pixel, clipped to the image.   → boxes (b, 4): top, bottom, left, right"""
    y, x = uniforms(2, seed, epoch, CUTOUT, indices)
    return box_around(y * height, x * width, side, side, height, width)


def draw_erasings(indices, seed, epoch, probability, height, width):
    """Rectangles of 2 to 33 % of the area, of aspect 0.3 to 3.3 (uniform in the logarithm, so that tall and wide are
    alike), inside the image: the first of ten proposals that fits.   → boxes (b, 4), empty if none
    """
    u = uniforms(41, seed, epoch, ERASE, indices)
    area, aspect, y, x = u[:40].reshape(4, 10, -1)                           # each (10, b)
    area = (0.02 + (0.33 - 0.02) * area) * height * width
    aspect = 0.3 * (3.3 / 0.3) ** aspect
    tall, wide = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (tall < height) & (wide < width) & (u[40] < probability)
    top, left = np.floor(y * (height - tall + 1)), np.floor(x * (width - wide + 1))
    boxes = np.where(fits, [top, top + tall, left, left + wide], 0)          # (4, 10, b)
    first = np.argmax(fits, axis=0)
    return boxes[:, first, np.arange(len(indices))].T.astype(np.int64)


def draw_windows(indices, seed, epoch, least, size):
    """A square window of least to size pixels a side, inside an image of size × size pixels; every side is as likely.

    → windows (b, 3) int64: top, left, side       Szegedy et al. 2015, section 6, without changes of the aspect
    """
    u, y, x = uniforms(3, seed, epoch, WINDOW, indices)
    side = least + np.floor(u * (size - least + 1))
    places = size - side + 1
    return np.stack([np.floor(y * places), np.floor(x * places), side], axis=1).astype(np.int64)


def draw_noise(indices, seed, epoch, shape):
    """Random bytes for erased boxes.   (b,) → (b, C, H, W) uint8"""
    size = int(np.prod(shape))
    words = hash_combine(batch_hash(seed, epoch, NOISE), indices)[:, None] + np.arange(-(-size // 8), dtype=np.uint64)
    return mix(words).astype("<u8").view(np.uint8)[:, :size].reshape(len(indices), *shape)


def draw_partners(indices, seed, epoch, n, partners=None):
    """The image each one is mixed with: never itself, if there is a choice.   → (b,) int64"""
    bits = hash_combine(batch_hash(seed, epoch, PARTNER), indices)
    if partners is None:
        return (indices + 1 + (bits % np.uint64(max(n - 1, 1))).astype(np.int64)) % n
    partners = np.asarray(partners, dtype=np.int64)
    if partners.ndim != 1 or not len(partners):
        raise ValueError(f"partners: expected a non-empty (m,) of indices, got {partners.shape}")
    place = (bits % np.uint64(len(partners))).astype(np.int64)
    itself = partners[place] == indices
    return partners[np.where(itself, (place + 1) % len(partners), place)]


def draw_mixtures(indices, seed, epoch, augment, shape):
    """How each image is mixed with its partner.

    → weight (b,)   the own view's weight where the two are blended (mixup); 1 where a box is pasted
      boxes (b, 4)  top, bottom, left, right of what comes from the partner (cutmix), empty for a blend
      share (b,)    the own label's share of the target
    """
    choice, quantile = uniforms(2, seed, epoch, MIX, indices)
    cutmix = np.full(len(indices), bool(augment.cutmix))
    if augment.mixup and augment.cutmix:
        cutmix = choice < 0.5
    alpha = np.where(cutmix, augment.cutmix, augment.mixup)
    own = np.empty(len(indices))
    for value in {augment.mixup, augment.cutmix} - {0}:
        own[alpha == value] = beta_quantile(quantile[alpha == value], value)

    height, width = shape[-2:]
    y, x = uniforms(2, seed, epoch, MIX_BOX, indices)
    side = np.sqrt(1 - own)                                                  # Yun et al. 2019, eq. 2
    boxes = box_around(y * height, x * width, np.floor(side * height), np.floor(side * width), height, width)
    boxes[~cutmix] = 0
    area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
    weight = np.where(cutmix, 1.0, own)
    return weight, boxes, np.where(cutmix, 1 - area / (height * width), own)


def uniforms(count, seed, epoch, what, indices):
    """count independent numbers in [0, 1) an image.   → (count, b)"""
    return uniform(hash_combine(batch_hash(seed, epoch, what), np.arange(count)[:, None], indices))


def box_around(y, x, tall, wide, height, width):
    """A tall × wide box around the pixel (y, x), clipped to the image.   → (b, 4): top, bottom, left, right"""
    top, left = np.floor(y) - np.floor_divide(tall, 2), np.floor(x) - np.floor_divide(wide, 2)
    edges = np.stack([top, top + tall, left, left + wide], axis=1)
    return np.clip(edges, 0, [height, height, width, width]).astype(np.int64)


@lru_cache(maxsize=8)
def beta_table(alpha):
    """Half of Beta(α, α)'s distribution, x ∈ [0, ½], tabulated over u = xᵖ with p = min(α, 1), where its density

        dF/du ∝ x^(α−p) (1 − x)^(α−1)

    is bounded.   → (u (m,), F (m,) from 0 to 1, p)
    """
    power = min(alpha, 1.0)
    u = np.linspace(0, 0.5**power, 8193)
    x = u ** (1 / power)
    density = x ** (alpha - power) * (1 - x) ** (alpha - 1)
    cumulative = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return u, cumulative / cumulative[-1], power


def beta_quantile(q, alpha):
    """The inverse distribution function of Beta(α, α), by a table: uniform q in, Beta-distributed x ∈ [0, 1] out.

    A quantile function and not a generator, so that an image's draw is one hash, and no version of NumPy changes it.
    """
    u, cumulative, power = beta_table(float(alpha))
    lower = np.minimum(q, 1 - q)                                             # symmetric about ½
    x = np.interp(2 * lower, cumulative, u) ** (1 / power)
    return np.where(q < 0.5, x, 1 - x)
