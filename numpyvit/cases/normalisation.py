"""Layer norm and batch norm."""
import numpy as np

from .draw import Case, each


def layer_norm_inputs(d):
    """x (…, C) of several scales; sometimes a row is constant: var = 0, rstd = 1/√eps"""
    B, N, C = d.size("B", 1, 3), d.size("N", 1, 9), d.size("C", 3, 70)
    shape = d.choice((B, N), (B,), (B, 2, N))
    x = d.array(*shape, C, scale=d.extreme(1.0, 30.0, 0.1), offset=d.extreme(0.0, 5.0))
    if d.sometimes():
        x[0] = 3.7
    return dict(x=x, weight=d.array(C), bias=d.array(C)), dict(eps=d.choice(1e-6, 1e-5))


def torch_layer_norm(torch, x, weight, bias, eps):
    """torch's own"""
    return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps)


def batch_norm_inputs(d):
    """x (B, H, W, C) or (B, N, C), often more rows than a block of the kernel; sometimes a channel is constant"""
    B, H, W, C = d.size("B", 2, 7), d.size("H", 2, 7), d.size("W", 2, 7), d.size("C", 1, 37)
    x = d.array(*d.choice((B, H, W), (B, H * W)), C, scale=d.extreme(1.0, 30.0), offset=d.extreme(0.0, 5.0))
    running = d.choice((None, None), (d.array(C), np.abs(d.array(C)) + 0.1))
    if d.sometimes():
        x[..., 0] = 3.7
    return (dict(x=x, weight=d.array(C), bias=d.array(C)),
            dict(running_mean=running[0], running_var=running[1], eps=d.choice(1e-5, 1e-3)))


def torch_batch_norm(torch, x, weight, bias, running_mean, running_var, eps):
    """torch's own, of the rows; without running statistics those of the batch"""
    training = running_mean is None
    running = (None, None) if training else (torch.tensor(running_mean.copy()), torch.tensor(running_var.copy()))
    rows = x.reshape(-1, x.shape[-1])
    return torch.nn.functional.batch_norm(rows, *running, weight, bias, training, eps=eps).view(x.shape)


CASES = (
    Case("layer_norm", layer_norm_inputs, torch_layer_norm, each("x", 8, 14), dict(B=16, N=65, C=192)),
    Case("batch_norm", batch_norm_inputs, torch_batch_norm, each("x", 8, 14), dict(B=16, H=16, W=16, C=64)),
)
