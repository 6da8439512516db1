"""Folders of images and single images."""
import io
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets import mutate, nothing_to_be_found, outcome, refused           # noqa: F401
from numpyvit import data as numpyvit_data
from numpyvit.data import load, read_image

THOROUGH = bool(os.environ.get("NUMPYVIT_THOROUGH"))                           # 35,000 mutated files of each kind

Image = pytest.importorskip("PIL.Image")


def picture(seed=0, width=20, height=14, mode="RGB"):
    rng = np.random.default_rng(seed)
    bands = {"RGB": 3, "RGBA": 4, "CMYK": 4, "LA": 2}.get(mode)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (height, width), dtype=np.uint16))
    if mode in ("P", "1"):
        return picture(seed, width, height, "RGB").convert(mode)
    array = rng.integers(0, 256, (height, width, bands) if bands else (height, width), dtype=np.uint8)
    return Image.fromarray(array, mode=None) if mode in ("RGB", "L", "RGBA", "LA") else Image.fromarray(array, mode)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_images(root, split="train", classes=("ant", "bee"), count=3, suffix=".png"):
    """ROOT/split/CLASS/…, every image another one."""
    for label, name in enumerate(classes):
        (root / split / name).mkdir(parents=True)
        for i in range(count):
            picture(1000 * label + i).save(root / split / name / f"{i}{suffix}")
    return root


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


def unreadable(tmp_path):
    png, jpeg = encoded(picture()), encoded(picture(width=200, height=200), "JPEG")
    yield "missing.png", None, "No such file"
    yield "empty.png", b"", "another kind"
    yield "text.png", b"hello", "another kind"
    yield "truncated.png", png[:len(png) // 2], "damaged"
    yield "header.png", png[:20], None
    yield "truncated.jpg", jpeg[:len(jpeg) // 2], "damaged"
    yield "magic.jpg", jpeg[:3], "another kind"
    yield "other.tiff", encoded(picture(), "TIFF"), "another kind"
    yield "crc.png", png[:30] + bytes([png[30] ^ 255]) + png[31:], None


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


@pytest.mark.parametrize("split", ["test", "val"])
def test_folder(split, tmp_path):
    write_images(tmp_path, classes=("bee", "ant", "cow"))
    write_images(tmp_path, split, classes=("cow", "bee"), count=2, suffix=".JPG")
    (tmp_path / "train" / "ant" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / "ant" / ".hidden.png").write_text("not an image")
    (tmp_path / "train" / "README").write_text("")
    dataset = load("folder", tmp_path, img_size=14)
    assert dataset.classes == ("ant", "bee", "cow") and dataset.notice == ""
    assert dataset.train.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 and dataset.test.labels.tolist() == [1, 1, 2, 2]
    np.testing.assert_array_equal(dataset.train.images[0], read_image(tmp_path / "train" / "ant" / "0.png", 14))
    np.testing.assert_array_equal(dataset.train.images[8], read_image(tmp_path / "train" / "cow" / "2.png", 14))
    np.testing.assert_array_equal(dataset.test.images[3], read_image(tmp_path / split / "cow" / "1.JPG", 14))
    assert load("folder", str(tmp_path)).train.images.shape == (9, 3, 32, 32)
    before = dataset.checksum
    picture(99).save(tmp_path / "train" / "ant" / "0.png")
    assert load("folder", tmp_path, img_size=14).checksum != before


def test_folder_without_a_test_set_holds_out_a_tenth(tmp_path):
    write_images(tmp_path, count=20)
    dataset = load("folder", tmp_path, img_size=8)
    assert len(dataset.train) == 36 and dataset.test.labels.tolist() == [0, 0, 1, 1]
    assert "4 of the 40 images" in dataset.notice and "test" in dataset.source
    assert len(np.unique(np.concatenate([dataset.train.images, dataset.test.images]).reshape(40, -1), axis=0)) == 40
    np.testing.assert_array_equal(dataset.test.images, load("folder", tmp_path, 8).test.images)


def test_broken_folders(tmp_path):
    refused(load, "folder", tmp_path / "nowhere", match="train")
    refused(load, "folder", tmp_path, match="train")
    (tmp_path / "train").mkdir()
    refused(load, "folder", tmp_path, match="found none")
    (tmp_path / "train" / "ant").mkdir()
    refused(load, "folder", tmp_path, match="ant.*found none")
    picture().save(tmp_path / "train" / "ant" / "0.png")
    refused(load, "folder", tmp_path, match="two images")
    picture().save(tmp_path / "train" / "ant" / "1.png")
    assert len(load("folder", tmp_path).train) == 1
    (tmp_path / "train" / "ant" / "2.png").write_bytes(encoded(picture())[:200])
    assert "2.png" in refused(load, "folder", tmp_path, match="damaged")
    (tmp_path / "train" / "ant" / "2.png").unlink()
    (tmp_path / "test" / "ant").mkdir(parents=True)
    refused(load, "folder", tmp_path, match="found none")
    (tmp_path / "test" / "wasp").mkdir()
    refused(load, "folder", tmp_path, match="'wasp' is not in")
    refused(load, "folder", tmp_path, img_size=10**7, match="img_size")


@pytest.mark.parametrize("kind, options", [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True})])
def test_mutated_images(kind, options, tmp_path, figures):
    random_, seen = random.Random(3), {"read": 0, "refused": 0}
    exif = Image.Exif()
    exif[0x0112] = 3
    originals = [encoded(picture(mode=mode, width=37, height=29), kind, exif=exif, **options)
                 for mode in ("RGB", "L", *(("RGBA", "P", "I;16") if kind == "PNG" else ()))]
    for _ in range(35_000 if THOROUGH else 200):
        (tmp_path / "a.bin").write_bytes(mutate(random_.choice(originals), random_))
        seen[outcome(read_image, tmp_path / "a.bin", 16)] += 1
        figures.add()
    assert seen["read"] and seen["refused"]
