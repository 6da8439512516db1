"""3×3 convolution with stride 1 by tiles of 2×2 outputs: 16 multiplications for a tile and a pair of channels, not 36.

Winograd's minimal filtering: with a tile d of 4×4 pixels, a filter g of 3×3 and

    Bᵀ = [1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1]   G = [1 0 0; ½ ½ ½; ½ -½ ½; 0 0 1]   Aᵀ = [1 1 1 0; 0 1 -1 -1]

    y = Aᵀ · t · A,   t = Σ (G g Gᵀ) ⊙ (Bᵀ d B)  over the input channels

The sums are 16 matrix products, one for each element of t. Backward is the same formula, read from the bottom.
Lavin, Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.1: F(2×2, 3×3).

tiles.py has the transforms with A and B. Its maps are split: the even and the odd columns of a row lie apart.
NaN and infinity go where they go in the definition, but for dweight, where they reach all nine numbers of a filter.
"""
from typing import NamedTuple

import numpy as np

from .tiles import add_pixel_tiles, fill_output_tiles, fill_outputs, fill_pixel_tiles

TILES = 128                                          # as many go together: they stay in the cache
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
GG = np.kron(G, G)                                   # (16, 9): G g Gᵀ is GG · g, with the matrices as vectors


class WinogradCache(NamedTuple):
    """x (B, H, W, Cin)   weight (Cout, Cin, 3, 3)   padding of x on every side"""

    x: np.ndarray
    weight: np.ndarray
    padding: int


def winograd(x, weight, padding):
    """conv2d_forward of 3×3 kernels with stride 1, without the bias.   →   y (B, Ho, Wo, Cout), cache"""
    B, H, W, _ = x.shape
    y = np.empty((B, H + 2 * padding - 2, W + 2 * padding - 2, len(weight)), x.dtype)
    filters = np.ascontiguousarray(transformed(weight).swapaxes(1, 2))       # products with a copy are faster
    for part in parts(y):
        put_outputs(pixel_tiles(x[part], y.shape, padding) @ filters, y[part])
    return y, WinogradCache(x, weight, padding)


def winograd_backward(dy, cache):
    """dx and dweight. The tiles of x are made anew: kept, they would take four times the memory of x."""
    x, weight, padding = cache
    dx, filters, dfilters = np.empty(x.shape, x.dtype), transformed(weight), 0
    for part in parts(dy):
        dtiles = output_tiles(dy[part])                                      # y = Aᵀ · t · A
        dfilters += dtiles.swapaxes(1, 2) @ pixel_tiles(x[part], dy.shape, padding)
        put_pixels(dtiles @ filters, dy.shape, padding, dx[part])            # t = Σ filter ⊙ tile
    return dx, transformed_backward(dfilters)


def parts(y):
    """Slices of the batch, of about TILES tiles each."""
    _, rows, columns, _ = half(y.shape)
    images = -(-TILES // (rows * columns))
    return [slice(start, start + images) for start in range(0, len(y), images)]


def half(shape):
    """(B, H, W, C) of outputs → (B, rows, columns, C) of their tiles"""
    B, H, W, C = shape
    return B, -(-H // 2), -(-W // 2), C


def transformed(weight):
    """G g Gᵀ of every filter.   weight (Cout, Cin, 3, 3)   →   (16, Cout, Cin)"""
    return (GG.astype(weight.dtype) @ weight.reshape(-1, 9).T).reshape(16, *weight.shape[:2])


def transformed_backward(dfilters):
    """Gᵀ dfilter G of every filter.   dfilters (16, Cout, Cin)   →   dweight (Cout, Cin, 3, 3)"""
    return (dfilters.reshape(16, -1).T @ GG.astype(dfilters.dtype)).reshape(*dfilters.shape[1:], 3, 3)


def pixel_tiles(x, y_shape, padding):
    """Bᵀ d B of the 4×4 pixels under every 2×2 outputs.   x (B, H, W, C)   →   (16, tiles, C)"""
    (_, rows, columns, _), (B, _, _, C) = half(y_shape), x.shape
    split = np.zeros((B, 2 * rows + 2, 2, columns + 1, C), x.dtype)
    tiles = np.empty((4, 4, B, rows, columns, C), x.dtype)
    for pixels, place in columns_of(x, split, padding):
        place[...] = pixels
    fill_pixel_tiles(split.reshape(B, 2 * rows + 2, -1), C, tiles.reshape(4, 4, B, rows, -1))
    return tiles.reshape(16, -1, C)


def put_pixels(dtiles, y_shape, padding, dx):
    """dx = the sum of B dtile Bᵀ of all tiles: the adjoint of pixel_tiles.   dtiles (16, tiles, C)   dx (B, H, W, C)"""
    (_, rows, columns, _), (B, _, _, C) = half(y_shape), dx.shape
    split = np.zeros((B, 2 * rows + 2, 2, columns + 1, C), dx.dtype)
    add_pixel_tiles(dtiles.reshape(4, 4, B, rows, -1), C, split.reshape(B, 2 * rows + 2, -1))
    for pixels, place in columns_of(dx, split, padding):
        pixels[...] = place


def put_outputs(tiles, y):
    """y = Aᵀ · tile · A of every tile.   tiles (16, tiles, C)   y (B, H, W, C)"""
    B, rows, columns, C = half(y.shape)
    split = np.empty((B, 2 * rows, 2, columns, C), y.dtype)
    fill_outputs(tiles.reshape(4, 4, B, rows, -1), split.reshape(B, 2 * rows, -1))
    for outputs, place in columns_of(y, split, 0):
        outputs[...] = place[:, :y.shape[1]]


def output_tiles(dy):
    """A dy Aᵀ of every 2×2 outputs: the adjoint of put_outputs.   dy (B, H, W, C)   →   (16, tiles, C)"""
    B, rows, columns, C = half(dy.shape)
    split, tiles = np.zeros((B, 2 * rows, 2, columns, C), dy.dtype), np.empty((4, 4, B, rows, columns, C), dy.dtype)
    for outputs, place in columns_of(dy, split, 0):
        place[...] = outputs
    fill_output_tiles(split.reshape(B, 2 * rows, -1), tiles.reshape(4, 4, B, rows, -1))
    return tiles.reshape(16, -1, C)


def columns_of(x, split, padding):
    """Views of every second column of x and of their places in split, once for each half of split.

    x (B, H, W, C)   split (B, rows, 2, columns, C), which has so many rows and columns before those of x
    """
    for k in range(2):
        first = (k - padding) % 2                                            # column c of x is column c + padding here
        columns, at = x[:, :, first::2], (first + padding) // 2
        yield columns, split[:, padding:padding + x.shape[1], k, at:at + columns.shape[2]]
