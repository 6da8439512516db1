"""Folders of images of the user's own: which files are which part, what is said of the others, and pixels beyond memory."""
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from datasets import encoded, nothing_to_be_found, picture, refused, write_images                 # noqa: F401
from numpyvit.data import (Augment, Dataset, augment_batch, channel_statistics, folder, hold_out, load, mapped, normalise,
                           read_image, train_val_split)
from numpyvit.data.dataset import records_checksum
from numpyvit.data.images import read_with_remark
from numpyvit.training.recipe import recipe_for
from tiny import image_folder, recipe

CLASSES = ("bee", "ant", "cow")


def test_training_and_test_images(tmp_path):
    write_images(tmp_path, classes=CLASSES)
    write_images(tmp_path, "test", classes=("cow", "bee"), count=2, suffix=".JPG")
    dataset = load("folder", tmp_path, img_size=14)
    assert dataset.classes == ("ant", "bee", "cow") and dataset.notice == "" and dataset.val is None
    assert dataset.train.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 and dataset.test.labels.tolist() == [1, 1, 2, 2]
    np.testing.assert_array_equal(dataset.train.images[0], read_image(tmp_path / "train" / "ant" / "0.png", 14))
    np.testing.assert_array_equal(dataset.train.images[8], read_image(tmp_path / "train" / "cow" / "2.png", 14))
    np.testing.assert_array_equal(dataset.test.images[3], read_image(tmp_path / "test" / "cow" / "1.JPG", 14))
    assert load("folder", str(tmp_path)).train.images.shape == (9, 3, 32, 32)
    assert dataset.checksum == records_checksum(dataset.train, dataset.test) == load(f"folder:{tmp_path}", img_size=14).checksum
    picture(99).save(tmp_path / "train" / "ant" / "0.png")
    assert load("folder", tmp_path, img_size=14).checksum != dataset.checksum


@pytest.mark.parametrize("name", folder.WATCHED)
@pytest.mark.parametrize("with_test", [True, False])
def test_validation_images_are_watched_and_never_the_test_set(name, with_test, tmp_path):
    """Issue 19, point 4: val/ was the test set, or was ignored where there was a test/."""
    write_images(tmp_path, classes=CLASSES, count=10)
    write_images(tmp_path, name, classes=("ant", "cow"), count=2, first=50)
    if with_test:
        write_images(tmp_path, "test", classes=("bee",), count=4, first=80)
    dataset = load("folder", tmp_path, img_size=8)
    assert dataset.val.labels.tolist() == [0, 0, 2, 2]
    np.testing.assert_array_equal(dataset.val.images[3], read_image(tmp_path / name / "cow" / "1.png", 8))
    assert dataset.test.labels.tolist() == ([1] * 4 if with_test else [0, 1, 2])
    assert len(dataset.train) == (30 if with_test else 27) and ("no test/" in dataset.notice) == (not with_test)
    everything = np.concatenate([dataset.train.images, dataset.val.images, dataset.test.images])
    assert len(np.unique(everything, axis=0)) == len(everything)             # no image is in two parts
    rows, images, labels = hold_out(dataset, 5, seed=0)
    assert rows.tolist() == list(range(len(dataset.train))) and images is dataset.val.images and labels is dataset.val.labels
    other = load("folder", tmp_path, img_size=8).checksum
    picture(7).save(tmp_path / name / "ant" / "0.png")
    assert load("folder", tmp_path, img_size=8).checksum != other            # they are part of what a run depends on


def test_a_run_watches_val_and_scores_test(tmp_path):
    """From the folder to the figures of a run: 5 images are watched, and scored images are others."""
    from numpyvit.runs.classifier import Classifier
    from numpyvit.training.loop import train
    image_folder(tmp_path / "own")
    for label, name in enumerate(os.listdir(tmp_path / "own" / "train")):
        (tmp_path / "own" / "val" / name).mkdir(parents=True)
        for i in range(2):
            picture(100 * label + i, 16, 16).save(tmp_path / "own" / "val" / name / f"{i}.png")
    settings = dict(data="folder", data_dir=str(tmp_path / "own"), batch_size=8, steps=2, micro_batch=4)
    train(recipe(**settings, val=None), tmp_path / "run", threads=1)
    classifier = Classifier(tmp_path / "run")
    assert (classifier.config.data.train, classifier.config.data.val, classifier.config.data.test) == (65, 6, 7)
    images, labels = classifier.split("val")
    np.testing.assert_array_equal(images, load("folder", tmp_path / "own", 16).val.images)
    assert len(labels) == 6 and len(classifier.split("test")[1]) == 7
    watched = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any(line["kind"] == "val" and 6 * line["accuracy"] == round(6 * line["accuracy"]) for line in watched)
    refused(train, recipe(**settings, val=4), tmp_path / "other", threads=1, match="6 validation images of its own")


def test_a_data_set_without_validation_images_holds_some_out(tmp_path):
    write_images(tmp_path, classes=CLASSES, count=10)
    dataset = load("folder", tmp_path, img_size=8)
    rows, images, labels = hold_out(dataset, 6, seed=3)
    kept, held_out = train_val_split(dataset.train, 6, seed=3)
    np.testing.assert_array_equal(rows, kept)
    np.testing.assert_array_equal(labels, dataset.train.labels[held_out])
    assert len(images) == 6
    for lo, hi in ((0, 6), (2, 3), (5, 99)):
        np.testing.assert_array_equal(images[lo:hi], dataset.train.images[held_out][lo:hi])


def test_a_folder_without_a_test_set_holds_out_a_tenth(tmp_path):
    write_images(tmp_path, count=20)
    dataset = load("folder", tmp_path, img_size=8)
    assert len(dataset.train) == 36 and dataset.test.labels.tolist() == [0, 0, 1, 1]
    assert "no test/: 4 of the 40 images" in dataset.notice and "test" in dataset.source
    assert len(np.unique(np.concatenate([dataset.train.images, dataset.test.images]).reshape(40, -1), axis=0)) == 40
    np.testing.assert_array_equal(dataset.test.images, load("folder", tmp_path, 8).test.images)


def test_what_is_skipped_is_counted_with_its_reason(tmp_path):
    """Issue 19, point 4. Hidden files and what a Mac's archive adds are no files of the user's."""
    write_images(tmp_path)
    write_images(tmp_path, "test", count=1)
    for name in ("ant/notes.txt", "ant/more.TXT", "bee/README", "bee/photo.tiff", "labels.csv", "ant/.DS_Store", ".hidden"):
        (tmp_path / "train" / name).write_text("not an image")
    (tmp_path / "test" / "ant" / "x.txt").write_text("not an image")
    (tmp_path / "train" / "bee" / "inner").mkdir()
    (tmp_path / "train" / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "train").mkdir(parents=True)
    (tmp_path / "train" / "bee" / "7.png").write_bytes(encoded(picture(mode="RGBA")))
    (tmp_path / "train" / "ant" / "7.webp").write_bytes(encoded(picture(), "WEBP"))
    dataset = load("folder", tmp_path, img_size=8)
    assert dataset.classes == ("ant", "bee") and len(dataset.train) == 8 and len(dataset.test) == 2
    assert dataset.notice == (
        "Not read, as only PNG, JPEG, WebP, GIF or BMP files in the class directories are: *.tiff (1), *.txt (3), "
        "directories inside a class (1), files outside the class directories (1), files without an ending (1). "
        "1 image: transparency is dropped.")


def test_classes_directly_in_the_folder(tmp_path):
    tmp_path = tmp_path / "own"
    write_images(tmp_path, ".", count=10)
    dataset = load(f"folder:{tmp_path}", img_size=8)
    assert dataset.classes == ("ant", "bee") and len(dataset.train) == 18 and len(dataset.test) == 2
    assert "its directories ant, bee are taken for the classes" in dataset.notice and "2 of the 20 images" in dataset.notice
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / ".git").mkdir()
    assert load(f"folder:{tmp_path}", img_size=8).checksum == dataset.checksum


def test_the_current_directory_has_a_name_and_an_empty_name_is_no_directory(tmp_path, monkeypatch):
    write_images(tmp_path / "own", ".", count=10)
    monkeypatch.chdir(tmp_path / "own")
    dataset = load("folder:.", img_size=8)
    assert "2 of the 20 images in own/ are held out" in dataset.notice and str(tmp_path / "own") in dataset.source
    assert dataset.checksum == load(f"folder:{tmp_path / 'own'}", img_size=8).checksum
    for name, data_dir in (("folder:", None), ("folder", "")):
        refused(load, name, data_dir, match="got none; give folder:ROOT")
    refused(recipe_for, data="folder:", match="names no folder: give folder:ROOT")


def test_broken_folders(tmp_path):
    refused(load, "folder", tmp_path / "nowhere", match="no such directory")
    refused(load, "folder", tmp_path, match="found no directory train; check the path")
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
    for name in ("val", "validation"):
        (tmp_path / name).mkdir()
    refused(load, "folder", tmp_path, match="found val and validation; rename one")


def test_folders_that_are_nearly_right_get_advice(tmp_path):
    write_images(tmp_path / "outer" / "own")
    assert refused(load, "folder", tmp_path / "outer").endswith(f"give folder:{tmp_path / 'outer' / 'own'}")
    write_images(tmp_path / "scored", "test")
    refused(load, "folder", tmp_path / "scored", match="found test but no train")
    refused(load, "folder", match="give folder:ROOT, or the directory as --data-dir")
    refused(load, "folder:own", tmp_path, match="folder:own names its directory, but --data-dir is")
    refused(recipe_for, data="folder:own", data_dir="other", match="--data-dir")
    assert recipe_for(data="folder:own").data_dir == recipe_for(data="folder", data_dir="own").data_dir == "own"
    os.rename(tmp_path / "outer" / "own", "own")
    assert refused(load, "own").endswith("give folder:own")
    assert load("folder:own", img_size=8).classes == ("ant", "bee")


def test_labelled_images_for_scoring(tmp_path):
    """A model's classes, in the model's order, of which a folder may lack some."""
    tmp_path = tmp_path / "own"
    write_images(tmp_path, ".", classes=("bee", "cow"), count=2)
    (tmp_path / "cow" / "x.txt").write_text("")

    def colour(file):
        return read_with_remark(file, 8, 3)
    images, notice = folder.read_labelled(tmp_path, ("cow", "ant", "bee"), (3, 8, 8), colour)
    assert images.labels.tolist() == [0, 0, 2, 2] and "*.txt (1)" in notice
    np.testing.assert_array_equal(images.images[2], read_image(tmp_path / "bee" / "0.png", 8))
    grey, _ = folder.read_labelled(tmp_path, ("cow", "ant", "bee"), (1, 8, 8), lambda file: read_with_remark(file, 8, 1))
    np.testing.assert_array_equal(grey.images[2], read_image(tmp_path / "bee" / "0.png", 8, 1))
    refused(folder.read_labelled, tmp_path, ("cow", "ant"), (3, 8, 8), colour, match="class 'bee' is not in the model's classes")
    (tmp_path / "empty").mkdir()
    refused(folder.read_labelled, tmp_path / "empty", ("cow",), (3, 8, 8), colour, match="found none")


def test_a_class_is_the_name_of_a_directory_and_never_a_path(tmp_path):
    root = write_images(tmp_path / "own", ".", classes=("a", "b"), count=3)
    write_images(tmp_path / "other", ".", classes=("c",), count=2)

    def read(*classes):
        return folder.read_labelled(root, classes, (3, 8, 8), lambda file: read_with_remark(file, 8, 3))[0].labels.tolist()
    for wrong in ("../own/a", "", ".", "..", "../other/c", str(tmp_path / "other" / "c"), "a/", "b/../a", "a\0"):
        assert read("a", "b", wrong) == [0] * 3 + [1] * 3
    assert read("x", "a", "b", "x") == [1] * 3 + [2] * 3                     # no directory of the doubled name
    for classes in (("a", "b", "a"), ("a", "a", "b", "b")):
        refused(read, *classes, match="class 'a' is in the model's classes 2 times")


# Pixels beyond memory.

@pytest.fixture
def small_memory(monkeypatch):
    monkeypatch.setattr(folder, "IN_MEMORY", 10_000)


def silent(done, total):
    assert 0 < done <= total


def load_mapped(root, img_size=24) -> Dataset:
    return folder.load(root, img_size, progress=silent)


def cached_files(tmp_path):
    return sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != ".lock")


def own_folder(tmp_path):
    root = write_images(tmp_path / "own", classes=CLASSES, count=8)
    write_images(root, "val", classes=CLASSES, count=2, first=40)
    return write_images(root, "test", classes=CLASSES, count=2, first=60)


def test_mapped_pixels_are_those_in_memory(tmp_path, monkeypatch):
    root = own_folder(tmp_path)
    plain = load_mapped(root)
    assert not cached_files(tmp_path)
    monkeypatch.setattr(folder, "IN_MEMORY", 10_000)
    for _ in range(2):                                                       # decoded, then found
        dataset = load_mapped(root)
        assert dataset.checksum == plain.checksum and dataset.classes == plain.classes
        for name in ("train", "val", "test"):
            ours, theirs = getattr(dataset, name), getattr(plain, name)
            np.testing.assert_array_equal(ours.images, theirs.images)
            np.testing.assert_array_equal(ours.labels, theirs.labels)
            assert type(ours.images) is np.ndarray and not ours.images.flags.owndata and not ours.images.flags.writeable
        assert "can be deleted" in dataset.notice and str(tmp_path / "cache") in dataset.notice
        everything = Augment(cutout=4, erasing=0.5, mixup=0.5, cutmix=0.5)
        for data in (dataset, plain):
            mean, std = channel_statistics(data.train.images)
            batch = augment_batch(data.train, np.arange(9), 0, 0, everything, mean, std, 3)
            white = normalise(data.test.images[:4], mean, std)
            if data is dataset:
                expected = batch, white
        np.testing.assert_array_equal(expected[0][0], batch[0])
        np.testing.assert_array_equal(expected[1], white)


def test_mapped_pixels_are_decoded_once(tmp_path, small_memory, monkeypatch):
    root, read = own_folder(tmp_path), []
    original = mapped.read_with_remark
    monkeypatch.setattr(mapped, "read_with_remark", lambda path, size: read.append(path) or original(path, size))
    first = load_mapped(root)
    assert len(read) == 36 and len(cached_files(tmp_path)) == 4
    assert load_mapped(root).checksum == first.checksum and len(read) == 36
    picture(5).save(root / "train" / "ant" / "0.png")                        # a changed image, another size: decoded anew
    assert load_mapped(root).checksum != first.checksum and len(read) == 72
    load_mapped(root, 25)
    assert len(read) == 108 and len(cached_files(tmp_path)) == 12


@pytest.mark.parametrize("damage", ["a byte", "short", "no file", "no note", "half a note", "another note"])
def test_a_damaged_cache_is_made_anew(damage, tmp_path, small_memory):
    root = own_folder(tmp_path)
    first = load_mapped(root)
    pixels = next(path for path in cached_files(tmp_path) if path.name == "train.pixels")
    note = pixels.with_name(mapped.NOTE)
    content = bytearray(pixels.read_bytes())
    if damage == "a byte":
        content[1000] ^= 1
        pixels.write_bytes(content)
    elif damage == "short":
        pixels.write_bytes(content[:-1])
    elif damage == "no file":
        pixels.unlink()
    elif damage == "no note":
        note.unlink()
    else:
        note.write_text(note.read_text()[:30] if damage == "half a note" else '{"checksum": 3, "remarks": {"x": "y"}}')
    again = load_mapped(root)
    assert again.checksum == first.checksum
    np.testing.assert_array_equal(again.train.images, load_mapped(root).train.images)
    assert len(cached_files(tmp_path)) == 4


def test_an_image_that_is_damaged_leaves_no_note(tmp_path, small_memory):
    root = own_folder(tmp_path)
    (root / "test" / "cow" / "9.png").write_bytes(encoded(picture())[:200])
    refused(load_mapped, root, match="9.png: a damaged image")
    assert not any(path.name == mapped.NOTE for path in cached_files(tmp_path))
    (root / "test" / "cow" / "9.png").unlink()
    assert len(load_mapped(root).test) == 6


def test_a_cache_that_cannot_be_written(tmp_path, small_memory, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    refused(load_mapped, own_folder(tmp_path), match="XDG_CACHE_HOME")


def test_memory_is_bounded(tmp_path, monkeypatch):
    """48 MB of pixels are decoded, checked, counted and drawn from with at most 24 MB of allocated memory."""
    monkeypatch.setattr(folder, "IN_MEMORY", 1_000_000)
    root = write_images(tmp_path / "own", count=5)
    for name in ("ant", "bee"):
        for i in range(5, 160):
            os.link(root / "train" / name / f"{i % 5}.png", root / "train" / name / f"{i}.png")
    load_mapped(write_images(tmp_path / "warm", count=40), 224)              # imports, compiled kernels
    tracemalloc.start()
    dataset = load_mapped(root, 224)
    mean, std = channel_statistics(dataset.train.images)
    augment_batch(dataset.train, np.arange(4), 0, 0, Augment(), mean, std, 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert dataset.train.images.nbytes + dataset.test.images.nbytes == 320 * 3 * 224**2 > 48e6
    assert peak < 24e6, peak


def test_killed_while_decoding(tmp_path, small_memory):
    """A process that dies in the middle leaves no note, and the next one decodes everything."""
    root = own_folder(tmp_path)
    code = ("import os, sys; from numpyvit.data import folder, mapped; folder.IN_MEMORY = 10_000; read, count = mapped.read_with_remark, [0]\n"
            "def dying(path, size):\n    count[0] += 1\n    if count[0] == 20: os._exit(9)\n    return read(path, size)\n"
            "mapped.read_with_remark = dying; folder.load(sys.argv[1], 24)")
    there = Path(folder.__file__).parents[2]
    process = subprocess.run([sys.executable, "-c", code, str(root)], cwd=there, env={**os.environ, "PYTHONPATH": str(there)})
    assert process.returncode == 9 and not any(path.name == mapped.NOTE for path in cached_files(tmp_path))
    assert load_mapped(root).checksum == load_mapped(root).checksum
    assert [path.name for path in cached_files(tmp_path)] == sorted(["train.pixels", "test.pixels", "val.pixels", mapped.NOTE])
