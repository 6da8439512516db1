"""A folder of images, ROOT/train/CLASS/*.png|jpg|jpeg, and single image files. Needs Pillow."""
import os
import stat
import warnings
from pathlib import Path

import numpy as np

from numpyvit.data.dataset import Dataset, ImageSet, records_checksum, train_val_split
from numpyvit.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg")
HELD_OUT = 0.1                                                               # of train/, if there is no test/ or val/
DECODE_LIMIT = 48 * 2**20                                                    # bytes a file may unpack to, beyond its own size
MODES = {1: "L", 3: "RGB"}


def load(root, img_size=None):
    """ROOT/train/CLASS/… for training, ROOT/test/CLASS/… or else ROOT/val/CLASS/… for the test.

    Classes are the sorted directory names of train/, images come in the order of classes and file names. Without test/ and
    val/, a tenth of train/, the same tenth each time and of every class, is held out as the test set.
    → Dataset of (n, 3, S, S) images, S = img_size, by default 32
    Raises UserError: a missing directory, an empty class, a test class unknown to train/, an unreadable image.
    """
    img_size = 32 if img_size is None else img_size
    if root is None:
        raise UserError("folder: expected a directory with train/CLASS/*.png or *.jpg, got none; give it as --data-dir")
    root = Path(root)
    if not (root / "train").is_dir():
        raise UserError(f"{root}: expected train/CLASS/*.png or *.jpg in it, found no directory train; check --data-dir")
    classes = tuple(_subdirectories(root / "train"))
    if not classes:
        raise UserError(f"{root / 'train'}: expected one directory a class, found none")
    train = _read_classes(root / "train", classes, img_size)
    for name in ("test", "val"):
        if (root / name).is_dir():
            unknown = [found for found in _subdirectories(root / name) if found not in classes]
            if unknown:
                raise UserError(f"{root / name}: class {unknown[0]!r} is not in {root / 'train'}; expected only {', '.join(classes)}")
            test = _read_classes(root / name, classes, img_size, may_be_empty=True)
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


def _subdirectories(path):
    try:
        return sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _read_classes(path, classes, img_size, may_be_empty=False):
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
    _check_size(img_size)
    try:
        images = np.empty((len(files), 3, img_size, img_size), dtype=np.uint8)
    except MemoryError as error:
        raise UserError(f"{path}: {len(files):,} images of {img_size} × {img_size} need {len(files) * 3 * img_size**2 / 1e9:.1f} "
                        "GB of memory; choose a smaller img_size or fewer images") from error
    for image, file in zip(images, files):
        image[...] = read_image(file, img_size)
    return ImageSet(images, np.array(labels, dtype=np.int64))


def _check_size(img_size):
    if not 1 <= img_size <= 4096:
        raise UserError(f"img_size: expected 1 to 4096 pixels, got {img_size}")


def read_image(path, img_size, in_chans=3):
    """One PNG or JPEG, upright (EXIF), its short side resized to img_size (bicubic), its centre cut out.

    → (in_chans, img_size, img_size) uint8; in_chans 3 is RGB and 1 grey. Transparency is dropped.
    Raises UserError, one line: no such file, not an image, truncated, or so large that decoding it would take more than
    the file's own size and 48 MiB.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise UserError("reading PNG and JPEG files needs Pillow; install it with: pip install pillow") from error
    if in_chans not in MODES:
        raise UserError(f"in_chans: expected 1 or 3 for image files, got {in_chans}")
    _check_size(img_size)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError(f"{path}: expected an image file, got something else (a directory or a device)")
        file = open(path, "rb")
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); check the path") from error
    with file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(file, formats=("PNG", "JPEG"))
            _check_decoded_size(path, image, img_size, os.fstat(file.fileno()).st_size)
            image.load()
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):                                   # 16-bit grey: its upper byte
                image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
            if image.mode != MODES[in_chans]:
                image = image.convert(MODES[in_chans])
            side = min(image.size)
            left, top = (image.width - side) / 2, (image.height - side) / 2
            image = image.resize((img_size, img_size), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
            pixels = np.asarray(image, dtype=np.uint8).reshape(img_size, img_size, in_chans)
        except UserError:
            raise
        except MemoryError as error:
            raise UserError(f"{path}: not enough memory to decode it; scale it down") from error
        except Image.UnidentifiedImageError as error:
            raise UserError(f"{path}: expected a PNG or JPEG image, and it is neither") from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise UserError(f"{path}: far too many pixels for an image; scale it down") from error
        except Exception as error:                                           # a decoder's way to say so depends on where it fails
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{path}: a damaged image ({reason}); replace or remove it") from error
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _check_decoded_size(path, image, img_size, file_size):
    """Refuse what would unpack to much more than the file; let a large JPEG be decoded at a fraction of its size."""
    width, height = image.size
    if image.format in ("JPEG", "MPO") and 4 * width * height > DECODE_LIMIT // 4:
        progressive = 6 * width * height * bool(image.info.get("progressive"))   # its coefficients, kept at full size
        image.draft(image.mode, (2 * img_size, 2 * img_size))
        need = progressive + 8 * image.width * image.height
    else:
        need = (4 if image.mode in ("RGB", "L") else 8) * width * height
    if need > DECODE_LIMIT + file_size:
        raise UserError(f"{path}: {width} × {height} pixels would take {need / 2**20:.0f} MiB to decode, the limit is "
                        f"{(DECODE_LIMIT + file_size) / 2**20:.0f} MiB; scale it down")
