"""The layers: each owns its parameters, calls one or two ops, and passes their caches on. Nothing is kept between calls."""
import math

import numpy as np

from . import functional as F
from .module import Module, Parameter
from .ops.batch_norm import batch_norm_statistics
from .ops.random_bits import hash_combine

# --- initialisers: init(rng, shape) → values. timm's trunc_normal truncates at ±2 absolute, so σ = 0.02 is a plain normal.


def normal(std):
    return lambda rng, shape: rng.standard_normal(shape, dtype=np.float32) * np.float32(std)


def zeros(rng, shape):
    return np.zeros(shape, np.float32)


def ones(rng, shape):
    return np.ones(shape, np.float32)


def conv_uniform(fan_in):
    """torch's default for a convolution's weight and bias: kaiming_uniform(a=√5), which is U(±1/√fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return lambda rng, shape: rng.uniform(-bound, bound, shape)


# --- layers


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

    A training forward changes no buffer: it appends (mean, unbiased variance) to the list `statistics`, and update() averages.
    """

    buffers = ("running_mean", "running_var", "num_batches_tracked")

    def __init__(self, C, eps=1e-5, momentum=0.1):
        self.weight, self.bias = Parameter((C,), ones), Parameter((C,), zeros)
        self.running_mean, self.running_var = np.zeros(C), np.ones(C)
        self.num_batches_tracked = np.zeros((), np.int64)
        self.eps, self.momentum = eps, momentum

    def forward(self, x, statistics=None):
        """statistics: a list in training; None in evaluation."""
        running = (None, None) if statistics is not None else (self.running_mean, self.running_var)
        y, cache = F.batch_norm_forward(x, self.weight.data, self.bias.data, *running, self.eps)
        if statistics is not None:
            statistics.append(batch_norm_statistics(cache))
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

    Every instance has a number of its own, handed out by number_random_layers, so that no two share random bits.
    """

    def __init__(self, rate):
        self.rate, self.layer = float(rate), 0

    def seeds(self, seeds):
        """The image's seeds (B,) → this layer's seeds (B,)"""
        return None if seeds is None or self.rate == 0 else hash_combine(seeds, self.layer)

    def forward(self, x, seeds):
        return F.dropout_forward(x, self.rate, self.seeds(seeds))

    def backward(self, dy, cache):
        return F.dropout_backward(dy, cache)


class DropPath(Dropout):
    def forward(self, x, seeds):
        return F.drop_path_forward(x, self.rate, self.seeds(seeds))

    def backward(self, dy, cache):
        return F.drop_path_backward(dy, cache)


def number_random_layers(model):
    """Give every Dropout and DropPath of the model its number; True if any of them has a rate above 0."""
    layers = [m for _, m in model.modules() if isinstance(m, Dropout)]
    for i, layer in enumerate(layers):
        layer.layer = i
    return any(layer.rate > 0 for layer in layers)


class Mlp(Module):
    """fc2(act(fc1(x))), with dropout after each.   x (..., C)   →   y (..., C)"""

    def __init__(self, C, hidden, act="gelu", drop_rate=0.0):
        self.fc1, self.drop1 = Linear(C, hidden), Dropout(drop_rate)
        self.fc2, self.drop2 = Linear(hidden, C), Dropout(drop_rate)
        self.act = act

    def forward(self, x, seeds=None):
        h, c1 = F.linear_forward(x, self.fc1.weight.data)                    # the bias joins the activation
        h, c2 = F.bias_activation_forward(h, self.fc1.bias.data, self.act)
        h, c3 = self.drop1.forward(h, seeds)
        h, c4 = self.fc2.forward(h)
        h, c5 = self.drop2.forward(h, seeds)
        return h, (c1, c2, c3, c4, c5)

    def backward(self, dy, cache):
        c1, c2, c3, c4, c5 = cache
        dh = self.drop2.backward(dy, c5)
        dh = self.fc2.backward(dh, c4)
        dh = self.drop1.backward(dh, c3)
        dh, dbias = F.bias_activation_backward(dh, c2)
        self.fc1.bias.grad += dbias
        dx, dweight, _ = F.linear_backward(dh, c1)
        self.fc1.weight.grad += dweight
        return dx


class SelfAttention(Module):
    """qkv projection, scaled dot-product attention over heads, output projection.   x (B, N, C)   →   y (B, N, C)"""

    def __init__(self, C, num_heads, qkv_bias=True, attn_drop_rate=0.0, drop_rate=0.0):
        self.qkv = Linear(C, 3 * C, bias=qkv_bias)
        self.attn_drop = Dropout(attn_drop_rate)
        self.proj, self.proj_drop = Linear(C, C), Dropout(drop_rate)
        self.num_heads = num_heads

    def forward(self, x, seeds=None):
        qkv, c1 = self.qkv.forward(x)
        y, c2 = F.self_attention_forward(qkv, self.num_heads, drop_rate=self.attn_drop.rate,
                                         seeds=self.attn_drop.seeds(seeds))
        y, c3 = self.proj.forward(y)
        y, c4 = self.proj_drop.forward(y, seeds)
        return y, (c1, c2, c3, c4)

    def backward(self, dy, cache):
        c1, c2, c3, c4 = cache
        dy = self.proj_drop.backward(dy, c4)
        dy = self.proj.backward(dy, c3)
        dqkv, _ = F.self_attention_backward(dy, c2)
        return self.qkv.backward(dqkv, c1)


def split_heads(x, num_heads):
    """(B, N, C)   →   (B, nh, N, hd), a view"""
    return x.reshape(*x.shape[:2], num_heads, -1).transpose(0, 2, 1, 3)


def merge_heads(x):
    """split_heads's inverse, and so its adjoint: (B, nh, N, hd)   →   (B, N, C)"""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


class PatchEmbed(Module):
    """A non-overlapping patch is a token.   images (B, in_chans, H, W)   →   y (B, N, C)"""

    def __init__(self, patch_size, in_chans, C):
        fan_in = in_chans * patch_size**2
        self.proj = Conv(C, in_chans, patch_size, fan_in)

    def forward(self, images):
        return F.patch_embed_forward(images, self.proj.weight.data, self.proj.bias.data)

    def backward(self, dy, cache):
        dimages, dweight, dbias = F.patch_embed_backward(dy, cache)
        self.proj.weight.grad += dweight
        self.proj.bias.grad += dbias
        return dimages


class Conv(Module):
    """The parameters of a convolution: weight (out, in, k, k), bias (out,), torch's default initialisation."""

    def __init__(self, out_chans, in_chans, kernel, fan_in, bias=True):
        self.weight = Parameter((out_chans, in_chans, kernel, kernel), conv_uniform(fan_in), decay=True)
        self.bias = Parameter((out_chans,), conv_uniform(fan_in)) if bias else None


class DepthwiseConv(Conv):
    """A kernel of its own for every channel.   x (B, H, W, C)   →   y (B, Ho, Wo, C)"""

    def __init__(self, C, kernel, stride, padding, bias=True):
        super().__init__(C, 1, kernel, kernel**2, bias)
        self.stride, self.padding = stride, padding

    def forward(self, x):
        return F.depthwise_conv_forward(x, self.weight.data, self.bias.data if self.bias else None, self.stride, self.padding)

    def backward(self, dy, cache):
        dx, dweight, dbias = F.depthwise_conv_backward(dy, cache)
        self.weight.grad += dweight
        if self.bias:
            self.bias.grad += dbias
        return dx


class ConvEmbed(Module):
    """A convolution and a norm: overlapping patches become tokens.   x (B, H, W, Cin)   →   y (B, Ho, Wo, C)"""

    def __init__(self, in_chans, C, kernel, stride, padding, eps):
        self.proj, self.norm = Conv(C, in_chans, kernel, in_chans * kernel**2), LayerNorm(C, eps)
        self.stride, self.padding = stride, padding

    def forward(self, x):
        h, c1 = F.conv2d_forward(x, self.proj.weight.data, self.proj.bias.data, self.stride, self.padding)
        h, c2 = self.norm.forward(h)
        return h, (c1, c2)

    def backward(self, dy, cache):
        c1, c2 = cache
        dh = self.norm.backward(dy, c2)
        dx, dweight, dbias = F.conv2d_backward(dh, c1)
        self.proj.weight.grad += dweight
        self.proj.bias.grad += dbias
        return dx


class ConvBatchNorm(Module):
    """BN(depthwise(x)).   x (B, H, W, C)   →   y (B, Ho, Wo, C)"""

    def __init__(self, C, kernel, stride):
        self.conv, self.bn = DepthwiseConv(C, kernel, stride, kernel // 2, bias=False), BatchNorm(C)

    def forward(self, x, statistics=None):
        if not self.bn and statistics is not None:
            raise ValueError("train: this model's batch norms are folded into its convolutions; train the model it was made from")
        h, c1 = self.conv.forward(x)
        h, c2 = self.bn.forward(h, statistics) if self.bn else (h, None)     # None once it is folded into the convolution
        return h, (c1, c2)

    def backward(self, dy, cache):
        c1, c2 = cache
        dh = self.bn.backward(dy, c2) if self.bn else dy
        return self.conv.backward(dh, c1)


class AvgPool(Module):
    """x (B, H, W, C)   →   y (B, Ho, Wo, C)"""

    def __init__(self, C, kernel, stride):
        self.kernel, self.stride = kernel, stride

    def forward(self, x, statistics=None):
        return F.avg_pool_forward(x, self.kernel, self.stride, self.kernel // 2)

    def backward(self, dy, cache):
        return F.avg_pool_backward(dy, cache)
