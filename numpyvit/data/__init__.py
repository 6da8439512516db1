"""Data sets and augmentation.

load("cifar10" | "shapes" | "folder" | "auto") gives a Dataset; augment_batch makes training batches of it. Importing this
package is cheap: what reads archives, images or compiles is imported when it is first needed.
"""
from numpyvit.data.augment import Augment, augment_batch, channel_statistics, epoch_order, normalise
from numpyvit.data.dataset import Dataset, ImageSet, train_val_split
from numpyvit.errors import UserError

__all__ = ["Augment", "Dataset", "ImageSet", "UserError", "augment_batch", "channel_statistics", "epoch_order", "load",
           "normalise", "read_image", "train_val_split"]

NAMES = ("auto", "cifar10", "shapes", "folder")


def load(name="auto", data_dir=None, img_size=None, download=True, progress=None):
    """A data set by name.

    "cifar10"  32 × 32, from a local copy (data_dir, $NUMPYVIT_DATA, ./data, the user's cache) or the official archive
    "shapes"   ten classes of generated images, img_size (32) pixels wide; needs nothing
    "folder"   data_dir/train/CLASS/*.png|jpg|jpeg, resized to img_size (32)
    "auto"     cifar10 where it is found or can be downloaded, else shapes, with a notice that says so
    download   whether the network may be used
    progress   progress(bytes_done, bytes_total) instead of the default display of a download

    → Dataset with uint8 images (n, C, img_size, img_size)
    Raises UserError for everything the user can mend: a missing, truncated or foreign file, no network, an unknown name.
    """
    if name not in NAMES:
        raise UserError(f"data set: expected one of {', '.join(NAMES)}, got {name!r}")
    if name == "shapes":
        from numpyvit.data import shapes
        return shapes.load(img_size)
    if name == "folder":
        from numpyvit.data import folder
        return folder.load(data_dir, img_size)

    from numpyvit.data import cifar10
    try:
        return cifar10.load(data_dir, img_size, download, progress)
    except cifar10.NotAvailable as error:
        if name == "cifar10":
            raise
        from dataclasses import replace

        from numpyvit.data import shapes
        notice = (f"CIFAR-10 is not here ({error.reason}): using the built-in set of generated shapes instead, "
                  "so accuracies are not CIFAR-10 accuracies.")
        return replace(shapes.load(img_size), notice=notice)


def read_image(path, img_size, in_chans=3):
    """One PNG or JPEG file as uint8 (in_chans, img_size, img_size); see `numpyvit.data.folder.read_image`."""
    from numpyvit.data import folder
    return folder.read_image(path, img_size, in_chans)
