"""Smaller images by area: a pixel of the result is the mean of the part of the image that it covers."""
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=8)
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
