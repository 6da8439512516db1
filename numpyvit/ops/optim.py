"""One step of an optimiser over a stretch of the flat vector: the one place where ops change their arguments in place.

A step reads and writes every parameter, gradient and moment once; fresh arrays for each would double the traffic. Every
formula is torch.optim's, operation for operation. Common arguments:

    data, grad (n,)   the weights and the gradient of the mean loss; m, v (n,) what the optimiser remembers, at first zero
    lr                of this step          decay   weight decay of this stretch (0 for biases, norms, position tables)
    step              1 for the first       scale   what the gradient is multiplied by first (clipping by global norm)
    ema (n,) or None  running average of the weights, ema ← ema + (1 − ema_decay) · (data − ema)
"""
import math

import numpy as np


def adamw_step(data, grad, m, v, lr, beta1, beta2, eps, decay, step, scale=1.0, ema=None, ema_decay=0.0):
    """Adam with decoupled weight decay. In place: data, m, v, ema.

        data ← data · (1 − lr · decay)
        m ← m + (1 − β₁) · (grad − m),   v ← β₂ · v + (1 − β₂) · grad²
        data ← data − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)

    Loshchilov, Hutter 2019, algorithm 2.  torch.optim.AdamW
    """
    data *= 1 - lr * decay
    adam_update(data, grad * scale, m, v, lr, beta1, beta2, eps, step)
    ema_update(data, ema, ema_decay)


def adam_step(data, grad, m, v, lr, beta1, beta2, eps, decay, step, scale=1.0, ema=None, ema_decay=0.0):
    """Adam with weight decay as a part of the gradient, grad ← grad + decay · data. In place: data, m, v, ema.

    Kingma, Ba 2015, algorithm 1.  torch.optim.Adam
    """
    adam_update(data, grad * scale + decay * data, m, v, lr, beta1, beta2, eps, step)
    ema_update(data, ema, ema_decay)


def sgd_step(data, grad, m, lr, momentum, decay, scale=1.0, ema=None, ema_decay=0.0):
    """Gradient descent with momentum. In place: data, m, ema.

        m ← momentum · m + grad + decay · data,   data ← data − lr · m

    torch.optim.SGD (dampening 0, not Nesterov)
    """
    m *= momentum
    m += grad * scale + decay * data
    data -= lr * m
    ema_update(data, ema, ema_decay)


def adam_update(data, grad, m, v, lr, beta1, beta2, eps, step):
    m += (1 - beta1) * (grad - m)
    v *= beta2
    v += (1 - beta2) * grad * grad
    data -= (lr / (1 - beta1**step)) * m / (np.sqrt(v) / math.sqrt(1 - beta2**step) + eps)


def ema_update(data, ema, ema_decay):
    if ema is not None:
        ema += (1 - ema_decay) * (data - ema)


def square_sums(grad, sums, chunk):
    """sums[i] ← Σ grad², in float64, of the i-th chunk of so many elements. Nothing of it depends on the number of threads.

    grad (n,)   sums (⌈n / chunk⌉,) float64, written in place
    """
    for i in range(len(sums)):
        part = grad[i * chunk:(i + 1) * chunk].astype(np.float64)
        sums[i] = (part * part).sum()
