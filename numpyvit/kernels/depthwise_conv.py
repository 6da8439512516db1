"""Depthwise convolution with 3×3 kernels: the nine taps of a pixel in one sum, vectorised over the channels.

Nothing is padded: one row of zeros stands for every row outside the map, and columns outside the map are skipped.
Kernels of another size are rare; the definition computes them.
"""
import numpy as np
from numba import njit

from ..checks import check_shape
from ..ops import depthwise_conv as definition
from ..ops.conv import output_size
from .fast_math import LOOP


def depthwise_conv_forward(x, weight, bias=None, stride=1, padding=0):
    if weight.shape[2:] != (3, 3):
        return definition.depthwise_conv_forward(x, weight, bias, stride, padding)
    x, has_bias = np.ascontiguousarray(x), bias is not None
    B, H, W, C = x.shape
    check_shape("weight", weight, C, 1, 3, 3)
    bias = np.zeros(C, x.dtype) if bias is None else bias
    check_shape("bias", bias, C)
    y = np.empty((B, output_size(H, 3, stride, padding), output_size(W, 3, stride, padding), C), x.dtype)
    convolve(x, taps(weight), bias, stride, padding, y)
    return y, (x, weight, has_bias, stride, padding)


def depthwise_conv_backward(dy, cache):
    x, weight, has_bias, stride, padding = cache
    if weight.shape[2:] != (3, 3):
        return definition.depthwise_conv_backward(dy, cache)
    B, H, W, C = x.shape
    check_shape("dy", dy, B, output_size(H, 3, stride, padding), output_size(W, 3, stride, padding), C)
    dy, w = np.ascontiguousarray(dy), taps(weight)
    dx, dweight = np.zeros_like(x), np.zeros_like(w)
    correlate(x, dy, stride, padding, dweight)
    if stride == 1:                                                          # dy convolved with the taps turned around
        convolve(dy, w[::-1, ::-1].copy(), np.zeros_like(w[0, 0]), 1, 2 - padding, dx)
    else:
        scatter(dy, w, stride, padding, dx)
    dbias = dy.sum(axis=(0, 1, 2)) if has_bias else None
    return dx, dweight.transpose(2, 0, 1)[:, None], dbias


def taps(weight):
    """(C, 1, kh, kw) → (kh, kw, C), contiguous"""
    return np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0))


@njit(**LOOP)
def convolve(x, w, bias, stride, padding, y):
    """y = sum(shifted(padded x, i, j) * weight[:, 0, i, j] for i, j) + bias"""
    B, H, W, C = x.shape
    _, Ho, Wo, _ = y.shape
    zero = np.zeros((W, C), x.dtype)
    for b in range(B):
        for h in range(Ho):
            top = h * stride - padding
            above = x[b, top] if 0 <= top < H else zero
            middle = x[b, top + 1] if 0 <= top + 1 < H else zero
            below = x[b, top + 2] if 0 <= top + 2 < H else zero
            for v in range(Wo):
                j = v * stride - padding
                out = y[b, h, v]
                if 0 <= j and j + 3 <= W:
                    for c in range(C):
                        out[c] = (
                            bias[c]
                            + above[j, c] * w[0, 0, c] + above[j + 1, c] * w[0, 1, c] + above[j + 2, c] * w[0, 2, c]
                            + middle[j, c] * w[1, 0, c] + middle[j + 1, c] * w[1, 1, c] + middle[j + 2, c] * w[1, 2, c]
                            + below[j, c] * w[2, 0, c] + below[j + 1, c] * w[2, 1, c] + below[j + 2, c] * w[2, 2, c])
                else:
                    for c in range(C):
                        out[c] = bias[c]
                    for t in range(max(0, -j), min(3, W - j)):
                        for c in range(C):
                            out[c] += (above[j + t, c] * w[0, t, c] + middle[j + t, c] * w[1, t, c]
                                       + below[j + t, c] * w[2, t, c])


@njit(**LOOP)
def scatter(dy, w, stride, padding, dx):
    """shifted(dpadded, i, j)[...] += dy * weight[:, 0, i, j]"""
    B, H, W, C = dx.shape
    _, Ho, Wo, _ = dy.shape
    for b in range(B):
        for h in range(Ho):
            top = h * stride - padding
            for i in range(max(0, -top), min(3, H - top)):
                for v in range(Wo):
                    left = v * stride - padding
                    for j in range(max(0, -left), min(3, W - left)):
                        for c in range(C):
                            dx[b, top + i, left + j, c] += dy[b, h, v, c] * w[i, j, c]


@njit(**LOOP)
def correlate(x, dy, stride, padding, dweight):
    """dweight[:, 0, i, j] = (dy * shifted(padded x, i, j)).sum(axis=(0, 1, 2))

    Image after image, four positions at a time.
    """
    B, H, W, C = x.shape
    _, Ho, Wo, _ = dy.shape
    s = stride
    image = np.empty_like(dweight)
    for b in range(B):
        image[:] = 0
        for h in range(Ho):
            top = h * s - padding
            for i in range(max(0, -top), min(3, H - top)):
                for j in range(3):
                    first = max(0, -((j - padding) // s))                    # outputs whose tap j lies on the map
                    last = max(first, min(Wo, (W - 1 + padding - j) // s + 1))
                    total, row, up = image[i, j], x[b, top + i], dy[b, h]
                    whole = last - (last - first) % 4
                    for v in range(first, whole, 4):
                        k = v * s + j - padding
                        for c in range(C):
                            total[c] += (up[v, c] * row[k, c] + up[v + 1, c] * row[k + s, c]
                                         + up[v + 2, c] * row[k + 2 * s, c] + up[v + 3, c] * row[k + 3 * s, c])
                    for v in range(whole, last):
                        k = v * s + j - padding
                        for c in range(C):
                            total[c] += up[v, c] * row[k, c]
        dweight += image
