"""Small runs for the tests of training: data sets, recipes for every family, and a faulty operating system."""
import errno
import os as real_os

import numpy as np

from numpyvit.data import shapes
from numpyvit.runs import classifier as scoring
from numpyvit.training import prepare
from numpyvit.training.recipe import recipe_for

RATES = dict(drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.2)
FAMILIES = {
    "vit": dict(img_size=16, patch_size=4, embed_dim=32, depth=2, num_heads=2, **RATES),
    "swin": dict(img_size=16, patch_size=2, embed_dim=16, depths=(1, 1), num_heads=(2, 2), window_size=4, **RATES),
    "cvt": dict(img_size=16, embed_dims=(16, 32), depths=(1, 1), num_heads=(1, 2), patch_sizes=(3, 3), patch_strides=(2, 2),
                patch_paddings=(1, 1), **RATES),
}
EVERYTHING = dict(mixup=0.4, cutmix=1.0, erasing=0.3, cutout=4, ema=0.9, clip_norm=1.0)   # all that is random, all that is kept


def recipe(family="vit", **settings):
    return recipe_for(family, **{"model": family, "model_fields": FAMILIES[family], "data": "shapes", "batch_size": 32, "val": 64,
                                 "steps": 12, "micro_batch": 8, **EVERYTHING, **settings})


def small_shapes(monkeypatch, train=256, test=64):
    """Let the loop and the scoring see a small version of the built-in data set."""
    dataset = shapes.load(16, train, test)
    for module in (prepare, scoring):
        monkeypatch.setattr(module, "load", lambda *args, **kwargs: dataset)
        if hasattr(module, "load_resized"):
            monkeypatch.setattr(module, "load_resized", lambda *args, **kwargs: (dataset, dataset.train.images.shape[-1]))
    return dataset


def image_folder(root, per_class=24, side=16):
    """ROOT/train/CLASS/*.png of three classes of the built-in data set."""
    from PIL import Image
    data = shapes.generate(10 * per_class, img_size=side)
    for label, name in enumerate(shapes.CLASSES[:3]):
        folder = root / "train" / name
        folder.mkdir(parents=True)
        for i, pixels in enumerate(data.images[data.labels == label]):
            Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{i}.png")
    return root


class FaultyOs:
    """The os module for numpyvit.files.atomic, whose call number `at` fails with `error`, or writes only half and then fails.

    error: an errno, or "short": a write that writes half of what it was given and succeeds.
    """

    CALLS = ("open", "write", "fsync", "replace", "close", "unlink", "listdir", "stat", "ftruncate", "makedirs")

    def __init__(self, at, error=errno.ENOSPC):
        self.at, self.error, self.count = at, error, 0

    def __getattr__(self, name):
        function = getattr(real_os, name)
        if name not in self.CALLS:
            return function

        def call(*args, **kwargs):
            self.count += 1
            if self.count - 1 != self.at:
                return function(*args, **kwargs)
            if name == "write":
                written = function(args[0], args[1][:len(args[1]) // 2])
            elif name == "close" or self.error == "short":                   # the kernel closes, whatever it reports
                written = function(*args, **kwargs)
            if self.error == "short":
                return written
            raise OSError(self.error, real_os.strerror(self.error))
        return call


def same(a, b):
    """Whether two {name: array} are the same to the last bit."""
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)
