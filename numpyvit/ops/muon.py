"""One step of Muon for one weight matrix. Like the optimisers of optim.py, it changes its arguments in place.

The step that Muon takes along a momentum matrix B = U · S · Vᵀ is its nearest (semi-)orthogonal matrix U · Vᵀ: all
directions of the matrix are learnt at the same speed, where a plain gradient step is dominated by the few directions
with large singular values. The singular value decomposition is not computed: a polynomial in B moves all singular
values towards 1 at once.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; its scale is that of Liu et al. 2025,
"Muon is Scalable for LLM Training", section 2.2, with which a learning rate of AdamW carries over.
"""
import math

import numpy as np

A, B, C = 3.4445, -4.7750, 2.0315                # p(s) = A·s + B·s³ + C·s⁵: steep at 0, about 1 from 0.3 to 1


def muon_step(data, grad, m, update, momentum, ns_steps=5):
    """Momentum, made orthogonal, with decoupled weight decay. In place: data, m.

        m ← m + (1 − μ) · (grad − m),   direction = grad + μ · (m − grad)                 (Nesterov)
        data ← data · (1 − lr · decay) − lr · 0.2 · √max(rows, columns) · orthogonal(direction)

    data, grad, m (rows, columns): a convolution's kernel is (out, in·kh·kw).   μ momentum   update: as in optim.py
    torch.optim.Muon(adjust_lr_fn="match_rms_adamw"), there in bfloat16
    """
    lr, _, decay, scale = update
    grad = grad * scale
    m += (1 - momentum) * (grad - m)
    direction = orthogonal(grad + momentum * (m - grad), ns_steps)
    data *= 1 - lr * decay
    data -= (lr * 0.2 * math.sqrt(max(data.shape))) * direction


def orthogonal(x, steps=5, eps=1e-7):
    """About U · Vᵀ of x = U · S · Vᵀ, by Newton–Schulz steps; singular values end between about 0.7 and 1.2.

        x ← x / ‖x‖,   then steps times   x ← A·x + (B·g + C·g²) · x,   g = x · xᵀ

    which maps each singular value s to A·s + B·s³ + C·s⁵ and leaves U and V as they are.

    x (rows, columns)   →   the same shape. A tall matrix is transposed first, so that g has the smaller side.
    """
    if x.shape[0] > x.shape[1]:
        return orthogonal(np.ascontiguousarray(x.T), steps, eps).T            # products of contiguous rows are faster
    x = x / np.maximum(np.linalg.norm(x), eps)                               # Frobenius: no singular value above 1
    for _ in range(steps):
        g = x @ x.T                                                          # (rows, rows)
        x = A * x + (B * g + C * (g @ g)) @ x
    return x
