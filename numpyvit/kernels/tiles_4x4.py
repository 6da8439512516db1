"""The transforms of winograd.py for tiles of 4×4 outputs: those of tiles_2x2.py with longer sums.

    Bᵀ = [1 0 -s 0 1 0; 0 -b -b² a 1 0; 0 b -b² -a 1 0; 0 -a -a² b 1 0; 0 a -a² -b 1 0; 0 1 0 -s 0 1]
    Aᵀ = [1 1 1 1 1 0; 0 a -a b -b 0; 0 a² a² b² b² 0; 0 a³ -a³ b³ -b³ 1]   with a = ⅔, b = 1/a, s = a² + b²

The polynomials whose products stand behind the formula are evaluated at 0, ±a, ±b and infinity. With these points
float32 errors are less than half of those with 0, ±1, ±2 and infinity; Barabasz et al. 2020, "Error Analysis and
Improving the Accuracy of Winograd Convolution for Deep Neural Networks", has the reasons and other choices.
Every fourth column of a row lies together, so that the vectors that are combined are contiguous here, too. The factors
have the arrays' dtype: Numba computes a float64 times a float32 in float64.
"""
import numpy as np
from numba import njit

from .fast_math import LOOP

STEP = LOOP | {"forceinline": True}
LOW, HIGH = 2 / 3, 3 / 2                                                     # a and b


@njit(**STEP)
def pixels_to_tile(d0, d1, d2, d3, d4, d5, t0, t1, t2, t3, t4, t5):
    """t = Bᵀ d"""
    a, b, s = t0.dtype.type(LOW), t0.dtype.type(HIGH), t0.dtype.type(LOW**2 + HIGH**2)
    aa, bb = t0.dtype.type(LOW**2), t0.dtype.type(HIGH**2)
    for c in range(t0.size):                                                 # a loop each, or LLVM does not vectorise
        t0[c] = d0[c] + d4[c] - s * d2[c]
    for c in range(t0.size):
        t1[c] = d4[c] - bb * d2[c] + (a * d3[c] - b * d1[c])
    for c in range(t0.size):
        t2[c] = d4[c] - bb * d2[c] - (a * d3[c] - b * d1[c])
    for c in range(t0.size):
        t3[c] = d4[c] - aa * d2[c] + (b * d3[c] - a * d1[c])
    for c in range(t0.size):
        t4[c] = d4[c] - aa * d2[c] - (b * d3[c] - a * d1[c])
    for c in range(t0.size):
        t5[c] = d1[c] + d5[c] - s * d3[c]


@njit(**STEP)
def add_tile_to_pixels(t0, t1, t2, t3, t4, t5, d0, d1, d2, d3, d4, d5):
    """d += B t"""
    a, b, s = t0.dtype.type(LOW), t0.dtype.type(HIGH), t0.dtype.type(LOW**2 + HIGH**2)
    aa, bb = t0.dtype.type(LOW**2), t0.dtype.type(HIGH**2)
    for c in range(t0.size):
        d0[c] += t0[c]
    for c in range(t0.size):
        d1[c] += b * (t2[c] - t1[c]) + a * (t4[c] - t3[c]) + t5[c]
    for c in range(t0.size):
        d2[c] -= s * t0[c] + bb * (t1[c] + t2[c]) + aa * (t3[c] + t4[c])
    for c in range(t0.size):
        d3[c] += a * (t1[c] - t2[c]) + b * (t3[c] - t4[c]) - s * t5[c]
    for c in range(t0.size):
        d4[c] += t0[c] + (t1[c] + t2[c]) + (t3[c] + t4[c])
    for c in range(t0.size):
        d5[c] += t5[c]


@njit(**STEP)
def tile_to_outputs(t0, t1, t2, t3, t4, t5, y0, y1, y2, y3):
    """y = Aᵀ t"""
    a, b, aa, bb = t0.dtype.type(LOW), t0.dtype.type(HIGH), t0.dtype.type(LOW**2), t0.dtype.type(HIGH**2)
    aaa, bbb = t0.dtype.type(LOW**3), t0.dtype.type(HIGH**3)
    for c in range(t0.size):
        y0[c] = t0[c] + (t1[c] + t2[c]) + (t3[c] + t4[c])
    for c in range(t0.size):
        y1[c] = a * (t1[c] - t2[c]) + b * (t3[c] - t4[c])
    for c in range(t0.size):
        y2[c] = aa * (t1[c] + t2[c]) + bb * (t3[c] + t4[c])
    for c in range(t0.size):
        y3[c] = aaa * (t1[c] - t2[c]) + bbb * (t3[c] - t4[c]) + t5[c]


@njit(**STEP)
def outputs_to_tile(y0, y1, y2, y3, t0, t1, t2, t3, t4, t5):
    """t = A y"""
    a, b, aa, bb = t0.dtype.type(LOW), t0.dtype.type(HIGH), t0.dtype.type(LOW**2), t0.dtype.type(HIGH**2)
    aaa, bbb = t0.dtype.type(LOW**3), t0.dtype.type(HIGH**3)
    for c in range(t0.size):
        t0[c] = y0[c]
    for c in range(t0.size):
        t1[c] = y0[c] + aa * y2[c] + (a * y1[c] + aaa * y3[c])
    for c in range(t0.size):
        t2[c] = y0[c] + aa * y2[c] - (a * y1[c] + aaa * y3[c])
    for c in range(t0.size):
        t3[c] = y0[c] + bb * y2[c] + (b * y1[c] + bbb * y3[c])
    for c in range(t0.size):
        t4[c] = y0[c] + bb * y2[c] - (b * y1[c] + bbb * y3[c])
    for c in range(t0.size):
        t5[c] = y3[c]


@njit(**LOOP)
def fill_pixel_tiles(x, C, tiles):
    """tiles = Bᵀ d B.   x (B, 4·rows + 2, 4·(columns + 1)·C), split   tiles (6, 6, B, rows, columns·C)"""
    _, _, B, rows, n = tiles.shape
    t = np.empty((6, 4 * (n + C)), x.dtype)
    for b in range(B):
        for h in range(rows):
            d = x[b, 4 * h:4 * h + 6]
            pixels_to_tile(d[0], d[1], d[2], d[3], d[4], d[5], t[0], t[1], t[2], t[3], t[4], t[5])
            for i in range(6):
                first, second, third, fourth = quarters(t[i])
                pixels_to_tile(first[:n], second[:n], third[:n], fourth[:n], first[C:], second[C:],
                               tiles[i, 0, b, h], tiles[i, 1, b, h], tiles[i, 2, b, h],
                               tiles[i, 3, b, h], tiles[i, 4, b, h], tiles[i, 5, b, h])


@njit(**LOOP)
def add_pixel_tiles(tiles, C, dx):
    """dx += B tile Bᵀ.   The shapes are those of fill_pixel_tiles."""
    _, _, B, rows, n = tiles.shape
    t = np.empty((6, 4 * (n + C)), dx.dtype)
    for b in range(B):
        for h in range(rows):
            t[:] = 0
            for i in range(6):
                first, second, third, fourth = quarters(t[i])
                add_tile_to_pixels(tiles[i, 0, b, h], tiles[i, 1, b, h], tiles[i, 2, b, h],
                                   tiles[i, 3, b, h], tiles[i, 4, b, h], tiles[i, 5, b, h],
                                   first[:n], second[:n], third[:n], fourth[:n], first[C:], second[C:])
            d = dx[b, 4 * h:4 * h + 6]
            add_tile_to_pixels(t[0], t[1], t[2], t[3], t[4], t[5], d[0], d[1], d[2], d[3], d[4], d[5])


@njit(**LOOP)
def fill_outputs(tiles, y):
    """y = Aᵀ tile A.   tiles (6, 6, B, rows, columns·C)   y (B, 4·rows, 4·columns·C), split"""
    _, _, B, rows, n = tiles.shape
    s = np.empty((6, 4 * n), y.dtype)
    for b in range(B):
        for h in range(rows):
            for i in range(6):
                first, second, third, fourth = quarters(s[i])
                tile_to_outputs(tiles[i, 0, b, h], tiles[i, 1, b, h], tiles[i, 2, b, h],
                                tiles[i, 3, b, h], tiles[i, 4, b, h], tiles[i, 5, b, h], first, second, third, fourth)
            out = y[b, 4 * h:4 * h + 4]
            tile_to_outputs(s[0], s[1], s[2], s[3], s[4], s[5], out[0], out[1], out[2], out[3])


@njit(**LOOP)
def fill_output_tiles(dy, tiles):
    """tiles = A dy Aᵀ.   The shapes are those of fill_outputs."""
    _, _, B, rows, n = tiles.shape
    s = np.empty((6, 4 * n), dy.dtype)
    for b in range(B):
        for h in range(rows):
            d = dy[b, 4 * h:4 * h + 4]
            outputs_to_tile(d[0], d[1], d[2], d[3], s[0], s[1], s[2], s[3], s[4], s[5])
            for i in range(6):
                first, second, third, fourth = quarters(s[i])
                outputs_to_tile(first, second, third, fourth,
                                tiles[i, 0, b, h], tiles[i, 1, b, h], tiles[i, 2, b, h],
                                tiles[i, 3, b, h], tiles[i, 4, b, h], tiles[i, 5, b, h])


@njit(**STEP)
def quarters(row):
    """Views of the four quarters of a split row: its columns 0, 4, 8, …, then 1, 5, 9, …"""
    n = row.size // 4
    return row[:n], row[n:2 * n], row[2 * n:3 * n], row[3 * n:]
