"""numpyvit.ops.optim in one pass: clipping, weight decay, both moments and the update; the running average in another.

Each vector is read and written once (28 bytes a parameter in float32), where the definition makes a dozen temporaries.
The operations on the vectors are the definition's, in its order.
"""
import math

import numba
import numpy as np

from ..checks import check_shape


def adamw_step(data, grad, m, v, update, beta1, beta2, eps):
    for name, vector in dict(grad=grad, m=m, v=v).items():
        check_shape(name, vector, *data.shape)
    adamw_loop(data, grad, m, v, update, beta1, beta2, eps)


def average_step(data, ema, ema_decay):
    check_shape("ema", ema, *data.shape)
    average_loop(data, ema, ema_decay)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def adamw_loop(data, grad, m, v, update, beta1, beta2, eps):
    """adamw_step, element by element"""
    T = data.dtype.type
    lr, step, decay, scale = update
    keep, scale_ = T(1 - lr * decay), T(scale)
    new1, beta2_, new2 = T(1 - beta1), T(beta2), T(1 - beta2)
    size, root, eps_ = T(lr / (1 - beta1**step)), T(math.sqrt(1 - beta2**step)), T(eps)
    for i in range(data.size):
        w = data[i] * keep                                                   # data *= 1 - lr * decay
        g = grad[i] * scale_
        m[i] += new1 * (g - m[i])                                            # m += (1 - beta1) * (grad - m)
        v[i] = v[i] * beta2_ + new2 * g * g                                  # v *= beta2; v += (1 - beta2) * grad²
        data[i] = w - size * m[i] / (np.sqrt(v[i]) / root + eps_)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def average_loop(data, ema, ema_decay):
    """average_step, element by element"""
    new = data.dtype.type(1 - ema_decay)
    for i in range(data.size):
        ema[i] += new * (data[i] - ema[i])                                   # ema += (1 - ema_decay) * (data - ema)


@numba.njit(nogil=True, cache=True, fastmath={"reassoc"})
def square_sums(grad, sums, chunk):
    for i in range(sums.size):
        total = 0.0
        for j in range(i * chunk, min((i + 1) * chunk, grad.size)):
            total += np.float64(grad[j]) * np.float64(grad[j])               # (part * part).sum()
        sums[i] = total
