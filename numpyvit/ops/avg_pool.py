"""Average pooling over windows of a map."""
import numpy as np

from .conv import pad_map, shifted


def avg_pool_forward(x, kernel, stride, padding):
    """The mean of every window of the padded map. Windows that overhang the end of the map count, too (ceil_mode).

        y[h, w] = Σᵢⱼ padded x[s·h + i, s·w + j] / area[h, w]

    x (B, H, W, C)   →   y (B, Ho, Wo, C),   Ho = ⌈(H + 2p − k)/s⌉ + 1, or one less if the last window would start
    behind the map
    area: how many cells of the padded map the window covers. The padding counts (count_include_pad); cells beyond the
    padding do not.   cache: shapes, and area (Ho, Wo, 1)
    torch.nn.AvgPool2d(kernel, stride, padding, ceil_mode=True), there with the channels first
    """
    _, H, W, _ = x.shape
    (Ho, cells_h), (Wo, cells_w) = (window_cells(n, kernel, stride, padding) for n in (H, W))
    area = (cells_h[:, None] * cells_w)[:, :, None].astype(x.dtype)          # (Ho, Wo, 1)
    padded = pad_end(pad_map(x, padding), kernel, stride, Ho, Wo)
    y = sum(shifted(padded, i, j, Ho, Wo, stride) for i, j in np.ndindex(kernel, kernel)) / area
    return y, (x.shape, area, kernel, stride, padding)


def avg_pool_backward(dy, cache):
    """dx = Σᵢⱼ dy / area, shifted back by (i, j)"""
    (B, H, W, C), area, kernel, stride, padding = cache
    _, Ho, Wo, _ = dy.shape
    dpadded = np.zeros((B, H + 2 * padding, W + 2 * padding, C), dy.dtype)
    dpadded = pad_end(dpadded, kernel, stride, Ho, Wo)
    for i, j in np.ndindex(kernel, kernel):
        shifted(dpadded, i, j, Ho, Wo, stride)[...] += dy / area
    return dpadded[:, padding:padding + H, padding:padding + W]


def window_cells(size, kernel, stride, padding):
    """How many windows an axis has, and how many cells of the padded axis each covers: kernel, or fewer at the end."""
    count = -(-(size + 2 * padding - kernel) // stride) + 1
    if (count - 1) * stride >= size + padding:                               # the last window would see only padding
        count -= 1
    starts = np.arange(count) * stride
    return count, np.minimum(starts + kernel, size + 2 * padding) - starts


def pad_end(padded, kernel, stride, Ho, Wo):
    """The padded map with zeros behind it, as far as the last window reaches."""
    rows, columns = ((n - 1) * stride + kernel for n in (Ho, Wo))
    over_h, over_w = max(0, rows - padded.shape[1]), max(0, columns - padded.shape[2])
    return np.pad(padded, ((0, 0), (0, over_h), (0, over_w), (0, 0)))
