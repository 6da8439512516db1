"""Max-pooling over windows of a map that do not overlap."""
import numpy as np

from .conv import shifted


def max_pool_forward(x, kernel):
    """The largest number of every window of kernel × kernel cells, each channel alone.

        y[h, w] = maxᵢⱼ x[k·h + i, k·w + j]      0 ≤ i, j < k

    x (B, H, W, C), H and W at least k   →   y (B, H // k, W // k, C); rows and columns at the end that fill no window
    are left out
    cache: which (B, H // k, W // k, C), the number k·i + j of the cell that y came from, the first of equal cells; the
    shape of x, and kernel
    torch.nn.functional.max_pool2d, there with the channels first
    """
    _, H, W, _ = x.shape
    Ho, Wo = H // kernel, W // kernel
    y = shifted(x, 0, 0, Ho, Wo, kernel)
    which = np.zeros(y.shape, np.uint16)
    for n, (i, j) in enumerate(np.ndindex(kernel, kernel)):
        cell = shifted(x, i, j, Ho, Wo, kernel)
        which = np.where(cell > y, n, which)
        y = np.maximum(y, cell)
    return y, (which, x.shape, kernel)


def max_pool_backward(dy, cache):
    """dx[k·h + i, k·w + j] = dy[h, w] where y[h, w] came from (i, j), and 0 elsewhere"""
    which, shape, kernel = cache
    _, Ho, Wo, _ = dy.shape
    dx = np.zeros(shape, dy.dtype)
    for n, (i, j) in enumerate(np.ndindex(kernel, kernel)):
        shifted(dx, i, j, Ho, Wo, kernel)[...] = np.where(which == n, dy, 0)
    return dx
