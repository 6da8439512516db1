"""A folder of images, ROOT/train/CLASS/*.png|jpg|jpeg. Needs Pillow."""
import os
from pathlib import Path

import numpy as np

from ..errors import UserError
from .dataset import Dataset, ImageSet, records_checksum, train_val_split
from .images import check_img_size, read_image

SUFFIXES = (".png", ".jpg", ".jpeg")
HELD_OUT = 0.1                                                               # of train/, if there is no test/ or val/


def load(data_dir=None, img_size=None, download=True, progress=None):
    """ROOT/train/CLASS/… for training, ROOT/test/CLASS/… or else ROOT/val/CLASS/… for the test.

    Classes are the sorted directory names of train/, images come in the order of classes and file names. Without test/ and
    val/, a tenth of train/, the same tenth each time and of every class, is held out as the test set.
    → Dataset of (n, 3, S, S) images, S = img_size, by default 32
    Raises UserError: a missing directory, an empty class, a test class unknown to train/, an unreadable image.
    """
    img_size = 32 if img_size is None else img_size
    if data_dir is None:
        raise UserError("folder: expected a directory with train/CLASS/*.png or *.jpg, got none; give it as --data-dir")
    root = Path(data_dir)
    if not (root / "train").is_dir():
        raise UserError(f"{root}: expected train/CLASS/*.png or *.jpg in it, found no directory train; check --data-dir")
    classes = tuple(subdirectories(root / "train"))
    if not classes:
        raise UserError(f"{root / 'train'}: expected one directory a class, found none")
    train = read_classes(root / "train", classes, img_size)
    for name in ("test", "val"):
        if (root / name).is_dir():
            unknown = [found for found in subdirectories(root / name) if found not in classes]
            if unknown:
                raise UserError(f"{root / name}: class {unknown[0]!r} is not in {root / 'train'}; expected only "
                                f"{', '.join(classes)}")
            test = read_classes(root / name, classes, img_size, may_be_empty=True)
            if not len(test):
                raise UserError(f"{root / name}: expected images of the classes {', '.join(classes)}, found none")
            notice, source = "", f"folder {root}, train/ and {name}/"
            break
    else:
        if len(train) < 2:
            raise UserError(f"{root / 'train'}: expected at least two images, got {len(train)}")
        kept, held_out = train_val_split(train, max(1, round(HELD_OUT * len(train))), seed=0)
        test = ImageSet(train.images[held_out], train.labels[held_out])
        train = ImageSet(train.images[kept], train.labels[kept])
        notice = (f"{root} has neither test/ nor val/: {len(test)} of the {len(train) + len(test)} images in train/ are "
                  "held out as the test set.")
        source = f"folder {root}, {len(test)} of train/ held out as test, seed 0"
    return Dataset("folder", classes, train, test, records_checksum(train, test), notice, source)


def subdirectories(path):
    """The names of the directories in a directory, sorted, hidden ones left out."""
    try:
        return sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def read_classes(path, classes, img_size, may_be_empty=False):
    """path/CLASS/… of each class, in the order of classes and file names.   → ImageSet"""
    files, labels = [], []
    for label, name in enumerate(classes):
        directory = path / name
        if not directory.is_dir():                                           # a class of train/ need not occur in test/
            continue
        try:
            names = sorted(n for n in os.listdir(directory) if n.lower().endswith(SUFFIXES) and not n.startswith("."))
        except OSError as error:
            raise UserError(f"{directory}: cannot be read ({error.strerror}); check its permissions") from error
        if not names and not may_be_empty:
            raise UserError(f"{directory}: expected *.png, *.jpg or *.jpeg, found none; add images or remove the directory")
        files += [directory / n for n in names]
        labels += [label] * len(names)
    check_img_size(img_size)
    try:
        images = np.empty((len(files), 3, img_size, img_size), dtype=np.uint8)
    except MemoryError as error:
        raise UserError(f"{path}: {len(files):,} images of {img_size} × {img_size} need "
                        f"{len(files) * 3 * img_size**2 / 1e9:.1f} GB of memory; choose a smaller img_size or fewer "
                        "images") from error
    for image, file in zip(images, files):
        image[...] = read_image(file, img_size)
    return ImageSet(images, np.array(labels, dtype=np.int64))
