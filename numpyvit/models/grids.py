"""Weights of a coarse map on the finer grid that its overlapping windows were made of, for the figures of attention."""
import numpy as np


def spread_evenly(weights, grid, kernel, stride, padding):
    """Every cell gets the mean weight of the windows that cover it, times one factor that keeps the sum of the weights.

    Even weights stay even. Equal shares of each window's weight would not stay even: where windows overlap, some cells
    are covered more often than others.
    weights (..., Ho, Wo), one a window   grid: (H, W)   kernel, stride, padding: of the windows   →   (..., H, W)
    A cell that no window covers gets 0.
    """
    down, across = (covering(n, count, kernel, stride, padding) for n, count in zip(grid, weights.shape[-2:]))
    spread = down @ weights @ across.T                                       # (H, Ho) (Ho, Wo) (Wo, W)
    before, after = (w.sum(axis=(-2, -1), keepdims=True, dtype=np.float64) for w in (weights, spread))
    return spread * (before / np.maximum(after, 1e-300))


def covering(n, count, kernel, stride, padding):
    """Along one axis, for each of n cells: equal shares of the windows that cover the cell.   →   (n, count)"""
    start = np.arange(count) * stride - padding
    cell = np.arange(n)[:, None]
    covers = (cell >= start) & (cell < start + kernel)
    return covers / np.maximum(covers.sum(axis=1, keepdims=True), 1)
