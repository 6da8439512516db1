"""What is done to the pixels of training images. What is drawn for each image, and how, stands in data/draws.py."""
from typing import NamedTuple

import numpy as np


class Views(NamedTuple):
    """What was drawn for b views. A box is top, bottom, left, right, in pixels of the view; an empty one does nothing.

    indices     (b,) int64       which image
    top, left   (b,) int64       first row and column of the crop; a pixel outside the image is read from its reflection
    flip        (b,) bool        mirrored left to right
    cut         (b, 4) int64     a box that becomes 0, the mean colour
    erase       (b, 4) int64     a box that becomes noise
    noise       (m, C, H, W) uint8, for the views that have something to erase
    noise_row   (b,) int64       which of them is the view's
    """
    indices: np.ndarray
    top: np.ndarray
    left: np.ndarray
    flip: np.ndarray
    cut: np.ndarray
    erase: np.ndarray
    noise: np.ndarray
    noise_row: np.ndarray


class Mixtures(NamedTuple):
    """How b views are mixed with another view each.

    weight, other_weight   (b,) of the view and of the other one      boxes   (b, 4) int64, what comes from the other
    """
    weight: np.ndarray
    other_weight: np.ndarray
    boxes: np.ndarray


def augment_views(images, drawn, table):
    """Crop, mirror, erase, normalise, cut out.

    images (n, C, H, W) uint8   drawn: Views of b   table (C, 256), what each byte becomes   →   (b, C, H, W) like table
    """
    _, channels, height, width = images.shape
    channel = np.arange(channels)[:, None, None]
    out = np.empty((len(drawn.indices), channels, height, width), dtype=table.dtype)
    for i, index in enumerate(drawn.indices):
        rows = reflect(np.arange(height) + drawn.top[i], height)
        columns = reflect(np.arange(width) + drawn.left[i], width)
        if drawn.flip[i]:
            columns = columns[::-1]
        view = images[index][:, rows[:, None], columns]                      # (C, H, W), a copy
        t, b, l, r = drawn.erase[i]
        if b > t:
            view[:, t:b, l:r] = drawn.noise[drawn.noise_row[i], :, t:b, l:r]
        out[i] = table[channel, view]
        t, b, l, r = drawn.cut[i]
        out[i, :, t:b, l:r] = 0
    return out


def augment_mixtures(images, others, drawn):
    """Blend two views, then paste a box of the other one.

        y = weight · image + other_weight · other,   and y = other inside the box

    images, others (b, C, H, W)   drawn: Mixtures of b, weights in images' dtype   →   (b, C, H, W)
    Blend: Zhang et al. 2018.  Box: Yun et al. 2019.
    """
    y = drawn.weight[:, None, None, None] * images + drawn.other_weight[:, None, None, None] * others
    for mixed, other, (t, b, l, r) in zip(y, others, drawn.boxes):
        mixed[:, t:b, l:r] = other[:, t:b, l:r]
    return y


def reflect(place, size):
    """… 2 1 | 0 1 2 … size−1 | size−2 …: a place outside the image, mirrored about its edge pixel."""
    place = np.abs(place)
    return np.where(place >= size, 2 * (size - 1) - place, place)
