"""What is drawn for training images: crops, flips, boxes, windows, mixtures, the order of an epoch.

Every draw is a pure function: the hash of (seed, epoch, what is drawn, image). augment.py makes images of the draws.
"""
from functools import lru_cache

import numpy as np

from ..ops.augment import Views
from ..ops.random_bits import hash_combine, mix, uniform

# What a hash is drawn for: one number a decision, beyond any image index, so that no two decisions share bits.
ORDER, CROP, FLIP, CUTOUT, ERASE, NOISE, PARTNER, MIX, MIX_BOX, WINDOW = range(2**48, 2**48 + 10)


@lru_cache(maxsize=256)
def batch_hash(*parts):
    """The part of a hash that a whole batch shares."""
    return hash_combine(*parts)


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits n images: the permutation that sorts their hashes.   → (n,) int64"""
    return np.argsort(hash_combine(batch_hash(seed, epoch, ORDER), np.arange(n)), kind="stable")


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
