"""ReLU."""
import numpy as np


def relu_forward(x):
    """y = max(x, 0).   x (...)   →   y (...)   cache: x.   torch.relu"""
    return np.maximum(x, 0), (x,)


def relu_backward(dy, cache):
    """dx = dy ⊙ [x > 0]  (the subgradient 0 at x = 0, as torch)"""
    (x,) = cache
    return dy * (x > 0)
