"""Bias, activation and derivative in one pass. Forward keeps act′(x + bias); backward is then a product and a sum."""
import numpy as np
from numba import njit

from ..checks import check_shape
from .fast_math import LOOP, exp, normal


def bias_activation_forward(x, bias, act="gelu"):
    check_shape("bias", bias, x.shape[-1])
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    y, derivative = np.empty_like(rows), np.empty_like(rows)
    FORWARD[act](rows, bias, y, derivative)
    return y.reshape(x.shape), (derivative,)


def bias_activation_backward(dy, cache):
    (derivative,) = cache
    dx, dbias = np.empty_like(derivative), np.zeros(derivative.shape[1], derivative.dtype)
    backward_rows(np.ascontiguousarray(dy).reshape(derivative.shape), derivative, dx, dbias)
    return dx.reshape(dy.shape), dbias


@njit(**LOOP)
def gelu_rows(x, bias, y, derivative):
    """y = gelu(x + bias), and its derivative"""
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            z = x[i, c] + bias[c]
            Phi, phi = normal(z)
            y[i, c] = z * Phi                                                # y = x · Φ(x)
            derivative[i, c] = Phi + z * phi                                 # dx = dy * (Phi + x * phi)


@njit(**LOOP)
def gelu_tanh_rows(x, bias, y, derivative):
    """y = gelu_tanh(x + bias), and its derivative"""
    one, two = x.dtype.type(1), x.dtype.type(2)
    slope, cubic = x.dtype.type(0.7978845608028654), x.dtype.type(0.044715)
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            z = x[i, c] + bias[c]
            u = slope * (z + cubic * z * z * z)
            s = one / (one + exp(-two * u))                                  # ½ (1 + tanh u) = σ(2u)
            du = slope * (one + x.dtype.type(3) * cubic * z * z)
            y[i, c] = z * s                                                  # ½ x (1 + tanh u)
            derivative[i, c] = s + two * z * s * (one - s) * du              # ½ (1 + t) + ½ x (1 − t²) · du


@njit(**LOOP)
def quick_gelu_rows(x, bias, y, derivative):
    """y = quick_gelu(x + bias), and its derivative"""
    one, quick = x.dtype.type(1), x.dtype.type(1.702)
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            z = x[i, c] + bias[c]
            s = one / (one + exp(-quick * z))                                # σ(1.702 x)
            y[i, c] = z * s
            derivative[i, c] = s + z * quick * s * (one - s)                 # s + x * QUICK * s * (1 - s)


@njit(**LOOP)
def relu_rows(x, bias, y, derivative):
    """y = relu(x + bias), and its derivative"""
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            z = x[i, c] + bias[c]
            y[i, c] = zero if z < zero else z                                # np.maximum(x, 0), which keeps NaN
            derivative[i, c] = one if z > zero else zero                     # x > 0


@njit(**LOOP)
def backward_rows(dy, derivative, dx, dbias):
    """dx = dy ⊙ act′(x + bias), and dbias, its sum over the rows"""
    for i in range(dy.shape[0]):
        for c in range(dy.shape[1]):
            d = dy[i, c] * derivative[i, c]
            dx[i, c] = d
            dbias[c] += d                                                    # dx.sum(tokens)


FORWARD = {"gelu": gelu_rows, "gelu_tanh": gelu_tanh_rows, "quick_gelu": quick_gelu_rows, "relu": relu_rows}
