"""Softmax over the last axis."""
import numpy as np


def softmax_forward(x):
    """Positive weights that sum to one.

        yⱼ = exp(xⱼ − max x) / Σₖ exp(xₖ − max x)

    x (..., S)   →   y (..., S).   Subtracting the maximum changes nothing but the range: no exponent exceeds 0. An entry
    of −inf gets exactly 0; a row needs one finite entry.
    cache: y.
    torch.softmax(x, dim=-1)
    """
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    y = e / e.sum(axis=-1, keepdims=True)
    return y, (y,)


def softmax_backward(dy, cache):
    """dx = y ⊙ (dy − Σⱼ dyⱼ yⱼ): the Jacobian diag(y) − y yᵀ, never formed"""
    (y,) = cache
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))
