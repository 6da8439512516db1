"""Patch whitening: the first filters are computed from the training images, and no gradient changes them.

Neighbouring pixels are alike. Nearly all random filters therefore measure brightness, and a model spends its first
epochs on finding better filters. Here the filters are the principal components of the patches, each divided by its
standard deviation:

    filterᵢ = vᵢ / √(λᵢ + EPS),   cov(patches) = Σ λᵢ vᵢ vᵢᵀ

The outputs of these filters are uncorrelated from the first step on. Their variance is λᵢ / (λᵢ + EPS), nearly 1 but
for components that are noise.

Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", section 3.2
"""
import math

import numpy as np

from ..threads import single_threaded_blas

EPS = 5e-4                                        # a component of a smaller variance is held to be noise
PIXELS = 2**23                                    # numbers in the sample of images, at most


def filters_name(model):
    """The name of the parameter that holds the filters that look at the pixels."""
    filters = model.embed_filters()
    return next(name for name, p in model.named_parameters() if np.shares_memory(p.data, filters))


def whiten(model, images, rows, mean, std):
    """Give the model whitened first filters.

    images (n, C, H, W) uint8   rows (m,) of the images to train on   mean, std (C,), of pixels in [0, 1]
    Each component is there twice, with both signs, since an activation lets one sign pass. Where there are more filters
    than that, the others keep their random values; where there are fewer, the smallest components are left out.
    """
    filters = model.embed_filters()
    sample = images[np.sort(rows[:max(PIXELS // math.prod(images.shape[1:]), 1)])]
    components = whitening(sample, mean, std, filters.shape[2])[:len(filters) // 2]
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
