"""Random crops, flips, erased boxes, mixtures: every one a pure function of (seed, epoch, image index).

An image's augmentation does not depend on the batch it comes in, on the order or on the thread, and there is no generator
state to save: hash_combine(seed, epoch, what, index) is all the randomness there is.

A *view* of an image is its crop, flip and erased boxes, normalised. A training image is a view, or a mixture of its own
view with that of a partner, another image that the same hash chooses.
"""
import os
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..errors import UserError
from ..ops.random_bits import hash_combine, mix, uniform

# What a hash is drawn for: one number a decision, beyond any image index, so that no two decisions share bits.
ORDER, CROP, FLIP, CUTOUT, ERASE, NOISE, PARTNER, MIX, MIX_BOX = range(2**48, 2**48 + 9)

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
    With both mixup and cutmix on, each image takes one of the two with probability ½.
    """
    padding: int = 4
    flip: str = "random"
    cutout: int = 0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self):
        if self.flip not in FLIPS:
            raise UserError(f"flip: expected one of {', '.join(FLIPS)}, got {self.flip!r}")
        for name in ("padding", "cutout"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value <= 65535:
                raise UserError(f"{name}: expected a whole number of pixels, 0 or more, got {value!r}")
        if not 0 <= self.erasing <= 1:
            raise UserError(f"erasing: expected a probability from 0 to 1, got {self.erasing!r}")
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) <= 100:
                raise UserError(f"{name}: expected an alpha from 0 (off) to 100, got {getattr(self, name)!r}")


def epoch_order(n, seed, epoch):
    """The order in which an epoch visits n images: the permutation that sorts their hashes.   → (n,) int64"""
    return np.argsort(hash_combine(_key(seed, epoch, ORDER), np.arange(n)), kind="stable")


def channel_statistics(images):
    """Mean and standard deviation of each channel, of pixels in [0, 1].   images (n, C, H, W) uint8 → (C,), (C,) float64

    Exact, from one histogram a channel. A constant channel gets a deviation of 1, so that it can be divided by.
    """
    counts = np.zeros((images.shape[1], 256), dtype=np.int64)
    for start in range(0, len(images), 4096):
        for channel, count in enumerate(counts):
            count += np.bincount(images[start:start + 4096, channel].ravel(), minlength=256)
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


def normalise(images, mean, std, dtype="float32"):
    """(images / 255 − mean) / std, for evaluation.   images (n, C, H, W) uint8, mean, std (C,) → (n, C, H, W) dtype"""
    table = value_table(mean, std, dtype)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != len(table):
        raise ValueError(f"images: expected uint8 (n, {len(table)}, H, W), got {images.dtype} {images.shape}")
    zeros, no_boxes = np.zeros(len(images), dtype=np.int64), np.zeros((len(images), 4), dtype=np.int64)
    out = np.empty(images.shape, dtype=dtype)
    _kernels().views(images, np.arange(len(images)), zeros, zeros, zeros.astype(bool), no_boxes, no_boxes,
                     np.zeros((0, *images.shape[1:]), dtype=np.uint8), zeros, table, out)
    return out


def augment_batch(data, indices, seed, epoch, augment, mean, std, num_classes, dtype="float32", partners=None):
    """A training batch: views of data.images[indices], mixed if asked, and their soft targets.

    data       ImageSet of n images            indices   (b,) ints
    mean, std  (C,), of pixels in [0, 1]       partners  indices that mixtures may draw from; None: all n. Give the
                                                         training indices when data also holds the validation images.
    → images (b, C, H, W) dtype, targets (b, K) dtype, each row of which sums to 1

    Raises ValueError if an index, a label or the padding is out of range.
    """
    indices = np.asarray(indices, dtype=np.int64)
    table = value_table(mean, std, dtype)
    _check(data, indices, augment, table, num_classes)
    images = _views(data.images, indices, seed, epoch, augment, table)
    targets = np.zeros((len(indices), num_classes), dtype=dtype)
    rows = np.arange(len(indices))
    if not (augment.mixup or augment.cutmix):
        targets[rows, data.labels[indices]] = 1
        return images, targets

    partner = draw_partners(indices, seed, epoch, len(data), partners)
    _check(data, partner, augment, table, num_classes)
    others = _views(data.images, partner, seed, epoch, augment, table)
    weight, boxes, share = draw_mixtures(indices, seed, epoch, augment, images.shape)
    _kernels().mix_views(images, others, weight.astype(dtype), (1 - weight).astype(dtype), boxes)
    targets[rows, data.labels[indices]] = share
    targets[rows, data.labels[partner]] += (1 - share).astype(dtype)
    return images, targets


def _check(data, indices, augment, table, num_classes):
    n, channels, height, width = data.images.shape
    if indices.ndim != 1 or (len(indices) and not (0 <= indices.min() and indices.max() < n)):
        raise ValueError(f"indices: expected (b,) of 0 … {n - 1}, got {indices.shape} with values out of that range")
    if channels != len(table):
        raise ValueError(f"mean, std: expected {channels} channels, got {len(table)}")
    if augment.padding >= min(height, width):
        raise UserError(f"padding: expected less than the image's {min(height, width)} pixels, got {augment.padding}")
    labels = data.labels[indices]
    if len(labels) and not (0 <= labels.min() and labels.max() < num_classes):
        raise ValueError(f"labels: expected 0 … {num_classes - 1}, got {labels.min()} … {labels.max()}")


@lru_cache(maxsize=256)
def _key(*parts):
    """The part of a hash that a whole batch shares."""
    return hash_combine(*parts)


# ── the draws ────────────────────────────────────────────────────────────────────────────────────────────────────────

def draw_crops(indices, seed, epoch, padding):
    """Where the crop begins in the padded image, each in 0 … 2·padding.   → top (b,), left (b,)"""
    bits = hash_combine(_key(seed, epoch, CROP), indices)
    places = np.uint64(2 * padding + 1)
    return ((bits >> np.uint64(32)) % places).astype(np.int64), (bits % np.uint64(2**32) % places).astype(np.int64)


def draw_flips(indices, seed, epoch, flip):
    """Which images are mirrored left to right.   → (b,) bool"""
    if flip == "random":
        return (hash_combine(_key(seed, epoch, FLIP), indices) & np.uint64(1)).astype(bool)
    if flip == "alternating":
        return ((hash_combine(_key(seed, FLIP), indices) + np.uint64(epoch % 2)) & np.uint64(1)).astype(bool)
    return np.zeros(len(indices), dtype=bool)


def draw_cutouts(indices, seed, epoch, side, height, width):
    """A side × side square around a random pixel, clipped to the image.   → boxes (b, 4): top, bottom, left, right"""
    y, x = _uniforms(2, seed, epoch, CUTOUT, indices)
    return _box(y * height, x * width, side, side, height, width)


def draw_erasings(indices, seed, epoch, probability, height, width):
    """Rectangles of 2 to 33 % of the area, of aspect 0.3 to 3.3 (uniform in the logarithm, so that tall and wide are
    alike), inside the image: the first of ten proposals that fits.   → boxes (b, 4), empty if none
    """
    u = _uniforms(41, seed, epoch, ERASE, indices)
    area, aspect, y, x = u[:40].reshape(4, 10, -1)                           # each (10, b)
    area = (0.02 + (0.33 - 0.02) * area) * height * width
    aspect = 0.3 * (3.3 / 0.3) ** aspect
    tall, wide = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (tall < height) & (wide < width) & (u[40] < probability)
    top, left = np.floor(y * (height - tall + 1)), np.floor(x * (width - wide + 1))
    boxes = np.where(fits, [top, top + tall, left, left + wide], 0)          # (4, 10, b)
    first = np.argmax(fits, axis=0)
    return boxes[:, first, np.arange(len(indices))].T.astype(np.int64)


def draw_noise(indices, seed, epoch, shape):
    """Random bytes for erased boxes.   (b,) → (b, C, H, W) uint8"""
    size = int(np.prod(shape))
    words = hash_combine(_key(seed, epoch, NOISE), indices)[:, None] + np.arange(-(-size // 8), dtype=np.uint64)
    return mix(words).astype("<u8").view(np.uint8)[:, :size].reshape(len(indices), *shape)


def draw_partners(indices, seed, epoch, n, partners=None):
    """The image each one is mixed with: never itself, if there is a choice.   → (b,) int64"""
    bits = hash_combine(_key(seed, epoch, PARTNER), indices)
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
    choice, quantile = _uniforms(2, seed, epoch, MIX, indices)
    cutmix = np.full(len(indices), bool(augment.cutmix))
    if augment.mixup and augment.cutmix:
        cutmix = choice < 0.5
    alpha = np.where(cutmix, augment.cutmix, augment.mixup)
    own = np.empty(len(indices))
    for value in {augment.mixup, augment.cutmix} - {0}:
        own[alpha == value] = beta_quantile(quantile[alpha == value], value)

    height, width = shape[-2:]
    y, x = _uniforms(2, seed, epoch, MIX_BOX, indices)
    side = np.sqrt(1 - own)                                                  # Yun et al. 2019, eq. 2
    boxes = _box(y * height, x * width, np.floor(side * height), np.floor(side * width), height, width)
    boxes[~cutmix] = 0
    area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
    weight = np.where(cutmix, 1.0, own)
    return weight, boxes, np.where(cutmix, 1 - area / (height * width), own)


def _uniforms(count, seed, epoch, what, indices):
    """count independent numbers in [0, 1) an image.   → (count, b)"""
    return uniform(hash_combine(_key(seed, epoch, what), np.arange(count)[:, None], indices))


def _box(y, x, tall, wide, height, width):
    top, left = np.floor(y) - np.floor_divide(tall, 2), np.floor(x) - np.floor_divide(wide, 2)
    edges = (np.clip(top, 0, height), np.clip(top + tall, 0, height), np.clip(left, 0, width), np.clip(left + wide, 0, width))
    return np.stack(edges, axis=1).astype(np.int64)


@lru_cache(maxsize=8)
def _beta_table(alpha):
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

    A quantile function and not a generator, so that an image's draw is one hash and the stream cannot change with NumPy.
    """
    u, cumulative, power = _beta_table(float(alpha))
    lower = np.minimum(q, 1 - q)                                             # symmetric about ½
    x = np.interp(2 * lower, cumulative, u) ** (1 / power)
    return np.where(q < 0.5, x, 1 - x)


# ── the pixels ───────────────────────────────────────────────────────────────────────────────────────────────────────

def _kernels():
    """The compiled loops, imported at the first call; under NUMPYVIT_REFERENCE=1 this page's own definitions."""
    if os.environ.get("NUMPYVIT_REFERENCE") == "1":
        return _Reference
    from . import _augment_kernel
    return _augment_kernel


def _views(images, indices, seed, epoch, augment, table):
    """(n, C, H, W) uint8, (b,) → (b, C, H, W) in the table's dtype"""
    height, width = images.shape[2:]
    top, left = draw_crops(indices, seed, epoch, augment.padding)
    flip = draw_flips(indices, seed, epoch, augment.flip)
    cut = erase = np.zeros((len(indices), 4), dtype=np.int64)
    noise, noise_row = np.zeros((0, *images.shape[1:]), dtype=np.uint8), np.zeros(len(indices), dtype=np.int64)
    if augment.cutout:
        cut = draw_cutouts(indices, seed, epoch, augment.cutout, height, width)
    if augment.erasing:
        erase = draw_erasings(indices, seed, epoch, augment.erasing, height, width)
        erased = erase[:, 1] > 0
        noise, noise_row = draw_noise(indices[erased], seed, epoch, images.shape[1:]), np.cumsum(erased) - 1
    out = np.empty((len(indices), *images.shape[1:]), dtype=table.dtype)
    _kernels().views(images, indices, top - augment.padding, left - augment.padding, flip, cut, erase, noise, noise_row,
                     table, out)
    return out


class _Reference:
    """The definition of what `_augment_kernel` computes."""

    @staticmethod
    def views(images, indices, top, left, flip, cut, erase, noise, noise_row, table, out):
        """Crop (reflecting at the border), mirror, erase, normalise.

        images (n, C, H, W) uint8   indices, top, left, flip (b,)   cut, erase (b, 4)   table (C, 256)   →   out (b, C, H, W)
        """
        _, _, height, width = images.shape
        channel = np.arange(len(table))[:, None, None]
        for i, index in enumerate(indices):
            rows = _reflect(np.arange(height) + top[i], height)
            columns = _reflect(np.arange(width) + left[i], width)
            if flip[i]:
                columns = columns[::-1]
            view = images[index][:, rows[:, None], columns]
            t, b, l, r = erase[i]
            if b > t:
                view[:, t:b, l:r] = noise[noise_row[i], :, t:b, l:r]
            out[i] = table[channel, view]
            t, b, l, r = cut[i]
            out[i, :, t:b, l:r] = 0

    @staticmethod
    def mix_views(images, others, weight, other_weight, boxes):
        """In place: images ← weight · images + other_weight · others, then others inside the boxes."""
        images[...] = weight[:, None, None, None] * images + other_weight[:, None, None, None] * others
        for image, other, (t, b, l, r) in zip(images, others, boxes):
            image[:, t:b, l:r] = other[:, t:b, l:r]


def _reflect(place, size):
    """… 2 1 | 0 1 2 … size−1 | size−2 …: a place outside the image, mirrored about its edge pixel."""
    place = np.abs(place)
    return np.where(place >= size, 2 * (size - 1) - place, place)
