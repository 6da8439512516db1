"""3×3 convolution with stride 1 by tiles of m×m outputs, m = 2, 3 or 4: (m + 2)² multiplications a tile, not 9m².

Winograd's minimal filtering: with a tile d of (m + 2)×(m + 2) pixels, a filter g of 3×3 and, for m = 2,

    Bᵀ = [1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1]   G = [1 0 0; ½ ½ ½; ½ -½ ½; 0 0 1]   Aᵀ = [1 1 1 0; 0 1 -1 -1]

    y = Aᵀ · t · A,   t = Σ (G g Gᵀ) ⊙ (Bᵀ d B)  over the input channels

The sums are (m + 2)² matrix products, one for each element of t. Backward is the same formula, read from the bottom.
Lavin, Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.

tiles_2x2.py, tiles_3x3.py and tiles_4x4.py have the transforms with A and B. Their maps are split: every m-th column
of a row lies together. Larger tiles round more: float32 errors are about twice as large with m = 3, and three times
with m = 4, as with m = 2. NaN and infinity go where they go in the definition with m = 2; with m = 3 and 4 they may
reach every output of a tile that has one among its pixels. In dweight they reach all nine numbers of a filter.
"""
import math
import weakref
from typing import NamedTuple

import numpy as np

from . import tiles_2x2, tiles_3x3, tiles_4x4
from .tiles_4x4 import HIGH, LOW

NODES = [(p, 2 * p**4 - 2) for p in (LOW, -LOW, HIGH, -HIGH)]    # a point of m = 4, product of its distances to others
TRANSFORMS = {2: tiles_2x2, 3: tiles_3x3, 4: tiles_4x4}                      # by m
TILES = {2: 128, 3: 96, 4: 64}                       # so many are transformed at once: they stay in the cache
READ = 48                                            # tiles: see tile_size
G = {2: np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
     3: np.array([[9, 0, 0], [-8, -4, -2], [-2, 2, -2], [1, 2, 4], [0, 0, 9]]) / 9,
     4: np.array([[1, 0, 0], *([1 / n, p / n, p**2 / n] for p, n in NODES), [0, 0, 1]])}
GG = {m: np.kron(g, g) for m, g in G.items()}        # ((m + 2)², 9): G g Gᵀ is GG · g, with the matrices as vectors


class Filters(NamedTuple):
    """G g Gᵀ of every filter of a weight, and the weight's numbers when they were made: (Cout, Cin, 3, 3)."""

    numbers: np.ndarray
    m: int
    forward: np.ndarray                              # ((m + 2)², Cin, Cout), a copy: products with it are faster
    backward: np.ndarray                             # ((m + 2)², Cout, Cin)


class WinogradCache(NamedTuple):
    """x (B, H, W, Cin)   filters of the weight   padding of x on every side"""

    x: np.ndarray
    filters: Filters
    padding: int


FILTERS = {}                                         # by a weight's address, shape and dtype, while its memory lives


def winograd(x, weight, padding, m):
    """conv2d_forward of 3×3 kernels with stride 1, without the bias.   →   y (B, Ho, Wo, Cout), cache"""
    B, H, W, _ = x.shape
    y = np.empty((B, H + 2 * padding - 2, W + 2 * padding - 2, len(weight)), x.dtype)
    filters = filters_of(weight, m)
    for part in parts(y, m):
        put_outputs(pixel_tiles(x[part], y.shape, padding, m) @ filters.forward, y[part], m)
    return y, WinogradCache(x, filters, padding)


def winograd_backward(dy, cache):
    """dx and dweight. The tiles of x are made anew: kept, they would take two or four times the memory of x."""
    x, filters, padding = cache
    dx, m, dfilters = np.empty(x.shape, x.dtype), filters.m, None
    for part in parts(dy, m):
        dtiles = output_tiles(dy[part], m)                                   # y = Aᵀ · t · A
        products = dtiles.swapaxes(1, 2) @ pixel_tiles(x[part], dy.shape, padding, m)
        dfilters = products if dfilters is None else np.add(dfilters, products, out=dfilters)
        put_pixels(dtiles @ filters.backward, dy.shape, padding, dx[part], m)            # t = Σ filter ⊙ tile
    return dx, transformed_backward(dfilters, m)


def filters_of(weight, m):
    """The weight's Filters: those made last from this memory, if its numbers are still the same bit by bit.

    So the micro-batches of a training step, which share their weights, transform them once, and so does evaluation.
    """
    key, bits = (weight.__array_interface__["data"][0], weight.shape, weight.dtype), f"u{weight.itemsize}"
    kept = FILTERS.get(key)
    if kept and kept.m == m and np.array_equal(kept.numbers.view(bits), weight.view(bits)):
        return kept
    if not kept:
        weakref.finalize(weight.base if isinstance(weight.base, np.ndarray) else weight, FILTERS.pop, key, None)
    filters = transformed(weight, m)
    kept = FILTERS[key] = Filters(weight.copy(), m, np.ascontiguousarray(filters.swapaxes(1, 2)), filters)
    return kept


def tile_size(B, Ho, Wo):
    """m of the tiles with the fewest multiplications for B maps of outputs; 1 stands for the definition's products.

    Every product has to read its matrix of filters, too, which takes about as long as READ more tiles.
    """
    return min((1, *TRANSFORMS), key=lambda m: (m + 2)**2 * (B * math.prod(grid((B, Ho, Wo), m)) + READ))


def grid(y_shape, m):
    """Rows and columns of the tiles of a map of outputs (B, H, W, …)."""
    return -(-y_shape[1] // m), -(-y_shape[2] // m)


def parts(y, m):
    """Slices of the batch, of about TILES tiles each."""
    images = -(-TILES[m] // math.prod(grid(y.shape, m)))
    return [slice(start, start + images) for start in range(0, len(y), images)]


def transformed(weight, m):
    """G g Gᵀ of every filter.   weight (Cout, Cin, 3, 3)   →   ((m + 2)², Cout, Cin)"""
    return (GG[m].astype(weight.dtype) @ weight.reshape(-1, 9).T).reshape(-1, *weight.shape[:2])


def transformed_backward(dfilters, m):
    """Gᵀ dfilter G of every filter.   dfilters ((m + 2)², Cout, Cin)   →   dweight (Cout, Cin, 3, 3)"""
    dweight = dfilters.reshape(len(dfilters), -1).T @ GG[m].astype(dfilters.dtype)
    return dweight.reshape(*dfilters.shape[1:], 3, 3)


def pixel_tiles(x, y_shape, padding, m):
    """Bᵀ d B of the (m + 2)² pixels under every m×m outputs.   x (B, H, W, C)   →   ((m + 2)², tiles, C)"""
    (rows, columns), (B, _, _, C) = grid(y_shape, m), x.shape
    split = np.zeros((B, m * rows + 2, m, columns + 1, C), x.dtype)
    tiles = np.empty((m + 2, m + 2, B, rows, columns * C), x.dtype)
    for pixels, place in columns_of(x, split, padding):
        place[...] = pixels
    TRANSFORMS[m].fill_pixel_tiles(split.reshape(B, m * rows + 2, -1), C, tiles)
    return tiles.reshape((m + 2)**2, -1, C)


def put_pixels(dtiles, y_shape, padding, dx, m):
    """dx = the sum of B dtile Bᵀ of all tiles: the adjoint of pixel_tiles.   dtiles ((m + 2)², tiles, C)"""
    (rows, columns), (B, _, _, C) = grid(y_shape, m), dx.shape
    split = np.zeros((B, m * rows + 2, m, columns + 1, C), dx.dtype)
    tiles = dtiles.reshape(m + 2, m + 2, B, rows, columns * C)
    TRANSFORMS[m].add_pixel_tiles(tiles, C, split.reshape(B, m * rows + 2, -1))
    for pixels, place in columns_of(dx, split, padding):
        pixels[...] = place


def put_outputs(tiles, y, m):
    """y = Aᵀ · tile · A of every tile.   tiles ((m + 2)², tiles, C)   y (B, H, W, C)"""
    (rows, columns), (B, H, _, C) = grid(y.shape, m), y.shape
    split = np.empty((B, m * rows, m, columns, C), y.dtype)
    TRANSFORMS[m].fill_outputs(tiles.reshape(m + 2, m + 2, B, rows, columns * C), split.reshape(B, m * rows, -1))
    for outputs, place in columns_of(y, split, 0):
        outputs[...] = place[:, :H]


def output_tiles(dy, m):
    """A dy Aᵀ of every m×m outputs: the adjoint of put_outputs.   dy (B, H, W, C)   →   ((m + 2)², tiles, C)"""
    (rows, columns), (B, _, _, C) = grid(dy.shape, m), dy.shape
    split = np.zeros((B, m * rows, m, columns, C), dy.dtype)
    tiles = np.empty((m + 2, m + 2, B, rows, columns * C), dy.dtype)
    for outputs, place in columns_of(dy, split, 0):
        place[...] = outputs
    TRANSFORMS[m].fill_output_tiles(split.reshape(B, m * rows, -1), tiles)
    return tiles.reshape((m + 2)**2, -1, C)


def columns_of(x, split, padding):
    """Views of every m-th column of x and of their places in split, once for each of the m parts of split.

    x (B, H, W, C)   split (B, rows, m, columns, C), which has so many rows and columns before those of x
    """
    m = split.shape[2]
    for k in range(m):
        first = (k - padding) % m                                            # column c of x is column c + padding here
        columns, at = x[:, :, first::m], (first + padding) // m
        yield columns, split[:, padding:padding + x.shape[1], k, at:at + columns.shape[2]]
