"""The transforms of winograd.py between pixels, tiles of 2×2 outputs and outputs, each with its adjoint.

A transform of a matrix, as Bᵀ d B, is a transform of its rows and then one of its columns. The vectors that the
functions of one direction combine are whole rows of a map, and then one column of all tiles in a row: since even and
odd columns lie apart, both are contiguous.
"""
import numpy as np
from numba import njit

from .fast_math import LOOP

STEP = LOOP | {"forceinline": True}


@njit(**STEP)
def pixels_to_tile(d0, d1, d2, d3, t0, t1, t2, t3):
    """t = Bᵀ d"""
    for c in range(t0.size):                                                 # a loop each, or LLVM does not vectorise
        t0[c] = d0[c] - d2[c]
    for c in range(t0.size):
        t1[c] = d1[c] + d2[c]
    for c in range(t0.size):
        t2[c] = d2[c] - d1[c]
    for c in range(t0.size):
        t3[c] = d1[c] - d3[c]


@njit(**STEP)
def add_tile_to_pixels(t0, t1, t2, t3, d0, d1, d2, d3):
    """d += B t"""
    for c in range(t0.size):
        d0[c] += t0[c]
    for c in range(t0.size):
        d1[c] += t1[c] - t2[c] + t3[c]
    for c in range(t0.size):
        d2[c] += t1[c] + t2[c] - t0[c]
    for c in range(t0.size):
        d3[c] -= t3[c]


@njit(**STEP)
def tile_to_outputs(t0, t1, t2, t3, y0, y1):
    """y = Aᵀ t"""
    for c in range(t0.size):
        y0[c] = t0[c] + t1[c] + t2[c]
    for c in range(t0.size):
        y1[c] = t1[c] - t2[c] - t3[c]


@njit(**STEP)
def outputs_to_tile(y0, y1, t0, t1, t2, t3):
    """t = A y"""
    for c in range(t0.size):
        t0[c] = y0[c]
    for c in range(t0.size):
        t1[c] = y0[c] + y1[c]
    for c in range(t0.size):
        t2[c] = y0[c] - y1[c]
    for c in range(t0.size):
        t3[c] = -y1[c]


@njit(**LOOP)
def fill_pixel_tiles(x, C, tiles):
    """tiles = Bᵀ d B.   x (B, 2·rows + 2, 2·(columns + 1)·C), split   tiles (4, 4, B, rows, columns·C)"""
    _, _, B, rows, n = tiles.shape
    t = np.empty((4, 2 * (n + C)), x.dtype)
    for b in range(B):
        for h in range(rows):
            pixels_to_tile(x[b, 2 * h], x[b, 2 * h + 1], x[b, 2 * h + 2], x[b, 2 * h + 3], t[0], t[1], t[2], t[3])
            for i in range(4):
                even, odd = t[i, :n + C], t[i, n + C:]
                pixels_to_tile(even[:n], odd[:n], even[C:], odd[C:],
                               tiles[i, 0, b, h], tiles[i, 1, b, h], tiles[i, 2, b, h], tiles[i, 3, b, h])


@njit(**LOOP)
def add_pixel_tiles(tiles, C, dx):
    """dx += B tile Bᵀ.   The shapes are those of fill_pixel_tiles."""
    _, _, B, rows, n = tiles.shape
    t = np.empty((4, 2 * (n + C)), dx.dtype)
    for b in range(B):
        for h in range(rows):
            t[:] = 0
            for i in range(4):
                even, odd = t[i, :n + C], t[i, n + C:]
                add_tile_to_pixels(tiles[i, 0, b, h], tiles[i, 1, b, h], tiles[i, 2, b, h], tiles[i, 3, b, h],
                                   even[:n], odd[:n], even[C:], odd[C:])
            add_tile_to_pixels(t[0], t[1], t[2], t[3],
                               dx[b, 2 * h], dx[b, 2 * h + 1], dx[b, 2 * h + 2], dx[b, 2 * h + 3])


@njit(**LOOP)
def fill_outputs(tiles, y):
    """y = Aᵀ tile A.   tiles (4, 4, B, rows, columns·C)   y (B, 2·rows, 2·columns·C), split"""
    _, _, B, rows, n = tiles.shape
    s = np.empty((4, 2 * n), y.dtype)
    for b in range(B):
        for h in range(rows):
            for i in range(4):
                tile_to_outputs(tiles[i, 0, b, h], tiles[i, 1, b, h], tiles[i, 2, b, h], tiles[i, 3, b, h],
                                s[i, :n], s[i, n:])
            tile_to_outputs(s[0], s[1], s[2], s[3], y[b, 2 * h], y[b, 2 * h + 1])


@njit(**LOOP)
def fill_output_tiles(dy, tiles):
    """tiles = A dy Aᵀ.   The shapes are those of fill_outputs."""
    _, _, B, rows, n = tiles.shape
    s = np.empty((4, 2 * n), dy.dtype)
    for b in range(B):
        for h in range(rows):
            outputs_to_tile(dy[b, 2 * h], dy[b, 2 * h + 1], s[0], s[1], s[2], s[3])
            for i in range(4):
                outputs_to_tile(s[i, :n], s[i, n:],
                                tiles[i, 0, b, h], tiles[i, 1, b, h], tiles[i, 2, b, h], tiles[i, 3, b, h])
