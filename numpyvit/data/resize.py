"""Images of another size. Smaller ones by area: a pixel of the result is the mean of the part of the image that it
covers. Larger ones by the two nearest pixels on each axis."""
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=64)
def shares(size, smaller, dtype="float32"):
    """The share of each of size pixels in each of fewer, wider ones: (smaller, size), every row of which sums to 1."""
    edges = np.linspace(0, size, smaller + 1)                                # where the wider pixels begin and end
    pixels = np.arange(size)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.maximum(covered, 0) * (smaller / size)).astype(dtype)


def shrink(images, side):
    """Square images by area:  y = R · x · Rᵀ for each channel.   images (B, C, H, H)   →   (B, C, side, side)"""
    rows = shares(images.shape[-1], side, images.dtype.name)
    return rows @ images @ rows.T


@lru_cache(maxsize=64)
def neighbours(size, larger, dtype="float32"):
    """The weights of the two nearest of size pixels for each of more, narrower ones: (larger, size); rows sum to 1."""
    place = np.clip((np.arange(larger) + 0.5) * size / larger - 0.5, 0, size - 1)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(size))).astype(dtype)


def resizing(size, side, dtype="float32"):
    """R, which makes side pixels of size pixels along an axis: (side, size)"""
    return shares(size, side, dtype) if side < size else neighbours(size, side, dtype)


def resize_windows(images, windows, side):
    """A square window of each image, resized:  y = R · x[window] · Rᵀ for each channel.

    images (B, C, H, H)   windows (B, 3) int64: top, left, side of the window   →   (B, C, side, side)
    """
    y = np.empty((*images.shape[:2], side, side), images.dtype)
    for i, (top, left, size) in enumerate(windows):
        rows = resizing(int(size), side, images.dtype.name)
        y[i] = rows @ images[i, :, top:top + size, left:left + size] @ rows.T
    return y


def resized(images, side):
    """Square images in another size:  y = R · x · Rᵀ, rounded.   images (n, C, H, H)   →   (n, C, side, side), uint8"""
    rows = resizing(images.shape[-1], side)
    result = np.empty((*images.shape[:2], side, side), np.uint8)
    for lo in range(0, len(images), 256):                                    # a few at a time: these are floats
        part = rows @ images[lo:lo + 256].astype(np.float32) @ rows.T
        result[lo:lo + 256] = np.rint(part).clip(0, 255)
    return result
