"""The table of data sets: a new one is a file beside this page, with a function load, and a row here."""
import importlib
from dataclasses import dataclass, field, replace

from ..errors import UserError


@dataclass(frozen=True)
class Row:
    """A data set's name, the file that reads it, and what a recipe should know.

    classes     how many; None where the files say so
    mirrored    whether an image that is mirrored left to right still shows its class: an object does, a digit does not
    recipe      settings that a recipe takes from the data set unless the user gives others: {name: value}
    """
    name: str
    file: str
    classes: int | None
    mirrored: bool = True
    recipe: dict = field(default_factory=dict)

    def load(self, data_dir=None, img_size=None, download=True, progress=None):
        """→ Dataset, by the file's own load"""
        module = importlib.import_module(f".{self.file}", __package__)
        return module.load(data_dir=data_dir, img_size=img_size, download=download, progress=progress)


TABLE = {row.name: row for row in (
    Row("cifar10", "cifar10", 10),
    Row("shapes", "shapes", 10),
    Row("folder", "folder", None),
)}


def load(name="auto", data_dir=None, img_size=None, download=True, progress=None):
    """A data set by name.

    "cifar10"  32 × 32, from a local copy (data_dir, $NUMPYVIT_DATA, ./data, the user's cache) or the official archive
    "shapes"   ten classes of generated images, img_size (32) pixels wide; needs nothing
    "folder"   data_dir/train/CLASS/*.png|jpg|jpeg, resized to img_size (32); "folder:ROOT" names the directory as well
    "auto"     cifar10 where it is found or can be downloaded, else shapes, with a notice that says so
    download   whether the network may be used
    progress   progress(bytes_done, bytes_total) instead of the default display of a download

    → Dataset with uint8 images (n, C, img_size, img_size)
    Raises UserError for all that the user can mend: a missing, truncated or foreign file, no network, an unknown name.
    """
    if name == "auto":
        return load_auto(data_dir, img_size, download, progress)
    return find_row(name).load(name.partition(":")[2] or data_dir, img_size, download, progress)


def load_auto(data_dir, img_size, download, progress):
    """CIFAR-10 where it can be had, else the built-in shapes with a notice."""
    from .sources import NotAvailable
    try:
        return TABLE["cifar10"].load(data_dir, img_size, download, progress)
    except NotAvailable as error:
        shapes = TABLE["shapes"].load(None, img_size)
        return replace(shapes, notice=f"{error.title} is not here ({error.reason}): using the built-in set of "
                       f"generated shapes instead, so accuracies are not {error.title} accuracies.")


def find_row(name):
    """The row of a data set's name; "folder:ROOT" is the row folder. Raises UserError for an unknown name."""
    known, _, root = str(name).partition(":")
    if known in TABLE and (known == "folder" or not root):
        return TABLE[known]
    raise UserError(f"data set: expected one of {', '.join(('auto', *TABLE))} or folder:ROOT, got {name!r}")
