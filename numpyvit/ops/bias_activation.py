"""Bias and activation in one step, as they stand between the two products of an MLP."""
from .gelu import (gelu_backward, gelu_forward, gelu_tanh_backward, gelu_tanh_forward, quick_gelu_backward,
                   quick_gelu_forward)
from .relu import relu_backward, relu_forward

ACTIVATIONS = {
    "gelu": (gelu_forward, gelu_backward),
    "gelu_tanh": (gelu_tanh_forward, gelu_tanh_backward),
    "quick_gelu": (quick_gelu_forward, quick_gelu_backward),
    "relu": (relu_forward, relu_backward),
}


def bias_activation_forward(x, bias, act="gelu"):
    """y = act(x + bias).   x (..., E)   bias (E,)   act a key of ACTIVATIONS   →   y (..., E)   cache: x + bias

    The two are one op, because the kernel computes both in one pass, and caches act′(x + bias) instead of x + bias.
    """
    forward, _ = ACTIVATIONS[act]
    y, cache = forward(x + bias)
    return y, (cache, act)


def bias_activation_backward(dy, cache):
    """dx = dy ⊙ act′(x + bias),   dbias = Σ dx over the tokens"""
    act_cache, act = cache
    _, backward = ACTIVATIONS[act]
    dx = backward(dy, act_cache)
    return dx, dx.sum(axis=tuple(range(dx.ndim - 1)))
