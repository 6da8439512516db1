"""The definition's products. The rows are gathered and scattered in runs of kw·Cin numbers, and nothing is padded.

3×3 kernels with stride 1 between many channels go another way where that takes fewer multiplications: winograd.py.
"""
import numpy as np
from numba import njit

from ..checks import check_shape
from ..ops.conv import kernel_matrix, output_size
from .fast_math import LOOP
from .linear import add_rows, add_to_rows
from .winograd import WinogradCache, tile_size, winograd, winograd_backward

LEAST = 32                                           # channels from which winograd.py is faster


def conv2d_forward(x, weight, bias=None, stride=1, padding=0):
    m, (B, H, W, _) = 1, x.shape
    if (*weight.shape[2:], stride) == (3, 3, 1) and min(weight.shape[:2]) >= LEAST:
        m = tile_size(B, H + 2 * padding - 2, W + 2 * padding - 2)
    if m > 1:
        y, cache = winograd(x, weight, padding, m)
    else:
        y, cache = by_rows(x, weight, stride, padding)
    if bias is not None:
        check_shape("bias", bias, len(weight))
        add_to_rows(bias, y.reshape(-1, len(weight)))                        # y = y + bias, without the copy
    return y, (cache, bias is not None, y.shape)


def conv2d_backward(dy, cache, needs_dx=True):
    cache, has_bias, y_shape = cache
    check_shape("dy", dy, *y_shape)
    dy, dbias = np.ascontiguousarray(dy), None
    if has_bias:
        dbias = np.zeros(dy.shape[3], dy.dtype)
        add_rows(dy.reshape(-1, dy.shape[3]), dbias)                         # dbias = dy.sum(positions)
    if isinstance(cache, WinogradCache):                                     # whose x are not images: many channels
        dx, dweight = winograd_backward(dy, cache)
    else:
        dx, dweight = by_rows_backward(dy, cache, needs_dx)
    return dx if needs_dx else None, dweight, dbias


def by_rows(x, weight, stride, padding):
    """The definition's way: y = rows · Wᵀ, without a bias.   →   y, cache"""
    B, H, W, Cin = x.shape
    Cout, _, kh, kw = weight.shape
    Ho, Wo = output_size(H, kh, stride, padding), output_size(W, kw, stride, padding)
    rows = np.empty((B, Ho, Wo, kh, kw * Cin), x.dtype)
    gather(np.ascontiguousarray(x).reshape(B, H, W * Cin), Cin, stride, padding, rows)
    rows = rows.reshape(B * Ho * Wo, kh * kw * Cin)
    return (rows @ kernel_matrix(weight).T).reshape(B, Ho, Wo, Cout), (rows, weight, x.shape, stride, padding)


def by_rows_backward(dy, cache, needs_dx):
    """dx = col2im(dy · W) where it is needed,   dweight = dyᵀ · rows"""
    rows, weight, x_shape, stride, padding = cache
    (B, H, W, Cin), (_, Ho, Wo, Cout), (kh, kw) = x_shape, dy.shape, weight.shape[2:]
    dy_rows = dy.reshape(-1, Cout)
    dweight = (dy_rows.T @ rows).reshape(Cout, kh, kw, Cin).transpose(0, 3, 1, 2)
    if not needs_dx:
        return None, dweight
    drows = dy_rows @ kernel_matrix(weight)
    dx = np.zeros((B, H, W * Cin), dy.dtype)
    scatter(drows.reshape(B, Ho, Wo, kh, kw * Cin), Cin, stride, padding, dx)
    return dx.reshape(x_shape), dweight


@njit(**LOOP)
def gather(x, Cin, stride, padding, rows):
    """im2col: rows[:, :, :, i, j] = shifted(padded, i, j, Ho, Wo, stride), all j of a window at once; x (B, H, W·C)"""
    B, H, WC = x.shape
    _, Ho, Wo, kh, run = rows.shape
    for b in range(B):
        for h in range(Ho):
            for v in range(Wo):
                left = (v * stride - padding) * Cin                          # where the run starts in its row of x
                first = min(run, max(0, -left))                              # the part of it that lies on the map
                last = max(first, min(run, WC - left))
                for i in range(kh):
                    top = h * stride - padding + i
                    row = rows[b, h, v, i]
                    if 0 <= top < H:
                        row[:first] = 0
                        to, source = row[first:last], x[b, top, left + first:left + last]    # loops over views are fast
                        for t in range(to.size):
                            to[t] = source[t]
                        row[last:] = 0
                    else:
                        row[:] = 0


@njit(**LOOP)
def scatter(rows, Cin, stride, padding, dx):
    """col2im: shifted(dpadded, i, j, Ho, Wo, stride)[...] += rows[:, :, :, i, j], all j of a window at once"""
    B, H, WC = dx.shape
    _, Ho, Wo, kh, run = rows.shape
    for b in range(B):
        for h in range(Ho):
            for v in range(Wo):
                left = (v * stride - padding) * Cin
                first, last = max(0, -left), min(run, WC - left)
                for i in range(kh):
                    top = h * stride - padding + i
                    if 0 <= top < H and first < last:
                        to, source = dx[b, top, left + first:left + last], rows[b, h, v, i, first:last]
                        for t in range(to.size):
                            to[t] += source[t]
