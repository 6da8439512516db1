"""Depthwise convolution: every channel has a kernel of its own and sees no other channel."""
import numpy as np

from .conv import output_size, pad_map, shifted


def depthwise_conv_forward(x, weight, bias=None, stride=1, padding=0):
    """The sum of kh·kw shifted copies of the map, each scaled channel by channel.

        y[h, w] = Σᵢⱼ weight[:, i, j] ⊙ padded x[s·h + i, s·w + j] + bias

    x (B, H, W, C)   weight (C, 1, kh, kw)   bias (C,) or None   stride s   padding p zeros on every side
    →   y (B, Ho, Wo, C),   Ho = ⌊(H + 2p − kh)/s⌋ + 1
    cache: x and weight, which are alive anyway.
    torch.nn.functional.conv2d with groups = C, there with the channels first
    """
    kh, kw = weight.shape[2:]
    Ho, Wo = output_size(x.shape[1], kh, stride, padding), output_size(x.shape[2], kw, stride, padding)
    padded = pad_map(x, padding)
    y = sum(shifted(padded, i, j, Ho, Wo, stride) * weight[:, 0, i, j] for i, j in np.ndindex(kh, kw))
    if bias is not None:
        y = y + bias
    return y, (x, weight, bias is not None, stride, padding)


def depthwise_conv_backward(dy, cache):
    """dx = Σᵢⱼ dy ⊙ weight[:, i, j], shifted back by (i, j),   dweight[:, i, j] = Σ dy ⊙ shifted x,   dbias = Σ dy"""
    x, weight, has_bias, stride, padding = cache
    _, H, W, _ = x.shape
    _, Ho, Wo, _ = dy.shape
    padded = pad_map(x, padding)
    dpadded, dweight = np.zeros_like(padded), np.empty_like(weight)
    for i, j in np.ndindex(*weight.shape[2:]):                               # y = Σᵢⱼ weight[:, i, j] ⊙ shifted x
        dweight[:, 0, i, j] = (dy * shifted(padded, i, j, Ho, Wo, stride)).sum(axis=(0, 1, 2))
        shifted(dpadded, i, j, Ho, Wo, stride)[...] += dy * weight[:, 0, i, j]
    dbias = dy.sum(axis=(0, 1, 2)) if has_bias else None                     # y = … + bias
    return dpadded[:, padding:padding + H, padding:padding + W], dweight, dbias
