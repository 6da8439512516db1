"""The training images of a run, batch by batch.

Everything random is a function of (seed, epoch, image): a batch is the same on any number of threads and after any
interruption.
"""
import dataclasses

from ..data import Augment, augment_batch, epoch_order
from ..data.augment import check_padding, check_sizes
from ..ops.random_bits import hash_combine

LAYERS = 2**48 + 64                                                          # the hash stream of dropout and drop path


class Batches:
    """Batches of the images rows of data, an ImageSet.   rows (n,) indices   mean, std (C,), of pixels in [0, 1]"""

    def __init__(self, data, rows, recipe, num_classes, mean, std):
        self.data, self.rows, self.recipe, self.num_classes = data, rows, recipe, num_classes
        self.mean, self.std = mean, std
        self.augment = augmentation(recipe)
        self.small_augment = dataclasses.replace(self.augment, side=recipe.small_size, window=recipe.small_window)
        check_padding(self.augment, *data.images.shape[2:])                  # before the run has a folder
        check_sizes(self.small_augment, *data.images.shape[2:])
        self.steps_per_epoch = len(rows) // recipe.batch_size
        self.order = (None, None)                                            # (epoch, its order)

    def loader(self, step, small=False):
        """load(lo, hi) → images (b, C, H, W), targets (b, K), seeds (b,) of rows lo to hi of the batch of this step

        small: whether they are the recipe's smaller images.
        """
        recipe, B, augment = self.recipe, self.recipe.batch_size, self.small_augment if small else self.augment
        epoch, place = divmod(step, self.steps_per_epoch)
        if self.order[0] != epoch:
            self.order = epoch, self.rows[epoch_order(len(self.rows), recipe.seed, epoch)]
        rows = self.order[1][place * B:(place + 1) * B]

        def load(lo, hi):
            images, targets = augment_batch(self.data, rows[lo:hi], recipe.seed, epoch, augment, self.mean, self.std,
                                            self.num_classes, recipe.dtype, self.rows)
            return images, targets, hash_combine(recipe.seed, epoch, LAYERS, rows[lo:hi])

        return load


def augmentation(recipe):
    """The Augment of a recipe. Raises UserError for settings that exclude each other."""
    return Augment(recipe.padding, recipe.flip, recipe.cutout, recipe.erasing, recipe.mixup, recipe.cutmix)
