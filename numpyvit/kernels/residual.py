"""The sum of a residual connection without a new array."""
import numpy as np


def residual(x, h):
    return np.add(x, h, out=h)                                               # x + h
