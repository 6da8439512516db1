"""Data sets and augmentation.

load("cifar10" | "shapes" | "folder:ROOT" | "auto" | …) gives a Dataset; augment_batch makes training batches of it. The
table of data sets is registry.py. Importing this package is cheap: what reads archives, images or compiles is imported
when it is first needed.
"""
import os

import numpy as np

from ..errors import UserError
from .augment import Augment, augment_batch, channel_statistics, normalise
from .dataset import Dataset, ImageSet, hold_out, train_val_split
from .draws import epoch_order
from .registry import load

__all__ = ["Augment", "Dataset", "ImageSet", "UserError", "augment_batch", "channel_statistics", "epoch_order",
           "hold_out", "load", "normalise", "read_image", "train_val_split"]


def read_image(path: str | os.PathLike, img_size: int, in_chans: int = 3) -> np.ndarray:
    """One image file as uint8 (in_chans, img_size, img_size); see `numpyvit.data.images.read_image`."""
    from .images import read_image
    return read_image(path, img_size, in_chans)
