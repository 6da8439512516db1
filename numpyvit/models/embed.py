"""How pixels, or the map of the stage before, become tokens."""
from dataclasses import replace

import numpy as np

from .. import functional as F
from ..flat import EVALUATION, Module
from ..layers import Conv, ConvBatchNorm, LayerNorm, PooledConv
from ..module import pair
from ..ops.conv import output_size
from . import rows


class PatchEmbed(Module):
    """A non-overlapping patch is a token.   images (B, in_chans, H, W)   →   y (B, N, C)"""

    def __init__(self, patch_size, in_chans, C):
        self.proj = Conv(C, in_chans, patch_size, patch_size, 0)

    def forward(self, images, down=EVALUATION):
        return F.patch_embed_forward(images, self.proj.weight.data, self.proj.bias.data)

    def backward(self, dy, cache):
        dimages, dweight, dbias = F.patch_embed_backward(dy, cache)
        self.proj.weight.grad += dweight
        self.proj.bias.grad += dbias
        return dimages

    @property
    def filters(self):
        """The filters that look at the pixels, (C, in_chans, P, P)."""
        return self.proj.weight.data

    def rows(self, name, tokens, size):
        """The rows of a summary.   tokens: (N,) or (H, W)   size: (H, W) of the images"""
        return [rows.linear(name, self.proj, tokens, "patches")]


class SwinPatchEmbed(PatchEmbed):
    """LN(patches · W + b).   images (B, in_chans, H, W), padded to whole patches   →   y (B, N, C)"""

    def __init__(self, patch_size, in_chans, C, norm_eps):
        super().__init__(patch_size, in_chans, C)
        self.norm, self.patch_size = LayerNorm(C, norm_eps), patch_size

    def forward(self, images, down=EVALUATION):
        H, W = images.shape[2:]
        bottom, right = -H % self.patch_size, -W % self.patch_size
        if bottom or right:
            images = np.pad(images, ((0, 0), (0, 0), (0, bottom), (0, right)))
        y, c1 = super().forward(images)
        y, c2 = self.norm.forward(y)
        return y, (c1, c2, H, W)

    def backward(self, dy, cache):
        c1, c2, H, W = cache
        dy = self.norm.backward(dy, c2)
        return super().backward(dy, c1)[:, :, :H, :W]

    def rows(self, name, tokens, size):
        """The rows of a summary."""
        return [*super().rows(f"{name}.proj", tokens, size), rows.norm(f"{name}.norm", self.norm, tokens)]


class ConvEmbed(Module):
    """LN(conv(x)): overlapping patches of a map become tokens.   x (B, H, W, Cin)   →   y (B, Ho, Wo, C)"""

    def __init__(self, in_chans, C, kernel, stride, padding, norm_eps):
        self.proj, self.norm = Conv(C, in_chans, kernel, stride, padding), LayerNorm(C, norm_eps)

    def forward(self, x, down=EVALUATION):
        h, c1 = self.proj.forward(x)
        h, c2 = self.norm.forward(h)
        return h, (c1, c2)

    def backward(self, dy, cache):
        c1, c2 = cache
        dh = self.norm.backward(dy, c2)
        return self.proj.backward(dh, c1)

    def rows(self, name, tokens):
        """The rows of a summary."""
        return [rows.conv(f"{name}.proj", self.proj, tokens), rows.norm(f"{name}.norm", self.norm, tokens)]


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


# --- a convolutional stem: 3×3 convolutions before the tokens
#
# Xiao et al. 2021, "Early Convolutions Help Transformers See Better", section 4; with max-pooling before the batch norm
# as in Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU"

def stem_steps(config):
    """[(stride, pool)] of the stem's convolutions."""
    return [*zip(config.stem_strides, config.stem_pools or (1,) * len(config.stem_strides))]


def stem_layers(config):
    """[ConvNormAct] of the stem, none without stem_widths."""
    inputs = (config.in_chans, *config.stem_widths)
    return [ConvNormAct(before, width, stride, config.act, pool)
            for before, width, (stride, pool) in zip(inputs, config.stem_widths, stem_steps(config))]


def stem_forward(layers, x, down):
    """x (B, H, W, in_chans)   →   y (B, H', W', C'), caches"""
    caches = []
    for layer in layers:
        x, cache = layer.forward(x, down)
        caches.append(down.kept(cache))
    return x, caches


def stem_backward(layers, dx, caches):
    """dy (B, H', W', C')   →   dx (B, H, W, in_chans)"""
    for layer, cache in zip(reversed(layers), reversed(caches)):
        dx = layer.backward(dx, cache)
    return dx


def stem_rows(layers, name, size):
    """The rows of a summary, and the (H', W') of the last map.   size: (H, W) of the images"""
    found = []
    for i, layer in enumerate(layers):
        more, size = layer.rows(f"{name}.{i}", size)
        found += more
    return found, size


def stem_size(config):
    """(H', W') of the stem's last map; the image's own where there is no stem."""
    size = pair(config.img_size)
    for stride, pool in stem_steps(config):
        size = tuple(output_size(n, 3, stride, 1) // pool for n in size)
    return size


def seen_through_stem(config, embed):
    """(kernel, stride, padding), in pixels, of a convolution (kernel, stride, padding) of the stem's last map."""
    kernel, stride, padding = 1, 1, 0
    steps = [step for s, pool in stem_steps(config) for step in ((3, s, 1), (pool, pool, 0))]
    for k, s, p in (*steps, embed):
        kernel, padding, stride = kernel + (k - 1) * stride, padding + p * stride, stride * s
    return kernel, stride, padding


class ConvStem(Module):
    """The stem's convolutions, then 1×1 to the width.   images (B, in_chans, H, W)   →   y (B, N, C)"""

    def __init__(self, config):
        self.stem = stem_layers(config)
        self.proj = Conv(config.embed_dim, config.stem_widths[-1], 1, 1, 0)

    def forward(self, images, down=EVALUATION):
        x, caches = stem_forward(self.stem, np.ascontiguousarray(images.transpose(0, 2, 3, 1)), down)
        tokens, weight = x.reshape(len(x), -1, x.shape[-1]), self.proj.weight.data
        y, c_proj = F.linear_forward(tokens, weight.reshape(len(weight), -1), self.proj.bias.data)
        return y, (caches, c_proj, x.shape)

    def backward(self, dy, cache):
        caches, c_proj, shape = cache
        dx, dweight, dbias = F.linear_backward(dy, c_proj)
        self.proj.weight.grad += dweight.reshape(self.proj.weight.shape)
        self.proj.bias.grad += dbias
        return stem_backward(self.stem, dx.reshape(shape), caches).transpose(0, 3, 1, 2)

    @property
    def filters(self):
        """The filters of the first convolution, (C, in_chans, 3, 3)."""
        return self.stem[0].conv.weight.data

    def rows(self, name, tokens, size):
        """The rows of a summary.   tokens: (N,) or (H, W)   size: (H, W) of the images"""
        found, _ = stem_rows(self.stem, f"{name}.stem", size)
        return [*found, rows.linear(f"{name}.proj", self.proj, tokens, "patches")]


class SwinConvStem(ConvStem):
    """LN of what ConvStem makes.   images (B, in_chans, H, W)   →   y (B, N, C)"""

    def __init__(self, config):
        super().__init__(config)
        self.norm = LayerNorm(config.embed_dim, config.norm_eps)

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
