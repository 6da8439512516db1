"""How pixels, or the map of the stage before, become tokens."""
import numpy as np

from .. import functional as F
from ..flat import EVALUATION, Module
from ..layers import Conv, LayerNorm
from . import rows


class PatchEmbed(Module):
    """A non-overlapping patch is a token.   images (B, in_chans, H, W)   →   y (B, N, C)"""

    def __init__(self, patch_size, in_chans, C):
        self.proj = Conv(C, in_chans, patch_size, patch_size, 0)

    def forward(self, images, down=EVALUATION):
        return F.patch_embed_forward(images, self.proj.weight.data, self.proj.bias.data)

    def backward(self, dy, cache):
        dimages, dweight, dbias = F.patch_embed_backward(dy, cache, self.proj.needs_dx)
        self.proj.weight.grad += dweight
        self.proj.bias.grad += dbias
        return dimages

    @property
    def reads_pixels(self):
        """The Conv whose filters look at the pixels."""
        return self.proj

    @property
    def filters(self):
        """The filters that look at the pixels, (C, in_chans, P, P)."""
        return self.reads_pixels.weight.data

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
        dimages = super().backward(self.norm.backward(dy, c2), c1)
        return None if dimages is None else dimages[:, :, :H, :W]

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
