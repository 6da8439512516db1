"""How images become tokens, other than by plain patches."""
import numpy as np

from .. import functional as F
from ..layers import BatchNorm, Conv
from ..module import Module


class ConvNormAct(Module):
    """act(BN(conv(x))), 3×3.   x (B, H, W, Cin)   →   y (B, ⌈H/stride⌉, ⌈W/stride⌉, C)

    The convolution has no bias, which batch norm would subtract again; batch norm's own bias joins the activation.
    """

    def __init__(self, in_chans, C, stride, act="gelu"):
        self.conv, self.bn = Conv(C, in_chans, 3, in_chans * 9, bias=False), BatchNorm(C)
        self.stride, self.act = stride, act

    def forward(self, x, statistics=None):
        h, c1 = F.conv2d_forward(x, self.conv.weight.data, None, self.stride, 1)
        h, c2 = self.bn.forward(h, statistics)
        y, c3 = F.bias_activation_forward(h, np.zeros(h.shape[-1], h.dtype), self.act)
        return y, (c1, c2, c3)

    def backward(self, dy, cache):
        c1, c2, c3 = cache
        dh, _ = F.bias_activation_backward(dy, c3)
        dh = self.bn.backward(dh, c2)
        dx, dweight, _ = F.conv2d_backward(dh, c1)
        self.conv.weight.grad += dweight
        return dx


class ConvStem(Module):
    """3×3 convolutions, then 1×1 to the width.   images (B, in_chans, H, W)   →   y (B, N, C)

    Xiao et al. 2021, "Early Convolutions Help Transformers See Better", section 4
    """

    def __init__(self, widths, strides, in_chans, C, act="gelu"):
        self.stem = []
        for width, stride in zip(widths, strides):
            self.stem.append(ConvNormAct(in_chans, width, stride, act))
            in_chans = width
        self.proj = Conv(C, in_chans, 1, in_chans)

    def forward(self, images, statistics=None):
        x, caches = np.ascontiguousarray(images.transpose(0, 2, 3, 1)), []
        for layer in self.stem:
            x, cache = layer.forward(x, statistics)
            caches.append(cache)
        weight = self.proj.weight.data
        y, c_proj = F.linear_forward(x.reshape(len(x), -1, x.shape[-1]), weight.reshape(len(weight), -1), self.proj.bias.data)
        return y, (caches, c_proj, x.shape)

    def backward(self, dy, cache):
        caches, c_proj, shape = cache
        dx, dweight, dbias = F.linear_backward(dy, c_proj)
        self.proj.weight.grad += dweight.reshape(self.proj.weight.shape)
        self.proj.bias.grad += dbias
        dx = dx.reshape(shape)
        for layer, c in zip(reversed(self.stem), reversed(caches)):
            dx = layer.backward(dx, c)
        return dx.transpose(0, 3, 1, 2)
