"""The table of data sets: a new one is a file beside this page, with a function load(data_dir, …), and a row here."""
import difflib
import importlib
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ..errors import UserError
from .dataset import Dataset, ImageSet
from .resize import resized


@dataclass(frozen=True)
class Row:
    """A data set's name, the function that loads it, and what a recipe should know.

    loader      FILE.FUNCTION in this folder
    classes     how many; None where the files say so
    mirrored    whether an image that is mirrored left to right still shows its class: an object does, a digit does not
    sides       the sizes that its images come in, the first unless another is asked for; none: any
    recipe      further settings that the data set asks of a recipe: {name: value}
    """
    name: str
    loader: str
    classes: int | None
    mirrored: bool = True
    sides: tuple = ()
    recipe: dict = field(default_factory=dict)

    def load(self, data_dir=None, img_size=None, download=True, progress=None):
        """→ Dataset, by the function that loader names"""
        file, function = self.loader.split(".")
        module = importlib.import_module(f".{file}", __package__)
        return getattr(module, function)(data_dir=data_dir, img_size=img_size, download=download, progress=progress)


TABLE = {row.name: row for row in (
    Row("cifar10", "cifar10.load", 10, sides=(32,)),
    Row("cifar100", "cifar100.load", 100, sides=(32,)),
    Row("cifar100-coarse", "cifar100.load_coarse", 20, sides=(32,)),
    Row("mnist", "mnist.load", 10, mirrored=False, sides=(28, 32)),
    Row("fashion-mnist", "fashion_mnist.load", 10, sides=(28, 32)),
    Row("svhn", "svhn.load", 10, mirrored=False, sides=(32,)),
    Row("shapes", "shapes.load", 10),
    Row("folder", "folder.load", None),
)}


def load_resized(name, data_dir, img_size):
    """As load, for any img_size: images that have another size of their own are resized.   → Dataset, their own size"""
    name, data_dir = split_name(name, data_dir)
    sides = find_row("cifar10" if name == "auto" else name).sides
    if not sides or img_size in sides:
        return load(name, data_dir, img_size), img_size
    dataset = load(name, data_dir)
    sets = {part: getattr(dataset, part) for part in ("train", "test", "val") if getattr(dataset, part) is not None}
    sets = {part: ImageSet(resized(old.images, img_size), old.labels) for part, old in sets.items()}
    return replace(dataset, **sets), dataset.train.images.shape[-1]


def load(name: str = "auto", data_dir: str | os.PathLike | None = None, img_size: int | None = None,
         download: bool = True, progress: Callable[[int, int], None] | None = None) -> Dataset:
    """A data set by name.

    "cifar10", "cifar100", "cifar100-coarse", "svhn"   colour, 32 pixels wide
    "mnist", "fashion-mnist"                           grey, 28 pixels wide, or 32 with a black border
    "shapes"        ten classes of generated images, img_size (32) pixels wide; needs no files
    "folder:ROOT"   ROOT/train/CLASS/*.png and the like, resized to img_size (32); "folder" takes ROOT from data_dir
    "auto"          cifar10 where it is found or can be downloaded, else shapes, with a notice that says so
    data_dir        where a local copy is looked for first; then in $NUMPYVIT_DATA, ./data and the user's cache
    download        whether the network may be used
    progress        progress(bytes_done, bytes_total) instead of the default display of a download

    → Dataset with uint8 images (n, C, img_size, img_size)
    Raises UserError for all that the user can mend: a missing, truncated or foreign file, no network, an unknown name.
    """
    name, data_dir = split_name(name, data_dir)
    if name == "auto":
        return load_auto(data_dir, img_size, download, progress)
    return find_row(name).load(data_dir, img_size, download, progress)


def split_name(name, data_dir=None):
    """"folder:ROOT" is the name "folder" with the directory ROOT.   → name, data_dir

    Raises UserError where both ROOT and another directory are given.
    """
    if not str(name).startswith("folder:"):
        return name, data_dir
    root = name.removeprefix("folder:")
    if data_dir is not None and os.path.abspath(data_dir) != os.path.abspath(root):
        raise UserError(f"data set: {name} names its directory, but --data-dir is {data_dir}; give one of the two")
    return "folder", root or None


def load_auto(data_dir, img_size, download, progress):
    """CIFAR-10 where it can be had, else the built-in shapes with a notice."""
    from .sources import NotAvailable
    try:
        return TABLE["cifar10"].load(data_dir, img_size, download, progress)
    except NotAvailable as error:
        shapes = TABLE["shapes"].load(None, img_size)
        return replace(shapes, notice=f"{error.title} is not here ({error.reason}): using the built-in set of "
                       f"generated shapes instead, so accuracies are not {error.title} accuracies.")


def recipe_defaults(name):
    """The settings that the data set asks of a recipe, unless the user gives others.   → {name: value}"""
    if name == "auto":
        return {}
    row = find_row(name)
    return {**({} if row.mirrored else {"flip": "none"}), **row.recipe}


def find_row(name):
    """The row of a data set's name; "folder:ROOT" is the row folder. Raises UserError for an unknown name."""
    known = split_name(name)[0]
    if known in TABLE:
        return TABLE[known]
    near = difflib.get_close_matches(str(name).lower(), TABLE, 1)
    advice = f"; did you mean {near[0]}?" if near else ""
    if os.path.isdir(str(name)):
        advice = f"; for the folder {name} with images of your own give {shlex.quote(f'folder:{name}')}"
    raise UserError(f"data set: expected one of {', '.join(('auto', *TABLE))}:ROOT, got {name!r}{advice}")
