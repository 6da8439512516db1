"""One image file as an array: PNG, JPEG, WebP, GIF or BMP, square, upright. Needs Pillow."""
import os
import warnings

import numpy as np

from ..errors import UserError
from ..files.atomic import open_regular

FORMATS = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg"), "WEBP": (".webp",), "GIF": (".gif",), "BMP": (".bmp",)}
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
KINDS = "PNG, JPEG, WebP, GIF or BMP"
DECODE_LIMIT = 48 * 2**20                                                    # bytes decoded, beyond the file's own size
MODES = {1: "L", 3: "RGB"}


def read_image(path, img_size, in_chans=3):
    """One image file, upright (EXIF), its short side resized to img_size (bicubic), its centre cut out.

    → (in_chans, img_size, img_size) uint8; in_chans 3 is RGB and 1 grey. Transparency and all frames but the first are
    dropped: `read_with_remark` says so.
    Raises UserError, one line: no such file, not an image, truncated, or so large that decoding the file would take
    more than its own size and 48 MiB (192 MiB for WebP): about twelve million pixels.
    """
    return read_with_remark(path, img_size, in_chans)[0]


def read_with_remark(path, img_size, in_chans=3):
    """As read_image, and what of the file was dropped.   → pixels, "" or "transparency is dropped" or the like"""
    check_img_size(img_size)

    def fit(image):
        from PIL import Image, ImageOps
        return ImageOps.fit(image, (img_size, img_size), Image.Resampling.BICUBIC)
    return read_fitted(path, img_size, in_chans, fit)


def read_fitted(path, side, in_chans, fit):
    """As read_with_remark for any way to bring an image to its size: fit(Pillow image, grey or RGB) → Pillow image.

    side: pixels that fit makes of the shorter side at least; a large JPEG is decoded at a fraction of its size.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise UserError("reading image files needs Pillow; install it with: pip install pillow") from error
    if in_chans not in MODES:
        raise UserError(f"in_chans: expected 1 or 3 for image files, got {in_chans}")
    try:
        with open_regular(path) as (file, size), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            try:
                if not size:
                    raise UserError(f"{path}: the file is empty; replace or remove it")
                return decode(path, file, size, side, in_chans, fit)
            except UserError:
                raise
            except MemoryError as error:
                raise UserError(f"{path}: not enough memory to decode it; scale it down") from error
            except Image.UnidentifiedImageError as error:
                raise UserError(f"{path}: expected a {KINDS} image, got another kind of file") from error
            except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
                raise UserError(f"{path}: far too many pixels for an image; scale it down") from error
            except Exception as error:                                       # each decoder has its own kinds of error
                reason = " ".join(str(error).split()) or type(error).__name__
                raise UserError(f"{path}: a damaged image ({reason}); replace or remove it") from error
    except UserError:
        raise
    except (OSError, ValueError) as error:                                   # ValueError: a path with a zero byte
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({why}); check the path") from error


def decode(path, file, size, side, in_chans, fit):
    """→ pixels (in_chans, H, W) uint8, remark.   Raises whatever Pillow raises."""
    from PIL import Image, ImageOps
    image = Image.open(file, formats=tuple(FORMATS))
    check_decoded_size(path, image, side, size)
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)   # MPO: a photo and its previews
    dropped = ["all frames but the first are dropped"] if frames > 1 else []
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    if transparent(image):
        dropped.append("transparency is dropped")
    if image.mode.startswith("I"):                                           # 16-bit grey: its upper byte
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode != MODES[in_chans]:
        image = image.convert(MODES[in_chans])
    image = fit(image)
    pixels = np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, in_chans)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)), " and ".join(dropped)


def transparent(image):
    """Whether any pixel of a loaded image can be seen through."""
    if "A" in image.getbands():
        return image.getchannel("A").getextrema()[0] < 255
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").getchannel("A").getextrema()[0] < 255
    return "transparency" in image.info


def check_img_size(img_size):
    """Raise UserError for a size that no image is resized to."""
    if not 1 <= img_size <= 4096:
        raise UserError(f"img_size: expected 1 to 4096 pixels, got {img_size}")


def check_decoded_size(path, image, img_size, file_size):
    """Refuse what would unpack to much more than the file; let a large JPEG be decoded at a fraction of its size."""
    (width, height), limit = image.size, DECODE_LIMIT
    if image.format in ("JPEG", "MPO") and 4 * width * height > DECODE_LIMIT // 4:
        progressive = 6 * width * height * bool(image.info.get("progressive"))   # its coefficients, kept at full size
        image.draft(image.mode, (2 * img_size, 2 * img_size))
        need = progressive + 8 * image.width * image.height
    else:
        limit = DECODE_LIMIT * (4 if image.format == "WEBP" else 1)          # WebP's decoder keeps four copies
        bytes_a_pixel = 16 if image.format == "WEBP" else {"RGB": 4, "L": 4, "P": 5}.get(image.mode, 8)
        need = bytes_a_pixel * width * height
    if need > limit + file_size:
        raise UserError(f"{path}: {width} × {height} pixels would take {need / 2**20:.0f} MiB to decode, the limit is "
                        f"{(limit + file_size) / 2**20:.0f} MiB; scale it down")
