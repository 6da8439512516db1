"""Single image files: what is read is what was written, and what is broken is refused in one line."""
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets import Image, encoded, mutate, nothing_to_be_found, outcome, picture, refused   # noqa: F401
from numpyvit import data as numpyvit_data
from numpyvit.data import read_image
from numpyvit.data.images import read_with_remark
from numpyvit.errors import UserError
from numpyvit.weights.images import Preprocessing
from numpyvit.weights.processors import read_preprocessor, write_preprocessor

MODES_OF = {"PNG": ("RGB", "L", "RGBA", "P", "I;16"), "WEBP": ("RGB", "RGBA"), "GIF": ("P", "L"), "BMP": ("RGB", "L", "P")}
THOROUGH = bool(os.environ.get("NUMPYVIT_THOROUGH"))                           # 35,000 mutated files of each kind

def test_read_image_of_the_right_size_is_left_as_it_is(tmp_path):
    picture(width=16, height=16).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 16), np.asarray(picture(width=16, height=16)).transpose(2, 0, 1))


def test_read_image_resizes_the_short_side_and_cuts_the_centre(tmp_path):
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:50], image[:, 50:70] = (200, 10, 10), (10, 200, 10)          # the centre square: red left, green right
    Image.fromarray(image).save(tmp_path / "a.png")
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        out = read_image(path, 10)
        assert out.shape == (3, 10, 10) and out.dtype == np.uint8 and out.flags.c_contiguous
        assert (out[:, :, 2] == np.array([200, 10, 10])[:, None]).all()      # its filter reaches eight pixels each way
        assert (out[:, :, 7] == np.array([10, 200, 10])[:, None]).all()
    Image.fromarray(image.transpose(1, 0, 2)).save(tmp_path / "b.png")
    np.testing.assert_allclose(read_image(tmp_path / "b.png", 10), out.transpose(0, 2, 1), atol=1)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1", "I;16"])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_read_image_modes(mode, in_chans, tmp_path):
    picture(mode=mode).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", 8, in_chans).shape == (in_chans, 8, 8)
    if mode in ("RGB", "L", "CMYK"):
        picture(mode=mode).save(tmp_path / "a.jpg")
        assert read_image(tmp_path / "a.jpg", 8, in_chans).shape == (in_chans, 8, 8)


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png", 9) == 40_000 >> 8).all()


def test_read_image_turns_it_upright(tmp_path):
    image = Image.fromarray(np.repeat(np.arange(0, 240, 15, dtype=np.uint8)[:, None], 16, axis=1))
    exif = Image.Exif()
    exif[0x0112] = 6                                                         # turn by 90° clockwise to view
    image.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 16, 1)[0], np.rot90(np.asarray(image), -1))


def test_a_large_jpeg_is_read_with_little_memory(tmp_path):
    pytest.importorskip("resource")
    ramp = np.linspace(0, 255, 5000, dtype=np.uint8)
    Image.fromarray(np.broadcast_to(ramp[None, :, None], (4000, 5000, 3)).copy()).save(tmp_path / "a.jpg")
    code = ("import resource, sys; from numpyvit.data import read_image; import PIL.Image, PIL.JpegImagePlugin; "
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; image = read_image(sys.argv[1], 32); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, *image[0, 16, [1, 16, 30]])")
    root = Path(numpyvit_data.__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.jpg")], cwd=root, capture_output=True, text=True, check=True)
    kilobytes, left, middle, right = map(int, out.stdout.split())
    assert kilobytes < 64 * 1024 and abs(left - 37) < 9 and abs(middle - 131) < 9 and abs(right - 218) < 9


def test_images_that_are_too_large_are_refused(tmp_path):
    Image.new("1", (12_000, 12_000)).save(tmp_path / "bomb.png")
    refused(read_image, tmp_path / "bomb.png", 32, match="too many pixels")
    Image.new("RGB", (6_000, 5_000)).save(tmp_path / "large.png")
    refused(read_image, tmp_path / "large.png", 32, match="6000 × 5000 pixels would take 114 MiB")
    Image.new("RGB", (4_000, 3_500)).save(tmp_path / "large.webp")
    refused(read_image, tmp_path / "large.webp", 32, match="would take 214 MiB to decode, the limit is 192 MiB")


@pytest.mark.parametrize("kind, mode, megabytes", [("PNG", "RGB", 48), ("BMP", "RGB", 48), ("GIF", "P", 60), ("WEBP", "RGB", 192)])
def test_the_largest_images_are_read_within_the_limit(kind, mode, megabytes, tmp_path):
    """Twelve million pixels take no more memory than the page says, measured as the process's peak."""
    pytest.importorskip("resource")
    ramp = np.linspace(0, 255, 3500 if mode == "RGB" else 3000, dtype=np.uint8)
    image = Image.fromarray(np.broadcast_to(ramp[None, :, None], (len(ramp), len(ramp), 3)).copy())
    (image if mode == "RGB" else image.quantize(32)).save(tmp_path / "a", kind)
    code = ("import resource, sys; from numpyvit.data import read_image; import PIL.Image; PIL.Image.init(); "
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; image = read_image(sys.argv[1], 32); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, *image[0, 16, [1, 30]])")
    root = Path(numpyvit_data.__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], cwd=root, capture_output=True, text=True, check=True)
    kilobytes, left, right = map(int, out.stdout.split())
    size = os.path.getsize(tmp_path / "a") // 1024
    assert kilobytes < 1024 * (megabytes + 4) + size and abs(left - 12) < 9 and abs(right - 243) < 9



def unreadable(tmp_path):
    png, jpeg = encoded(picture()), encoded(picture(width=200, height=200), "JPEG")
    yield "missing.png", None, "No such file"
    yield "empty.png", b"", "the file is empty"
    yield "text.png", b"hello", "another kind"
    yield "truncated.png", png[:len(png) // 2], "damaged"
    yield "header.png", png[:20], None
    yield "truncated.jpg", jpeg[:len(jpeg) // 2], "damaged"
    yield "magic.jpg", jpeg[:3], "another kind"
    yield "other.tiff", encoded(picture(), "TIFF"), "another kind"
    yield "crc.png", png[:30] + bytes([png[30] ^ 255]) + png[31:], None


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_other_formats(kind, in_chans, tmp_path):
    """WebP without loss, GIF of few colours and BMP have the pixels of the PNG file with the same image."""
    image = picture(width=12, height=12).quantize(64).convert("RGB")
    image.save(tmp_path / "a.png")
    image.save(tmp_path / f"a.{kind.lower()}", kind, **({"lossless": True} if kind == "WEBP" else {}))
    expected = read_image(tmp_path / "a.png", 12, in_chans)
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{kind.lower()}", 12, in_chans), expected)
    assert read_with_remark(tmp_path / f"a.{kind.lower()}", 12) [1] == ""


def see_through(mode):
    """An image of which one pixel is transparent."""
    image = picture(width=9, height=9, mode="RGBA")
    image.putalpha(255)
    image.putpixel((4, 4), (9, 9, 9, 0))
    return image.convert(mode) if mode in ("RGBA", "LA") else image.convert("RGB").quantize(16)


@pytest.mark.parametrize("kind, mode", [("PNG", "RGBA"), ("PNG", "LA"), ("WEBP", "RGBA"), ("PNG", "P"), ("GIF", "P")])
def test_transparency_is_said(kind, mode, tmp_path):
    options = {"transparency": 0} if mode == "P" else {}
    see_through(mode).save(tmp_path / "a", kind, **options)
    assert read_with_remark(tmp_path / "a", 9)[1] == "transparency is dropped"
    opaque = picture(width=9, height=9, mode="RGBA" if mode == "P" else mode)
    opaque.putalpha(255)
    opaque.save(tmp_path / "b", kind)
    assert read_with_remark(tmp_path / "b", 9)[1] == ""                     # a channel that hides nothing


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_frames_are_said(kind, tmp_path):
    frames = [picture(seed, 12, 12) for seed in range(3)]
    frames[0].save(tmp_path / "a", kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {}))
    pixels, remark = read_with_remark(tmp_path / "a", 12)
    assert remark == "all frames but the first are dropped"
    if kind != "GIF":
        np.testing.assert_array_equal(pixels, np.asarray(frames[0]).transpose(2, 0, 1))


def test_unreadable_images(tmp_path):
    for name, blob, words in unreadable(tmp_path):
        if blob is not None:
            (tmp_path / name).write_bytes(blob)
        assert name in refused(read_image, tmp_path / name, 8, match=words)
    refused(read_image, tmp_path, 8, match="got a folder")
    refused(read_image, "a\0b", 8)
    (tmp_path / "good.png").write_bytes(encoded(picture()))
    refused(read_image, tmp_path / "good.png", 8, 4, match="in_chans")
    refused(read_image, tmp_path / "good.png", 0, match="img_size")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        refused(read_image, tmp_path / "pipe.png", 8, match="special file")


def test_without_pillow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    refused(read_image, tmp_path / "a.png", 8, match="pip install pillow")


@pytest.mark.parametrize("kind, options", [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}),
                                           ("WEBP", {"lossless": True}), ("GIF", {}), ("BMP", {})])
def test_mutated_images(kind, options, tmp_path, figures):
    random_, seen = random.Random(3), {"read": 0, "refused": 0}
    exif = Image.Exif()
    exif[0x0112] = 3
    originals = [encoded(picture(mode=mode, width=37, height=29), kind, exif=exif, **options)
                 for mode in MODES_OF.get(kind, ("RGB", "L"))]
    for _ in range(35_000 if THOROUGH else 200):
        (tmp_path / "a.bin").write_bytes(mutate(random_.choice(originals), random_))
        seen[outcome(read_image, tmp_path / "a.bin", 16)] += 1
        figures.add()
    assert seen["read"] and seen["refused"]


# --- how published models see images: preprocessor_config.json as transformers follows it, timm's pretrained_cfg

IMAGENET = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])


def square_or_sides(value):
    return (value["height"], value["width"]) if isinstance(value, dict) else (value, value)


def middle(image, sides):
    top, left = (image.height - sides[0]) // 2, (image.width - sides[1]) // 2
    return image.crop((left, top, left + sides[1], top + sides[0]))


def resized_shorter(image, short, method):
    """As get_resize_output_image_size of transformers with a shortest edge."""
    long = int(short * max(image.size) / min(image.size))
    return image.resize((short, long) if image.width < image.height else (long, short), method)


def as_transformers(p, image):
    """What the processor that p names does in transformers, written after its sources, on a Pillow image. Version 5.24's
    ConvNext, DeiT, ViT and CLIPImageProcessorPil gave the same pixels for all of these."""
    kind, size, method = p.get("image_processor_type") or p["feature_extractor_type"], p["size"], Image.Resampling(p["resample"])
    if kind.startswith("ConvNext"):
        short = size if isinstance(size, int) else size["shortest_edge"]
        if short >= 384:
            return image.resize((short, short), method)
        return middle(resized_shorter(image, int(short / p["crop_pct"]), method), (short, short))
    if kind.startswith("CLIP"):
        return middle(resized_shorter(image, size["shortest_edge"], method), square_or_sides(p["crop_size"]))
    image = image.resize(square_or_sides(size)[::-1], method)                # ViT, DeiT
    return middle(image, square_or_sides(p["crop_size"])) if p.get("do_center_crop") else image


PROCESSORS = {                                                               # as published, and the size of the model's images
    "cvt-13": ({"crop_pct": 0.875, "feature_extractor_type": "ConvNextFeatureExtractor", "size": 224}, 224),
    "ConvNext as an object": ({"crop_pct": 0.875, "image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}}, 224),
    "cvt-13-384": ({"crop_pct": 0.875, "feature_extractor_type": "ConvNextFeatureExtractor", "size": 384}, 384),
    "ConvNext of 384 as an object": ({"crop_pct": 0.875, "image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}}, 384),
    "DeiT": ({"feature_extractor_type": "DeiTFeatureExtractor", "do_center_crop": True, "crop_size": 224, "size": 256}, 224),
    "DeiT as an object": ({"image_processor_type": "DeiTImageProcessor", "do_center_crop": True, "crop_size": {"height": 224, "width": 224},
                           "size": {"height": 256, "width": 256}}, 224),
    "ViT": ({"feature_extractor_type": "ViTFeatureExtractor", "size": 224}, 224),
    "ViT as an object": ({"image_processor_type": "ViTImageProcessor", "size": {"height": 384, "width": 384}}, 384),
    "CLIP": ({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 250}, "do_center_crop": True,
              "crop_size": {"height": 224, "width": 224}}, 224),
}


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("p, side", PROCESSORS.values(), ids=PROCESSORS.keys())
def test_processors_do_what_transformers_does(p, side, resample):
    p = {**IMAGENET, "resample": resample, **p}
    for width, height in ((640, 400), (400, 640), (256, 256)):
        image = picture(1, width, height)
        got = read_preprocessor(p, {}, (side, side)).pixels(image).transpose(1, 2, 0)
        np.testing.assert_array_equal(got, np.asarray(as_transformers(p, image)))


@pytest.mark.parametrize("side", [32, 224, 384])
@pytest.mark.parametrize("how, crop_pct", [("crop", 1.0), ("crop", 0.875), ("crop", 0.8), ("squash", 1.0), ("squash-crop", 0.875), ("squash-crop", 1.0)])
def test_what_is_written_transformers_does_in_the_same_way(how, crop_pct, side):
    """Sizes of which an even number of pixels is cut off: of an odd one, transformers and torchvision cut different halves."""
    ours = Preprocessing((side, side), how, crop_pct)
    written, said = write_preprocessor(ours)
    assert said == []
    for width, height in ((640, 320), (320, 640)):
        image = picture(1, width, height)
        np.testing.assert_array_equal(ours.pixels(image).transpose(1, 2, 0), np.asarray(as_transformers(written, image)))
        again = read_preprocessor(written, {}, (side, side))
        np.testing.assert_array_equal(again.pixels(image), ours.pixels(image))


@pytest.mark.parametrize("size", [(32, 48), (48, 32), (31, 97), (224, 225)])
@pytest.mark.parametrize("crop_pct", [0.9, 0.875, 0.99, 1.0])
def test_an_oblong_cut_that_was_written_is_read_again(size, crop_pct):
    """The sides are whole pixels, so they are not quite the same part of the size."""
    ours = Preprocessing(size, "squash-crop", crop_pct)
    again = read_preprocessor(write_preprocessor(ours)[0], {}, size)
    assert again.resized_to() == ours.resized_to()
    np.testing.assert_array_equal(again.pixels(picture(1, 100, 80)), ours.pixels(picture(1, 100, 80)))


@pytest.mark.parametrize("how", ["crop", "squash-crop"])
def test_a_border_around_the_image_is_not_written(how):
    with pytest.raises(UserError, match="^crop_pct of a test: expected at most 1, got 1.1: .*; write another format$"):
        write_preprocessor(Preprocessing((32, 32), how, 1.1, said="a test"))


@pytest.mark.parametrize("kind, how, crop_pct, interpolation", [
    ("ViTImageProcessor", "squash", 1.0, "bilinear"), ("", "squash", 1.0, "bilinear"), ("ConvNextImageProcessor", "squash", 1.0, "bicubic"),
    ("DeiTImageProcessor", "squash-crop", 0.875, "bicubic"), ("CLIPImageProcessor", "crop", 1.0, "bicubic")])
def test_keys_that_are_missing_are_the_processors_own(kind, how, crop_pct, interpolation):
    p = read_preprocessor({"image_processor_type": kind}, {}, (224, 224))
    assert (p.how, p.crop_pct, p.interpolation) == (how, crop_pct, interpolation)
    clip = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)     # OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
    assert (p.mean, p.std) == (clip if "CLIP" in kind else ((0.5,) * 3, (0.5,) * 3))
    assert read_preprocessor({"image_processor_type": "CLIPImageProcessor", "size": 256}, {}, (224, 224)).resized_to() == (256, 256)


def test_an_oblong_cut_is_said():
    written, said = write_preprocessor(Preprocessing((32, 64), "crop", 0.9))
    assert written["size"] == {"height": 32, "width": 64} and "no processor that cuts 32 × 64" in said[0]
    assert write_preprocessor(Preprocessing((32, 64), "squash"))[1] == []


@pytest.mark.parametrize("change, key", [
    ({"rescale_factor": 1 / 127.5}, "rescale_factor"), ({"rescale_factor": 1}, "rescale_factor"), ({"do_rescale": False}, "do_rescale"),
    ({"do_resize": False}, "do_resize"), ({"resample": 99}, "resample"), ({"resample": True}, "resample"), ({"size": "224"}, "size"),
    ({"size": {"height": 224}}, "size"), ({"size": {"shortest_edge": 0}}, "size"), ({"size": [1, 2, 3]}, "size"), ({"size": 10**400}, "size"),
    ({"size": {"height": 256, "width": 256}, "do_center_crop": True, "crop_size": 300}, "crop_size"),
    ({"size": {"height": 256, "width": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 112}}, "crop_size"),
    ({"image_mean": [0.5, 0.5]}, "mean"), ({"image_std": [0.5] * 4}, "std")], ids=lambda value: str(value)[:60])
def test_keys_of_a_processor_that_are_not_followed_are_named(change, key):
    with pytest.raises(UserError, match=f"^{key} of preprocessor_config.json: expected "):
        read_preprocessor({**IMAGENET, "size": 224, **change}, {}, (224, 224))


def test_one_number_for_every_channel():
    """A single mean of a model for RGB is repeated: it was read as a model for grey images."""
    p = read_preprocessor({"image_mean": [0.4], "image_std": [0.2, 0.3, 0.4]}, {}, (8, 8), 3)
    assert p.mean == (0.4,) * 3 and p.std == (0.2, 0.3, 0.4) and p(picture()).shape == (3, 8, 8)
    assert read_preprocessor({"size": 8}, {}, (8, 8), 1).mean == (0.5,)
    assert read_preprocessor({"size": 8, "do_normalize": False}, {}, (8, 8), 3).std == (1.0,) * 3
    with pytest.raises(UserError, match="mean of .*one number for each of 1 channels"):
        read_preprocessor(IMAGENET, {}, (8, 8), 1)
    with pytest.raises(UserError, match="as many numbers in both, got 3 and 1"):
        Preprocessing((8, 8), std=(1.0,))


def test_timms_modes_of_cutting():
    image, half = picture(1, 640, 400), {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}

    def read(**cfg):
        return read_preprocessor({}, {"pretrained_cfg": half | cfg}, (224, 224))
    squashed = image.resize((248, 248), Image.Resampling.BICUBIC).crop((12, 12, 236, 236))          # int(224 / 0.9)
    np.testing.assert_array_equal(read(crop_mode="squash", crop_pct=0.9).pixels(image).transpose(1, 2, 0), np.asarray(squashed))
    whole = image.resize((224, 224), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(read(crop_mode="squash", crop_pct=1.0).pixels(image).transpose(1, 2, 0), np.asarray(whole))
    assert read(crop_mode="center", crop_pct=0.9).how == read(crop_pct=0.9).how == "crop"
    for mode in ("border", 3):
        with pytest.raises(UserError, match="^crop_mode of the pretrained_cfg of config.json: expected 'center' or 'squash', got"):
            read(crop_mode=mode)
