"""Batch normalisation: every channel over all positions of all images of the batch."""
from typing import NamedTuple

import numpy as np


class BatchNormCache(NamedTuple):
    """x (..., C)   weight, mean, var, rstd (C,)   of_batch: True in training, False with running statistics"""

    x: np.ndarray
    weight: np.ndarray
    mean: np.ndarray
    var: np.ndarray
    rstd: np.ndarray
    of_batch: bool


def batch_norm_forward(x, weight, bias, running_mean=None, running_var=None, eps=1e-5):
    """Normalise each channel over the batch, then scale and shift.

        norm = (x − mean) · rstd,   rstd = 1/√(var + eps),   y = norm ⊙ weight + bias

    x (..., C)   weight (C,)   bias (C,)   →   y (..., C)
    Training: mean and (biased) var are the batch's.  Evaluation: they are the constants running_mean, running_var (C,).
    Running statistics belong to the caller, who averages what batch_norm_statistics(cache) returns.
    cache: a BatchNormCache. x is alive anyway; three numbers a channel are new.
    Ioffe, Szegedy 2015, algorithm 1.  torch.nn.functional.batch_norm, there with the channels first
    """
    of_batch = running_mean is None
    positions = tuple(range(x.ndim - 1))                                     # every axis but the channels
    mean = x.mean(axis=positions) if of_batch else running_mean              # (C,)
    centred = x - mean
    var = (centred * centred).mean(axis=positions) if of_batch else running_var
    rstd = 1 / np.sqrt(var + eps)
    y = centred * rstd * weight + bias
    return y, BatchNormCache(x, weight, mean, var, rstd, of_batch)


def batch_norm_backward(dy, cache):
    """dnorm = dy ⊙ weight,   training: dx = rstd · (dnorm − mean(dnorm) − norm · mean(dnorm ⊙ norm)),
    evaluation: dx = rstd · dnorm
    """
    x, weight, mean, var, rstd, of_batch = cache
    norm = (x - mean) * rstd                                                 # recomputed, not kept
    positions = tuple(range(dy.ndim - 1))
    dbias = dy.sum(axis=positions)                                           # y = norm ⊙ weight + bias
    dweight = (dy * norm).sum(axis=positions)
    dnorm = dy * weight
    if of_batch:
        dnorm = (dnorm - dnorm.mean(axis=positions)                          # norm = (x − mean) · rstd
                 - norm * (dnorm * norm).mean(axis=positions))               #   through mean and rstd
    return dnorm * rstd, dweight, dbias


def batch_norm_statistics(cache):
    """(mean, unbiased variance) of the batch, what running statistics average: var · n/(n − 1) over n positions."""
    n = cache.x.size // cache.x.shape[-1]
    return cache.mean, cache.var * (n / (n - 1))
