"""The three GELUs in use: exact (timm, Swin), tanh (the original Google code), quick (CvT, CLIP)."""
import math

import numpy as np

from .erf import erf


def gelu_forward(x):
    """x, multiplied by the probability that a standard normal variable is below x.

        y = x · Φ(x),   Φ(x) = ½ (1 + erf(x/√2))

    x (...)   →   y (...)   cache: x
    Hendrycks, Gimpel 2016.  torch.nn.functional.gelu
    """
    return x * (0.5 * (1 + erf(x * math.sqrt(0.5)))), (x,)


def gelu_backward(dy, cache):
    """dx = dy ⊙ (Φ(x) + x · φ(x)),   φ(x) = Φ′(x) = exp(−x²/2)/√(2π)"""
    (x,) = cache
    Phi = 0.5 * (1 + erf(x * math.sqrt(0.5)))
    phi = np.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return dy * (Phi + x * phi)


SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
CUBIC = 0.044715


def gelu_tanh_forward(x):
    """GELU with a tanh for Φ. It differs from the exact GELU by at most 4.8e-4.

        y = ½ x (1 + tanh u),   u = √(2/π) (x + 0.044715 x³)

    x (...)   →   y (...)   cache: x
    Hendrycks, Gimpel 2016, section 2.  torch.nn.functional.gelu(approximate="tanh")
    """
    u = SQRT_2_OVER_PI * (x + CUBIC * x * x * x)
    return 0.5 * x * (1 + np.tanh(u)), (x,)


def gelu_tanh_backward(dy, cache):
    """dx = dy ⊙ (½ (1 + t) + ½ x (1 − t²) · u′),   t = tanh u,   u′ = √(2/π) (1 + 3 · 0.044715 x²)"""
    (x,) = cache
    t = np.tanh(SQRT_2_OVER_PI * (x + CUBIC * x * x * x))
    slope = SQRT_2_OVER_PI * (1 + 3 * CUBIC * x * x)                         # u′
    return dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope)


QUICK = 1.702


def quick_gelu_forward(x):
    """GELU with a logistic sigmoid for Φ. It differs from the exact GELU by at most 2.1e-2.

        y = x · σ(1.702 x),   σ(z) = 1/(1 + exp(−z)) = ½ (1 + tanh(z/2))

    x (...)   →   y (...)   cache: x.   The tanh form cannot overflow.
    Hendrycks, Gimpel 2016, section 2; CvT and CLIP were trained with it
    """
    return x * (0.5 * (1 + np.tanh(x * (0.5 * QUICK)))), (x,)


def quick_gelu_backward(dy, cache):
    """dx = dy ⊙ (σ + x · 1.702 · σ (1 − σ)),   σ = σ(1.702 x)"""
    (x,) = cache
    s = 0.5 * (1 + np.tanh(x * (0.5 * QUICK)))
    return dy * (s + x * QUICK * s * (1 - s))
