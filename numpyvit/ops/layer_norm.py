"""Layer normalisation over the channels of each token."""
import numpy as np


def layer_norm_forward(x, weight, bias, eps=1e-6):
    """Normalise each token over its channels, then scale and shift.

        norm = (x − mean) · rstd,   rstd = 1/√(var + eps),   y = norm ⊙ weight + bias

    x (..., C)   weight (C,)   bias (C,)   →   y (..., C)
    cache: x, weight, mean, rstd. x is alive anyway; two numbers a token are new.
    Ba, Kiros, Hinton 2016, eqs. 3–4.  torch.nn.functional.layer_norm
    """
    mean = x.mean(axis=-1, keepdims=True)                                    # (..., 1)
    centred = x - mean                                                       # (..., C)
    rstd = 1 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
    y = centred * rstd * weight + bias
    return y, (x, weight, mean, rstd)


def layer_norm_backward(dy, cache):
    """dx = rstd · (dnorm − mean(dnorm) − norm · mean(dnorm ⊙ norm)),   dnorm = dy ⊙ weight"""
    x, weight, mean, rstd = cache
    norm = (x - mean) * rstd                                                 # recomputed, not kept
    tokens = tuple(range(dy.ndim - 1))                                       # every axis but the channels
    dbias = dy.sum(axis=tokens)                                              # y = norm ⊙ weight + bias
    dweight = (dy * norm).sum(axis=tokens)
    dnorm = dy * weight
    dx = rstd * (dnorm                                                       # norm = (x − mean) · rstd
                 - dnorm.mean(axis=-1, keepdims=True)                        #   through mean
                 - norm * (dnorm * norm).mean(axis=-1, keepdims=True))       #   through rstd
    return dx, dweight, dbias
