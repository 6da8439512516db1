"""A folder of the user's images: ROOT/train/CLASS/*.png and the like, or the classes directly in ROOT. Needs Pillow."""
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import UserError
from .dataset import Dataset, ImageSet, records_checksum, split_rows
from .images import KINDS, SUFFIXES, check_img_size, read_with_remark
from .mapped import read_mapped

HELD_OUT = 0.1                                                               # of the training images, without test/
IN_MEMORY = 2**30                                                            # bytes of pixels; more are memory-mapped
WATCHED = ("val", "valid", "validation")
IGNORED = "__MACOSX"                                                         # beside what begins with a dot


@dataclass
class Listing:
    """The image files of one part, (n,) labels, and how many other things lie there: {kind: number}."""
    files: list
    labels: np.ndarray
    skipped: Counter = field(default_factory=Counter)

    def rows(self, rows):
        """The files and labels of these rows."""
        return Listing([self.files[i] for i in rows], self.labels[rows])


def load(data_dir=None, img_size=None, download=True, progress=None):
    """ROOT/train/CLASS/… for training, ROOT/val/… to watch, ROOT/test/… to score; ROOT is data_dir.

    Classes are the sorted directory names of train/, images come in the order of classes and file names. val/ may also
    be valid/ or validation/. Without test/, a tenth of train/, the same tenth each time and of every class, is held out
    as the test set. Directories of images in ROOT itself are the classes of a training set. Above a gigabyte, pixels
    are memory-mapped from a file in the cache.
    → Dataset of (n, 3, S, S) images, S = img_size, by default 32; its notice says what was held out or skipped
    Raises UserError: a missing directory, an empty class, a test class unknown to train/, an unreadable image.
    """
    img_size = 32 if img_size is None else img_size
    check_img_size(img_size)
    if data_dir is None or str(data_dir) == "":
        raise UserError("folder: expected a directory with train/CLASS/*.png or the like, got none; give folder:ROOT, "
                        "or the directory as --data-dir")
    root = Path(data_dir).expanduser()
    root = root if root.name else root.resolve()                             # "." has no name
    folders = find_parts(root)
    classes = class_names(folders["train"])
    parts = {name: list_part(folder, folders["train"], classes, name != "train") for name, folder in folders.items()}
    notices = [*describe_layout(root, folders, classes), *describe_skipped(parts)]
    if "test" not in parts:
        train = parts["train"]
        if len(train.files) < 2:
            raise UserError(f"{folders['train']}: expected at least two images, got {len(train.files)}")
        kept, held_out = split_rows(train.labels, max(1, round(HELD_OUT * len(train.files))), seed=0)
        parts |= {"train": train.rows(kept), "test": train.rows(held_out)}
        notices.insert(0, f"{root} has no test/: {len(held_out)} of the {len(train.files)} images in "
                       f"{folders['train'].name}/ are held out as the test set.")
    parts = {name: parts[name] for name in ("train", "test", "val") if name in parts}
    size = sum(len(part.files) for part in parts.values()) * 3 * img_size**2
    read = read_in_memory if size <= IN_MEMORY else read_mapped
    sets, checksum, remarks = read(root, parts, img_size, progress)
    notices += describe_remarks(remarks)
    source = f"folder {root}, " + ", ".join(f"{len(sets[name])} {name}" for name in sets)
    return Dataset("folder", classes, sets["train"], sets["test"], checksum, " ".join(notices), source, sets.get("val"))


def read_labelled(path, classes, shape, read):
    """PATH/CLASS/… as images of a model's classes, for scoring.

    shape: (C, H, W) of an image   read(file) → pixels of that shape, uint8, and a remark on what was dropped, or ""
    → ImageSet (n, C, H, W); a notice of what was skipped, or ""
    Raises UserError for a directory that is none of the classes, and for a folder without images.
    """
    listing = list_part(Path(path).expanduser(), "the model's classes", tuple(classes), True)
    images, remarks = np.empty((len(listing.files), *shape), np.uint8), Counter()
    for image, file in zip(images, listing.files):
        image[...], remark = read(file)
        remarks[remark] += bool(remark)
    notice = " ".join([*describe_skipped({"test": listing}), *describe_remarks(+remarks)])
    return ImageSet(images, listing.labels), notice


def find_parts(root):
    """Which directory is which part.   → {"train": path, and "val" and "test" where they are}"""
    wanted = "expected train/CLASS/*.png or the like in it"
    if not root.is_dir():
        raise UserError(f"{root}: {wanted}, found no such directory; check the path")
    names = subdirectories(root)
    watched = [name for name in names if name in WATCHED]
    if len(watched) > 1:
        raise UserError(f"{root}: expected one directory of validation images, found {' and '.join(watched)}; rename "
                        "one")
    if "train" in names:
        parts = {"train": root / "train"} | ({"val": root / watched[0]} if watched else {})
        return parts | ({"test": root / "test"} if "test" in names else {})
    if watched or "test" in names:
        found = [*watched, *(["test"] if "test" in names else [])]
        raise UserError(f"{root}: {wanted}, found {' and '.join(found)} but no train")
    if any(is_image(entry) for name in names for entry in entries(root / name)):
        return {"train": root}
    inner = [name for name in names if (root / name / "train").is_dir()]
    advice = f"give folder:{root / inner[0]}" if inner else "check the path"
    raise UserError(f"{root}: {wanted}, found no directory train; {advice}")


def class_names(folder):
    """The directories of a training set."""
    classes = tuple(subdirectories(folder))
    if not classes:
        raise UserError(f"{folder}: expected one directory a class, found none")
    return classes


def list_part(folder, classes_from, classes, may_lack_classes):
    """FOLDER/CLASS/… of each class, in the order of classes and file names.   → Listing

    A class is looked up among the directories in FOLDER: its name is never taken for a path. Raises UserError where a
    directory is of no class or of several, and where there are no images.
    """
    there = subdirectories(folder)
    unknown = [name for name in there if name not in classes]
    if unknown:
        raise UserError(f"{folder}: class {unknown[0]!r} is not in {classes_from}; expected only {', '.join(classes)}")
    times = Counter(classes)
    shared = [name for name in there if times[name] > 1]
    if shared:
        raise UserError(f"{folder}: class {shared[0]!r} is in {classes_from} {times[shared[0]]} times, so its images "
                        "have no single label; rename these classes")
    files, labels, skipped = [], [], Counter()
    for entry in entries(folder):
        if not entry.is_dir():
            skipped["files outside the class directories"] += 1
    for label, name in enumerate(classes):
        if name not in there:                                                # a class of train/ need not occur in test/
            continue
        found = entries(folder / name)
        images = [entry for entry in found if is_image(entry)]
        if not images and not may_lack_classes:
            raise UserError(f"{folder / name}: expected images ({KINDS}), found none; add images or remove the "
                            "directory")
        for entry in found:
            if not is_image(entry):
                ending = Path(entry.name).suffix.lower()
                kind = f"*{ending}" if ending else "files without an ending"
                skipped["directories inside a class" if entry.is_dir() else kind] += 1
        files += [Path(entry.path) for entry in images]
        labels += [label] * len(images)
    if not files:
        raise UserError(f"{folder}: expected images of the classes {', '.join(classes)}, found none")
    return Listing(files, np.array(labels, dtype=np.int64), skipped)


def entries(folder):
    """What lies in a directory, by name, without what is hidden or a Mac's archive has added."""
    try:
        found = [entry for entry in os.scandir(folder) if not entry.name.startswith(".") and entry.name != IGNORED]
        return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error


def subdirectories(folder):
    """The names of the directories in a directory, sorted."""
    return [entry.name for entry in entries(folder) if entry.is_dir()]


def is_image(entry):
    """Whether a directory's entry has the name of an image file. Whether it is one is seen when it is read."""
    return entry.name.lower().endswith(SUFFIXES) and not entry.is_dir()


def read_in_memory(root, parts, img_size, progress=None, in_chans=3):
    """Every image of every part.   → {part: ImageSet}, checksum, {remark: number of images}"""
    sets, remarks = {}, Counter()
    for name, part in parts.items():
        shape = len(part.files), in_chans, img_size, img_size
        try:
            images = np.empty(shape, dtype=np.uint8)
        except MemoryError as error:
            raise UserError(f"{root}: {shape[0]:,} images of {img_size} × {img_size} need {np.prod(shape) / 1e9:.1f} "
                            "GB of memory; choose a smaller img_size or fewer images") from error
        for image, file in zip(images, part.files):
            image[...], remark = read_with_remark(file, img_size, in_chans)
            remarks[remark] += bool(remark)
        sets[name] = ImageSet(images, part.labels)
    return sets, records_checksum(*sets.values()), +remarks


def describe_layout(root, folders, classes):
    """A sentence where the classes lie in ROOT itself."""
    if folders["train"] == root:
        yield f"{root} has no train/: its directories {', '.join(classes)} are taken for the classes."


def describe_skipped(parts):
    """A sentence on what is not read."""
    skipped = sum((part.skipped for part in parts.values()), Counter())
    if skipped:
        kinds = ", ".join(f"{kind} ({number})" for kind, number in sorted(skipped.items()))
        yield f"Not read, as only {KINDS} files in the class directories are: {kinds}."


def describe_remarks(remarks):
    """A sentence on what is dropped of the images that are read."""
    for remark, number in sorted(remarks.items()):
        yield f"{number} image{'s' * (number > 1)}: {remark}."
