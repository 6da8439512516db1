"""Position tables that are not learned. They are constants and have no gradient."""
import numpy as np


def sinusoidal_table(length, C):
    """Interleaved sines and cosines of geometrically spaced frequencies.

        table[p, 2i] = sin(p / 10000^(2i/C)),   table[p, 2i+1] = cos(p / 10000^(2i/C))

    length positions, C channels (even)   →   (length, C) float64
    Vaswani et al. 2017, section 3.5
    """
    if C % 2:
        raise ValueError(f"embed_dim: sinusoidal positions pair the channels, so expected an even number, got {C}")
    angle = np.arange(length)[:, None] / 10000.0 ** (np.arange(0, C, 2) / C)  # (length, C/2)
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(length, C)


def sincos2d_table(gh, gw, C):
    """A quarter of the channels each for sin x, cos x, sin y, cos y of a gh × gw grid in row-major order.

        omegaᵢ = 10000^(−i/(C/4 − 1)),   table[y·gw + x] = [sin(x·omega) | cos(x·omega) | sin(y·omega) | cos(y·omega)]

    C a multiple of 4, at least 8   →   (gh·gw, C) float64
    Chen, Xie, He 2021 (MoCo v3), as in big_vision
    """
    if C % 4 or C < 8:
        raise ValueError(f"embed_dim: 2-D sin-cos positions need a multiple of 4 from 8 up, got {C}")
    omega = 10000.0 ** -(np.arange(C // 4) / (C // 4 - 1))                   # (C/4,)
    y, x = np.mgrid[:gh, :gw].reshape(2, -1, 1) * omega                      # each (gh·gw, C/4)
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)
