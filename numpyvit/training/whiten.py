"""Filters for the pixels that are computed from the training images and stay as they are: patch whitening.

Neighbouring pixels are alike, so that random filters nearly all see brightness, and a model spends its first epochs on
filters that tell more. The principal components of the patches, each divided by its standard deviation, tell them from
the first step on: their outputs are uncorrelated and have variance 1.

Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", section 3.2
"""
import numpy as np

from ..threads import single_threaded_blas

EPS = 5e-4                                        # variance below which a component is held to be noise
PIXELS = 2**23                                    # of the images that are looked at


def filters_name(model):
    """The name of the parameter that holds the filters that look at the pixels."""
    filters = model.embed_filters()
    return next(name for name, p in model.named_parameters() if np.shares_memory(p.data, filters))


def whiten(model, images, rows, mean, std):
    """Fill the model's first filters.   images (n, C, H, W) uint8   rows (m,) that count   mean, std (C,), of [0, 1]

    The first half of the filters are the first components, the others the same with the other sign, for activations
    that let one sign pass. Filters beyond twice the number of components keep their values.
    """
    filters = model.embed_filters()
    some = images[np.sort(rows[:max(PIXELS // images[0].size, 1)])]
    components = whitening(some, mean, std, filters.shape[2])[:len(filters) // 2]
    n = len(components)
    filters[:n], filters[n:2 * n] = components, -components


def whitening(images, mean, std, side):
    """Principal components of the patches, the largest first, each divided by its standard deviation.

    images (n, C, H, W) uint8   side: of a patch   →   (C·side², C, side, side) float64
    """
    _, C, H, W = images.shape
    x = (images / 255 - np.reshape(mean, (C, 1, 1))) / np.reshape(std, (C, 1, 1))
    rows, columns = H // side, W // side
    x = x[:, :, :rows * side, :columns * side].reshape(-1, C, rows, side, columns, side)
    patches = x.transpose(0, 2, 4, 1, 3, 5).reshape(-1, C * side * side)
    with single_threaded_blas():                                             # the bits do not depend on the threads
        variances, vectors = np.linalg.eigh(np.cov(patches, rowvar=False))
    vectors = vectors.T[::-1]
    largest = np.take_along_axis(vectors, abs(vectors).argmax(axis=1)[:, None], axis=1)
    vectors = vectors * np.sign(largest)                                     # eigh leaves the sign open
    return (vectors / np.sqrt(np.maximum(variances[::-1], 0) + EPS)[:, None]).reshape(-1, C, side, side)
