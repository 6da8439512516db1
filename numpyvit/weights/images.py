"""Images as published weights expect them: resized, cut out of the middle, scaled to 0 … 1, normalised."""
import math
import os
from dataclasses import dataclass

import numpy as np

from ..checks import is_number
from ..data.images import read_fitted
from ..errors import UserError

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
HOW = ("crop", "squash", "squash-crop", "fit")
INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
# (format, family) → mean and std, crop_pct, interpolation where no file says so; else the family's of timm
USUAL = {
    ("timm", "vit"): (HALF, 0.9, "bicubic"), ("timm", "swin"): (IMAGENET, 0.9, "bicubic"),
    ("microsoft", "cvt"): (IMAGENET, 0.875, "bicubic"), ("huggingface", "cvt"): (IMAGENET, 0.875, "bicubic"),
    ("torchvision", "vit"): (IMAGENET, 224 / 256, "bilinear"),
    ("torchvision", "swin"): (IMAGENET, 224 / 232, "bicubic"),
    ("microsoft", "swin"): (IMAGENET, 224 / 256, "bicubic"),
    ("huggingface", "vit"): (HALF, 1.0, "bilinear"),
    ("google", "vit"): (HALF, 1.0, "bilinear"), ("big_vision", "vit"): (HALF, 224 / 256, "bilinear"),
}
SQUASHED = {("huggingface", "vit"), ("google", "vit")}                       # whatever the ratio of the sides
TORCHVISION_SWIN = {(96, 6): 232, (96, 18): 246, (128, 18): 238}             # (width, blocks of stage 2) → side for 224
TORCHVISION_VIT = {(1024, 16): (242, "bilinear"), (1280, 14): (224, "bicubic")}  # (width, patch_size) → side, method


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before the model sees it.

    size: (H, W) of the result.   how: "crop" resizes the shorter side to size / crop_pct and cuts out the middle;
    "squash" resizes to size whatever the ratio of the sides; "squash-crop" resizes to size / crop_pct whatever the
    ratio and cuts out the middle; "fit" cuts out the largest part of that ratio and resizes it.   interpolation: one
    of Pillow's, antialiased.   mean, std: of values from 0 to 1.   said: where all this comes from
    """
    size: tuple
    how: str = "crop"
    crop_pct: float = 1.0
    interpolation: str = "bicubic"
    mean: tuple = IMAGENET[0]
    std: tuple = IMAGENET[1]
    said: str = "ImageNet's usual"

    def __post_init__(self):
        for name in ("mean", "std"):
            values = getattr(self, name)
            kind, least = ("number", -1e6) if name == "mean" else ("positive number", 1e-12)
            numbers = isinstance(values, (list, tuple)) and all(is_number(x) and least <= x < 1e6 for x in values)
            if not numbers or not 1 <= len(values) <= 1024:
                raise UserError(f"{name} of {self.said}: expected one {kind} a channel, got {str(values)[:60]}")
            object.__setattr__(self, name, tuple(map(float, values)))
        if len(self.mean) != len(self.std):
            raise UserError(f"mean and std of {self.said}: expected as many numbers in both, got {len(self.mean)} and "
                            f"{len(self.std)}")
        if self.how not in HOW:
            raise UserError(f"how of {self.said}: expected one of {', '.join(HOW)}, got {str(self.how)[:40]!r}")
        if not is_number(self.crop_pct) or not 0.1 <= self.crop_pct <= 4:
            raise UserError(f"crop_pct of {self.said}: expected a number near 1, got {str(self.crop_pct)[:40]}")
        if self.interpolation not in INTERPOLATIONS:
            raise UserError(f"interpolation of {self.said}: expected one of {', '.join(INTERPOLATIONS)}, got "
                            f"{str(self.interpolation)[:40]!r}")

    def __call__(self, image, dtype="float32"):
        """A path, a Pillow image, or an array (H, W), (H, W, C) or (C, H, W) uint8   →   (C, H, W) for the model"""
        mean, std = (np.array(values)[:, None, None] for values in (self.mean, self.std))
        return ((self.pixels(image) / 255.0 - mean) / std).astype(dtype)

    def pixels(self, image):
        """As __call__, without the normalisation.   →   (C, H, W) uint8"""
        channels = len(self.mean)
        if isinstance(image, (str, os.PathLike)):
            return read_fitted(image, max(self.resized_to()), channels, self.fit)[0]
        pixels = np.asarray(self.fit(as_pillow(image, channels)), np.uint8)
        return np.ascontiguousarray(pixels.reshape(*self.size, channels).transpose(2, 0, 1))

    def resized_to(self):
        """(H, W) before the middle is cut out, of an image with the ratio of size."""
        if self.how not in ("crop", "squash-crop"):
            return self.size
        return tuple(math.floor(n / self.crop_pct + 1e-9) for n in self.size)     # 224 / (224 / 400) is below 400

    def fit(self, image):
        """A Pillow image → one of the size."""
        from PIL import Image, ImageOps
        method, (H, W) = Image.Resampling[self.interpolation.upper()], self.size
        if self.how == "squash":
            return image.resize((W, H), method)
        if self.how == "fit":
            return ImageOps.fit(image, (W, H), method)
        to_H, to_W = self.resized_to()
        height, width = to_H, image.width * to_H // image.height             # whole numbers: no 255 for 256
        if self.how == "squash-crop":
            width = to_W
        elif width < to_W:
            height, width = image.height * to_W // image.width, to_W
        image = image.resize((width, height), method)
        left, top = round((image.width - W) / 2), round((image.height - H) / 2)
        return image.crop((left, top, left + W, top + H))

    def __str__(self):
        H, W = self.size
        how = {"crop": f"shorter side to {min(self.resized_to())}, {H} × {W} from the middle",
               "squash": f"resized to {H} × {W}",
               "squash-crop": f"resized to {self.resized_to()[0]} × {self.resized_to()[1]}, {H} × {W} from the middle",
               "fit": f"the middle, resized to {H} × {W}"}[self.how]
        return f"{how} ({self.interpolation}), mean {rounded(self.mean)}, std {rounded(self.std)}, from {self.said}"


def rounded(values):
    """One number a channel as text, or one number where all are the same."""
    return ", ".join(f"{x:.4g}" for x in (values if len(set(values)) > 1 else values[:1]))


def as_pillow(image, channels):
    """An array or a Pillow image as a Pillow image in grey (1 channel) or RGB (3)."""
    try:
        from PIL import Image
    except ImportError as error:
        raise UserError("preparing images needs Pillow; install it with: pip install pillow") from error
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise UserError("image: expected a path or uint8 pixels (H, W), (H, W, C) or (C, H, W), got "
                            f"{image.dtype} {image.shape}")
        if image.ndim == 3 and image.shape[2] not in (1, 3) and image.shape[0] in (1, 3):
            image = image.transpose(1, 2, 0)
        if image.ndim == 3 and image.shape[2] not in (1, 3):
            raise UserError(f"image: expected 1 or 3 channels, got {image.shape}")
        image = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
        image = Image.fromarray(np.ascontiguousarray(image))
    if not isinstance(image, Image.Image):
        raise UserError(f"image: expected a path, a Pillow image or an array of pixels, got a {type(image).__name__}")
    return image.convert("L" if channels == 1 else "RGB")


def usual_preprocessing(format, family, size, in_chans=3, config=None):
    """What the library does for this family where no file says so: timm's where the library has no rule of its own.

    config: of the model, which tells the sizes of torchvision's Swin and ViT apart
    """
    source = format if (format, family) in USUAL else "timm"
    (mean, std), crop_pct, interpolation = USUAL[source, family]
    if in_chans != 3:
        mean, std = (sum(mean) / 3,) * in_chans, (sum(std) / 3,) * in_chans
    how = "squash" if (format, family) in SQUASHED else "crop"
    if (format, family) == ("torchvision", "swin") and config is not None:
        crop_pct = 224 / TORCHVISION_SWIN.get((config.embed_dim, max(config.depths)), 232)
    if (format, family) == ("torchvision", "vit") and config is not None:
        side, interpolation = TORCHVISION_VIT.get((config.embed_dim, config.patch_size), (256, interpolation))
        crop_pct, interpolation = 224 / side, "bicubic" if min(size) >= 384 else interpolation
    if min(size) >= 384 and (format, family) != ("microsoft", "swin"):       # microsoft cuts Swin's always
        how, crop_pct = "squash" if family == "cvt" else how, 1.0
    return Preprocessing(size, how, crop_pct, interpolation, mean, std, f"{source}'s usual for {family}")
