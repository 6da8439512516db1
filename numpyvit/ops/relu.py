"""ReLU."""
import numpy as np


def relu_forward(x):
    """y = max(x, 0).   x (...)   →   y (...)   cache: x.   torch.relu"""
    return np.maximum(x, 0), (x,)


def relu_backward(dy, cache):
    """dx = dy where x > 0, else 0 (the subgradient 0 at x = 0, as torch)"""
    (x,) = cache
    return np.where(x > 0, dy, 0)
