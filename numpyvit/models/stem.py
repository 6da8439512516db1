"""A convolutional stem: 3×3 convolutions that look at the pixels before they become tokens.

Xiao et al. 2021, "Early Convolutions Help Transformers See Better", section 4; with max-pooling before the batch norm
as in Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU"
"""
from dataclasses import replace

import numpy as np

from .. import functional as F
from ..flat import EVALUATION, Module
from ..layers import Conv, ConvBatchNorm, LayerNorm, PooledConv
from ..module import pair
from ..ops.conv import output_size
from . import rows


class ConvNormAct(ConvBatchNorm):
    """act(BN(pool(conv(x)))), 3×3.   x (B, H, W, Cin)   →   y (B, ⌈H/stride⌉ // pool, ⌈W/stride⌉ // pool, C)

    pool: side of the windows of max-pooling, 1 for none. bias_activation's bias is 0.
    """

    def __init__(self, in_chans, C, stride, act="gelu", pool=1):
        if pool == 1:
            conv = Conv(C, in_chans, 3, stride, 1, bias=False)
        else:
            conv = PooledConv(C, in_chans, 3, stride, 1, pool, bias=False)
        super().__init__(conv, C)
        self.act, self.pool = act, pool

    def forward(self, x, down=EVALUATION):
        h, c1 = super().forward(x, down)
        y, c2 = F.bias_activation_forward(h, np.zeros(h.shape[-1], h.dtype), self.act)
        return y, (c1, c2)

    def backward(self, dy, cache):
        c1, c2 = cache
        dh, _ = F.bias_activation_backward(dy, c2)
        return super().backward(dh, c1)

    def rows(self, name, size):
        """The rows of a summary, and (H, W) of the output.   size: (H, W) of the input"""
        out = tuple(output_size(n, 3, self.conv.stride, 1) for n in size)
        conv, out = rows.conv(f"{name}.conv", self.conv, out), tuple(n // self.pool for n in out)
        bn = rows.norm(f"{name}.bn", self.bn, out, "batch norm")
        if self.pool > 1:
            conv = replace(conv, kind="conv, max pool", shape=bn.shape, activations=conv.activations + bn.activations)
        return [conv, bn, rows.Row(f"{name}.act", self.act, bn.shape, 0, 0, bn.activations)], out


def stem_layers(widths, strides, pools, in_chans, act="gelu"):
    """[ConvNormAct], one for each of the widths.   pools: () for no max-pooling"""
    pools = pools or (1,) * len(widths)
    return [ConvNormAct(*sizes, act, pool) for *sizes, pool in zip((in_chans, *widths), widths, strides, pools)]


def stem_forward(layers, images, down):
    """images (B, in_chans, H, W)   →   y (B, H', W', C'), caches"""
    x, caches = np.ascontiguousarray(images.transpose(0, 2, 3, 1)), down.caches()
    for layer in layers:
        x, cache = layer.forward(x, down)
        caches.append(down.kept(cache))
    return x, caches


def stem_backward(layers, dx, caches):
    """dx (B, H', W', C') of the last map   →   dimages (B, in_chans, H, W), None where the first layer has no dx"""
    for layer, cache in zip(reversed(layers), reversed(caches)):
        dx = layer.backward(dx, cache)
    return None if dx is None else dx.transpose(0, 3, 1, 2)


def stem_rows(layers, name, size):
    """The rows of a summary, and the (H', W') of the last map.   size: (H, W) of the images"""
    found = []
    for i, layer in enumerate(layers):
        more, size = layer.rows(f"{name}.{i}", size)
        found += more
    return found, size


def stem_steps(config):
    """[(stride, pool)] of the stem's convolutions."""
    return [*zip(config.stem_strides, config.stem_pools or (1,) * len(config.stem_strides))]


def stem_size(config):
    """(H', W') of the stem's last map; the image's own where there is no stem."""
    size = pair(config.img_size)
    for stride, pool in stem_steps(config):
        size = tuple(output_size(n, 3, stride, 1) // pool for n in size)
    return size


def seen_through_stem(config, embed):
    """Which pixels reach a token: (kernel, stride, padding) of the stem and of embed behind it, as of one convolution.

    embed: (kernel, stride, padding) of the convolution that makes tokens of the stem's last map
    """
    kernel, stride, padding = 1, 1, 0
    steps = [step for s, pool in stem_steps(config) for step in ((3, s, 1), (pool, pool, 0))]
    for k, s, p in (*steps, embed):
        kernel, padding, stride = kernel + (k - 1) * stride, padding + p * stride, stride * s
    return kernel, stride, padding


class ConvStem(Module):
    """The convolutions, then 1×1 to the width.   images (B, in_chans, H, W)   →   y (B, N, C)"""

    def __init__(self, widths, strides, pools, in_chans, C, act="gelu"):
        self.stem = stem_layers(widths, strides, pools, in_chans, act)
        self.proj = Conv(C, widths[-1], 1, 1, 0)

    def forward(self, images, down=EVALUATION):
        x, caches = stem_forward(self.stem, images, down)
        tokens, weight = x.reshape(len(x), -1, x.shape[-1]), self.proj.weight.data
        y, c_proj = F.linear_forward(tokens, weight.reshape(len(weight), -1), self.proj.bias.data)
        return y, (caches, c_proj, x.shape)

    def backward(self, dy, cache):
        caches, c_proj, shape = cache
        dx, dweight, dbias = F.linear_backward(dy, c_proj)
        self.proj.weight.grad += dweight.reshape(self.proj.weight.shape)
        self.proj.bias.grad += dbias
        return stem_backward(self.stem, dx.reshape(shape), caches)

    @property
    def reads_pixels(self):
        """The first convolution."""
        return self.stem[0].conv

    def rows(self, name, tokens, size):
        """The rows of a summary.   tokens: (N,) or (H, W)   size: (H, W) of the images"""
        found, _ = stem_rows(self.stem, f"{name}.stem", size)
        return [*found, rows.linear(f"{name}.proj", self.proj, tokens, "patches")]


class SwinConvStem(ConvStem):
    """LN of what ConvStem makes.   images (B, in_chans, H, W)   →   y (B, N, C)"""

    def __init__(self, widths, strides, pools, in_chans, C, act="gelu", norm_eps=1e-5):
        super().__init__(widths, strides, pools, in_chans, C, act)
        self.norm = LayerNorm(C, norm_eps)

    def forward(self, images, down=EVALUATION):
        y, c1 = super().forward(images, down)
        y, c2 = self.norm.forward(y)
        return y, (c1, c2)

    def backward(self, dy, cache):
        c1, c2 = cache
        return super().backward(self.norm.backward(dy, c2), c1)

    def rows(self, name, tokens, size):
        """The rows of a summary."""
        return [*super().rows(name, tokens, size), rows.norm(f"{name}.norm", self.norm, tokens)]
