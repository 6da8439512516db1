"""Softmax over the last axis."""
import numpy as np


def softmax_forward(x):
    """Positive weights that sum to one.

        yⱼ = exp(xⱼ − max x) / Σₖ exp(xₖ − max x)

    x (..., S)   →   y (..., S).   Subtracting the maximum leaves y as it is and keeps exponents at 0 or below. An entry
    of −inf gets exactly 0; every row needs one finite entry.
    cache: y.
    torch.softmax(x, dim=-1)
    """
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    y = e / e.sum(axis=-1, keepdims=True)
    return y, (y,)


def softmax_backward(dy, cache):
    """dx = y ⊙ (dy − Σⱼ dyⱼ yⱼ).   This is the Jacobian diag(y) − y yᵀ times dy, without forming the Jacobian."""
    (y,) = cache
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))
