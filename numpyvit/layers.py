"""The layers: each owns its parameters, calls one or two ops, and passes the caches of the ops on.

No layer keeps anything between calls. A layer that draws random bits, or measures a batch, takes the Pass, called down,
in its forward: see flat.Pass.
"""
import functools
import math

import numpy as np

from . import functional as F
from .checks import fail
from .flat import EVALUATION, Module, Parameter
from .ops.avg_pool import window_cells
from .ops.batch_norm import batch_norm_statistics
from .ops.conv import output_size
from .ops.random_bits import hash_combine

# --- initialisers: init(rng, shape) → values.  timm's trunc_normal cuts at ±2, a hundred times its σ: a plain normal.


def normal(std):
    """Normal numbers of mean 0."""
    return functools.partial(draw_normal, std=std)


def draw_normal(rng, shape, std):
    """What normal(std) draws."""
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(std)


def zeros(rng, shape):
    """All 0."""
    return np.zeros(shape, np.float32)


def ones(rng, shape):
    """All 1."""
    return np.ones(shape, np.float32)


def conv_uniform(fan_in):
    """torch's default for a convolution's weight and bias: kaiming_uniform(a=√5), which is U(±1/√fan_in)."""
    return functools.partial(draw_uniform, bound=1 / math.sqrt(fan_in))


def draw_uniform(rng, shape, bound):
    """What conv_uniform draws."""
    return rng.uniform(-bound, bound, shape)


class Linear(Module):
    """y = x · weightᵀ + bias.   x (..., in_features)   →   y (..., out_features)"""

    def __init__(self, in_features, out_features, bias=True):
        self.weight = Parameter((out_features, in_features), normal(0.02), decay=True)
        self.bias = Parameter((out_features,), zeros) if bias else None

    def forward(self, x):
        return F.linear_forward(x, self.weight.data, self.bias.data if self.bias else None)

    def backward(self, dy, cache):
        dx, dweight, dbias = F.linear_backward(dy, cache)
        self.weight.grad += dweight
        if self.bias:
            self.bias.grad += dbias
        return dx


class LayerNorm(Module):
    """Over the last axis.   x (..., C)   →   y (..., C)"""

    def __init__(self, C, eps):
        self.weight, self.bias = Parameter((C,), ones), Parameter((C,), zeros)
        self.eps = eps

    def forward(self, x):
        return F.layer_norm_forward(x, self.weight.data, self.bias.data, self.eps)

    def backward(self, dy, cache):
        dx, dweight, dbias = F.layer_norm_backward(dy, cache)
        self.weight.grad += dweight
        self.bias.grad += dbias
        return dx


class BatchNorm(Module):
    """Each channel over the whole batch; in evaluation by the running statistics.   x (..., C)   →   y (..., C)

    A training forward changes no buffer: it leaves (mean, unbiased variance) in down.statistics, under the layer's
    name. Whoever trains passes these on to update(), by way of Model.update_buffers.
    """

    buffers = ("running_mean", "running_var", "num_batches_tracked")

    def __init__(self, C, eps=1e-5, momentum=0.1):
        self.weight, self.bias = Parameter((C,), ones), Parameter((C,), zeros)
        self.running_mean, self.running_var = np.zeros(C), np.ones(C)
        self.num_batches_tracked = np.zeros((), np.int64)
        self.eps, self.momentum = eps, momentum

    def forward(self, x, down=EVALUATION):
        train = down.statistics is not None
        running = (None, None) if train else (self.running_mean, self.running_var)
        y, cache = F.batch_norm_forward(x, self.weight.data, self.bias.data, *running, self.eps)
        if train:
            down.statistics[self.name] = batch_norm_statistics(cache)
        return y, cache

    def backward(self, dy, cache):
        dx, dweight, dbias = F.batch_norm_backward(dy, cache)
        self.weight.grad += dweight
        self.bias.grad += dbias
        return dx

    def update(self, mean, var):
        """running ← 0.9 · running + 0.1 · batch, in place: replicas share the buffers."""
        self.running_mean += self.momentum * (mean - self.running_mean)
        self.running_var += self.momentum * (var - self.running_var)
        self.num_batches_tracked += 1


class Dropout(Module):
    """Elements (Dropout) or whole branches (DropPath) zeroed with probability rate where seeds are given.

    Every instance has a number of its own, handed out by FlatModule.finish, so that no two share random bits.
    """

    number = 0

    def __init__(self, rate):
        self.rate = float(rate)

    def seeds(self, down):
        """The images' seeds (B,) → this layer's seeds (B,); None where nothing is dropped."""
        return None if down.seeds is None or self.rate == 0 else hash_combine(down.seeds, self.number)

    def forward(self, x, down=EVALUATION):
        return F.dropout_forward(x, self.rate, self.seeds(down))

    def backward(self, dy, cache):
        return F.dropout_backward(dy, cache)


class DropPath(Dropout):
    """The whole branch of an image zeroed with probability rate.   x (B, ...)   →   y (B, ...)"""

    def forward(self, x, down=EVALUATION):
        return F.drop_path_forward(x, self.rate, self.seeds(down))

    def backward(self, dy, cache):
        return F.drop_path_backward(dy, cache)


class Mlp(Module):
    """fc2(act(fc1(x))), with dropout after each.   x (..., C)   →   y (..., C)"""

    def __init__(self, C, hidden, act="gelu", drop_rate=0.0):
        self.fc1, self.drop1 = Linear(C, hidden), Dropout(drop_rate)
        self.fc2, self.drop2 = Linear(hidden, C), Dropout(drop_rate)
        self.act = act

    def forward(self, x, down=EVALUATION):
        h, c1 = F.linear_forward(x, self.fc1.weight.data)                    # bias_activation adds the bias
        h, c2 = F.bias_activation_forward(h, self.fc1.bias.data, self.act)
        h, c3 = self.drop1.forward(h, down)
        h, c4 = self.fc2.forward(h)
        h, c5 = self.drop2.forward(h, down)
        return h, (c1, c2, c3, c4, c5)

    def backward(self, dy, cache):
        c1, c2, c3, c4, c5 = cache
        dh = self.drop2.backward(dy, c5)
        dh = self.fc2.backward(dh, c4)
        dh = self.drop1.backward(dh, c3)
        dh, dbias = F.bias_activation_backward(dh, c2)
        self.fc1.bias.grad += dbias                                          # bias_activation added the bias
        dx, dweight, _ = F.linear_backward(dh, c1)
        self.fc1.weight.grad += dweight
        return dx


def split_heads(x, num_heads):
    """(B, N, C)   →   (B, nh, N, hd), a view"""
    return x.reshape(*x.shape[:2], num_heads, -1).transpose(0, 2, 1, 3)


def merge_heads(x):
    """split_heads's inverse, and so its adjoint: (B, nh, N, hd)   →   (B, N, C)"""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


class Conv(Module):
    """A convolution, initialised as torch does by default.   x (B, H, W, Cin)   →   y (B, Ho, Wo, C)"""

    needs_dx = True                              # False: backward returns None, see Model.for_training_steps
    learns = True                                # False: it leaves out the gradients of weight and bias, too

    def __init__(self, C, in_chans, kernel, stride, padding, bias=True):
        fan_in = in_chans * kernel**2
        self.weight = Parameter((C, in_chans, kernel, kernel), conv_uniform(fan_in), decay=True)
        self.bias = Parameter((C,), conv_uniform(fan_in)) if bias else None
        self.stride, self.padding = stride, padding

    def forward(self, x):
        bias = self.bias.data if self.bias else None
        y, cache = F.conv2d_forward(x, self.weight.data, bias, self.stride, self.padding)
        return y, cache if self.learns or self.needs_dx else None

    def backward(self, dy, cache):
        if cache is None:
            return None
        dx, dweight, dbias = F.conv2d_backward(dy, cache, self.needs_dx)
        self.weight.grad += dweight
        if self.bias:
            self.bias.grad += dbias
        return dx


class PooledConv(Conv):
    """max-pool(conv(x)), windows of pool × pool.   x (B, H, W, Cin)   →   y (B, Ho // pool, Wo // pool, C)"""

    def __init__(self, C, in_chans, kernel, stride, padding, pool, bias=True):
        super().__init__(C, in_chans, kernel, stride, padding, bias)
        self.pool = pool

    def forward(self, x):
        h, c1 = super().forward(x)
        y, c2 = F.max_pool_forward(h, self.pool)
        return y, (c1, c2)

    def backward(self, dy, cache):
        c1, c2 = cache
        return super().backward(F.max_pool_backward(dy, c2), c1)


class DepthwiseConv(Conv):
    """A kernel of its own for every channel.   x (B, H, W, C)   →   y (B, Ho, Wo, C)"""

    def __init__(self, C, kernel, stride, padding, bias=True):
        super().__init__(C, 1, kernel, stride, padding, bias)

    def forward(self, x):
        bias = self.bias.data if self.bias else None
        return F.depthwise_conv_forward(x, self.weight.data, bias, self.stride, self.padding)

    def backward(self, dy, cache):
        dx, dweight, dbias = F.depthwise_conv_backward(dy, cache)
        self.weight.grad += dweight
        if self.bias:
            self.bias.grad += dbias
        return dx


class ConvBatchNorm(Module):
    """BN(conv(x)).   conv: a Conv to C channels without a bias, which batch norm would subtract again"""

    def __init__(self, conv, C):
        self.conv, self.bn = conv, BatchNorm(C)

    def forward(self, x, down=EVALUATION):
        if not self.bn and down.statistics is not None:
            fail("train", "a model with its batch norms", "a folded one; train the model that it was made from")
        h, c1 = self.conv.forward(x)
        h, c2 = self.bn.forward(h, down) if self.bn else (h, None)           # folded into the convolution: no bn
        return h, (c1, c2)

    def backward(self, dy, cache):
        c1, c2 = cache
        dh = self.bn.backward(dy, c2) if self.bn else dy
        return self.conv.backward(dh, c1)


class DepthwiseBatchNorm(ConvBatchNorm):
    """BN(depthwise(x)).   x (B, H, W, C)   →   y (B, Ho, Wo, C)"""

    def __init__(self, C, kernel, stride):
        super().__init__(DepthwiseConv(C, kernel, stride, kernel // 2, bias=False), C)
        self.window = (kernel, stride, kernel // 2)  # kernel, stride, padding

    def windows(self, n):
        """How many outputs n inputs make along an axis."""
        return output_size(n, *self.window)


class AvgPool(Module):
    """The mean of each window.   x (B, H, W, C)   →   y (B, Ho, Wo, C)"""

    def __init__(self, C, kernel, stride):
        self.window = (kernel, stride, kernel // 2)  # kernel, stride, padding

    def windows(self, n):
        """How many outputs n inputs make along an axis."""
        return window_cells(n, *self.window)[0]

    def forward(self, x, down=EVALUATION):
        return F.avg_pool_forward(x, *self.window)

    def backward(self, dy, cache):
        return F.avg_pool_backward(dy, cache)
