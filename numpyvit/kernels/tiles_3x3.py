"""The transforms of winograd.py for tiles of 3×3 outputs: those of tiles_2x2.py with longer sums.

    Bᵀ = [1 -3/2 -3/2 1 0; 0 -2 -1 1 0; 0 1 -5/2 1 0; 0 -½ ½ 1 0; 0 1 -3/2 -3/2 1]
    Aᵀ = [1 1 1 1 0; 0 ½ -1 2 0; 0 ¼ 1 4 1]

The polynomials whose products stand behind the formula are evaluated at 0, ½, -1, 2 and infinity: tiles_4x4.py has
more about that, and about the layout.
"""
import numpy as np
from numba import njit

from .fast_math import LOOP

STEP = LOOP | {"forceinline": True}


@njit(**STEP)
def pixels_to_tile(d0, d1, d2, d3, d4, t0, t1, t2, t3, t4):
    """t = Bᵀ d"""
    half, b, q = t0.dtype.type(0.5), t0.dtype.type(1.5), t0.dtype.type(2.5)
    for c in range(t0.size):                                                 # a loop each, or LLVM does not vectorise
        t0[c] = d0[c] + d3[c] - b * (d1[c] + d2[c])
    for c in range(t0.size):
        t1[c] = d3[c] - d2[c] - (d1[c] + d1[c])
    for c in range(t0.size):
        t2[c] = d1[c] + d3[c] - q * d2[c]
    for c in range(t0.size):
        t3[c] = d3[c] + half * (d2[c] - d1[c])
    for c in range(t0.size):
        t4[c] = d1[c] + d4[c] - b * (d2[c] + d3[c])


@njit(**STEP)
def add_tile_to_pixels(t0, t1, t2, t3, t4, d0, d1, d2, d3, d4):
    """d += B t"""
    half, b, q = t0.dtype.type(0.5), t0.dtype.type(1.5), t0.dtype.type(2.5)
    for c in range(t0.size):
        d0[c] += t0[c]
    for c in range(t0.size):
        d1[c] += t2[c] + t4[c] - (t1[c] + t1[c]) - b * t0[c] - half * t3[c]
    for c in range(t0.size):
        d2[c] += half * t3[c] - t1[c] - q * t2[c] - b * (t0[c] + t4[c])
    for c in range(t0.size):
        d3[c] += t0[c] + t1[c] + t2[c] + t3[c] - b * t4[c]
    for c in range(t0.size):
        d4[c] += t4[c]


@njit(**STEP)
def tile_to_outputs(t0, t1, t2, t3, t4, y0, y1, y2):
    """y = Aᵀ t"""
    quarter, half, four = t0.dtype.type(0.25), t0.dtype.type(0.5), t0.dtype.type(4)
    for c in range(t0.size):
        y0[c] = t0[c] + t1[c] + t2[c] + t3[c]
    for c in range(t0.size):
        y1[c] = half * t1[c] - t2[c] + (t3[c] + t3[c])
    for c in range(t0.size):
        y2[c] = quarter * t1[c] + t2[c] + four * t3[c] + t4[c]


@njit(**STEP)
def outputs_to_tile(y0, y1, y2, t0, t1, t2, t3, t4):
    """t = A y"""
    quarter, half, two = t0.dtype.type(0.25), t0.dtype.type(0.5), t0.dtype.type(2)
    for c in range(t0.size):
        t0[c] = y0[c]
    for c in range(t0.size):
        t1[c] = y0[c] + half * y1[c] + quarter * y2[c]
    for c in range(t0.size):
        t2[c] = y0[c] - y1[c] + y2[c]
    for c in range(t0.size):
        t3[c] = y0[c] + two * (y1[c] + two * y2[c])
    for c in range(t0.size):
        t4[c] = y2[c]


@njit(**LOOP)
def fill_pixel_tiles(x, C, tiles):
    """tiles = Bᵀ d B.   x (B, 3·rows + 2, 3·(columns + 1)·C), split   tiles (5, 5, B, rows, columns·C)"""
    _, _, B, rows, n = tiles.shape
    t = np.empty((5, 3 * (n + C)), x.dtype)
    for b in range(B):
        for h in range(rows):
            d = x[b, 3 * h:3 * h + 5]
            pixels_to_tile(d[0], d[1], d[2], d[3], d[4], t[0], t[1], t[2], t[3], t[4])
            for i in range(5):
                first, second, third = thirds(t[i])
                pixels_to_tile(first[:n], second[:n], third[:n], first[C:], second[C:],
                               tiles[i, 0, b, h], tiles[i, 1, b, h], tiles[i, 2, b, h],
                               tiles[i, 3, b, h], tiles[i, 4, b, h])


@njit(**LOOP)
def add_pixel_tiles(tiles, C, dx):
    """dx += B tile Bᵀ.   The shapes are those of fill_pixel_tiles."""
    _, _, B, rows, n = tiles.shape
    t = np.empty((5, 3 * (n + C)), dx.dtype)
    for b in range(B):
        for h in range(rows):
            t[:] = 0
            for i in range(5):
                first, second, third = thirds(t[i])
                add_tile_to_pixels(tiles[i, 0, b, h], tiles[i, 1, b, h], tiles[i, 2, b, h],
                                   tiles[i, 3, b, h], tiles[i, 4, b, h],
                                   first[:n], second[:n], third[:n], first[C:], second[C:])
            d = dx[b, 3 * h:3 * h + 5]
            add_tile_to_pixels(t[0], t[1], t[2], t[3], t[4], d[0], d[1], d[2], d[3], d[4])


@njit(**LOOP)
def fill_outputs(tiles, y):
    """y = Aᵀ tile A.   tiles (5, 5, B, rows, columns·C)   y (B, 3·rows, 3·columns·C), split"""
    _, _, B, rows, n = tiles.shape
    s = np.empty((5, 3 * n), y.dtype)
    for b in range(B):
        for h in range(rows):
            for i in range(5):
                first, second, third = thirds(s[i])
                tile_to_outputs(tiles[i, 0, b, h], tiles[i, 1, b, h], tiles[i, 2, b, h],
                                tiles[i, 3, b, h], tiles[i, 4, b, h], first, second, third)
            out = y[b, 3 * h:3 * h + 3]
            tile_to_outputs(s[0], s[1], s[2], s[3], s[4], out[0], out[1], out[2])


@njit(**LOOP)
def fill_output_tiles(dy, tiles):
    """tiles = A dy Aᵀ.   The shapes are those of fill_outputs."""
    _, _, B, rows, n = tiles.shape
    s = np.empty((5, 3 * n), dy.dtype)
    for b in range(B):
        for h in range(rows):
            d = dy[b, 3 * h:3 * h + 3]
            outputs_to_tile(d[0], d[1], d[2], s[0], s[1], s[2], s[3], s[4])
            for i in range(5):
                first, second, third = thirds(s[i])
                outputs_to_tile(first, second, third,
                                tiles[i, 0, b, h], tiles[i, 1, b, h], tiles[i, 2, b, h],
                                tiles[i, 3, b, h], tiles[i, 4, b, h])


@njit(**STEP)
def thirds(row):
    """Views of the three thirds of a split row: its columns 0, 3, 6, …, then 1, 4, 7, …"""
    n = row.size // 3
    return row[:n], row[n:2 * n], row[2 * n:]
