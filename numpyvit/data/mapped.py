"""Pixels that are not in memory: those of a folder that is larger than memory, and those of a run, a batch at a time.

A mapped array reads pages of its file when they are needed, and the system drops them when memory is short. The images
of a large folder are decoded once, into a file of the cache. The file's name is a hash of everything it depends on:
every image's path, size and time of change, and the size in pixels. A note with the checksum is written last, so a
process that is killed leaves nothing that would be believed.
"""
import hashlib
import itertools
import json
import math
import os
import tempfile
import threading

import numpy as np

from ..errors import UserError
from ..files import atomic
from ..files.download import Display
from .dataset import ImageSet, records_checksum
from .images import read_with_remark
from .sources import cache_dir

VERSION = 1                                                                  # of how pixels are decoded and stored
NOTE = "complete.json"
PIECE = 1 << 20                                                              # bytes written at a time
LARGEST = 1 << 28                                                            # bytes that may lie in a temporary file


def read_mapped(root, parts, img_size, progress=None):
    """Every image of every part, in files.   parts: {name: Listing}   →   as folder.read_in_memory

    progress(bytes_done, bytes_total) instead of the display. Raises UserError for an unreadable image and a full disk.
    """
    folder = os.path.join(cache_dir(), "folders", fingerprint(root, parts, img_size))
    try:
        atomic.make_folder(folder)
        with atomic.locked(os.path.join(folder, ".lock"), f"the image cache {folder}", wait=True):
            known = read_note(folder)
            if known is not None:
                sets = map_parts(folder, parts, img_size)
                if sets is not None and records_checksum(*sets.values()) == known["checksum"]:
                    return sets, known["checksum"], known["remarks"]
            remarks = build(folder, root, parts, img_size, progress)
            sets = map_parts(folder, parts, img_size)
            checksum = records_checksum(*sets.values())
            total = sum(s.images.nbytes for s in sets.values())
            kept = f"their pixels ({total / 1e9:.1f} GB) are kept in {folder}, which can be deleted"
            remarks[kept] = total_files(parts)
            note = json.dumps({"checksum": checksum, "remarks": remarks})
            atomic.write_atomic(os.path.join(folder, NOTE), [note.encode()])
            return sets, checksum, remarks
    except OSError as error:
        raise UserError(f"{folder}: the pixels of {root} cannot be kept there ({error.strerror or error}); make room, "
                        "set XDG_CACHE_HOME to another folder, or choose a smaller img_size") from error


def total_files(parts):
    """The number of images in all parts."""
    return sum(len(part.files) for part in parts.values())


def fingerprint(root, parts, img_size):
    """A name for these files, as they are now, at this size in pixels."""
    digest = hashlib.sha256(repr((VERSION, os.path.abspath(root), img_size)).encode())
    for name, part in parts.items():
        for file, label in zip(part.files, part.labels.tolist()):
            status = os.stat(file)
            digest.update(repr((name, os.path.relpath(file, root), label, status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()[:32]


def read_note(folder):
    """What the note says, or None where there is no whole one."""
    try:
        known = json.loads(atomic.read_small(os.path.join(folder, NOTE)))
        return {"checksum": str(known["checksum"]), "remarks": {str(k): int(v) for k, v in known["remarks"].items()}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def build(folder, root, parts, img_size, progress):
    """Decode every image into FOLDER/PART.pixels, and wait until the disk has them.   → {remark: number of images}"""
    atomic.remove(os.path.join(folder, NOTE))
    show = progress or Display(f"decoding the images of {root}")
    done, total, remarks = 0, total_files(parts) * 3 * img_size**2, {}
    try:
        for name, part in parts.items():
            path = os.path.join(folder, f"{name}.pixels")
            with open(path + ".new", "wb", buffering=PIECE) as out:          # the old file may be mapped elsewhere
                for file in part.files:
                    pixels, remark = read_with_remark(file, img_size)
                    out.write(pixels.tobytes())
                    done += pixels.nbytes
                    if remark:
                        remarks[remark] = remarks.get(remark, 0) + 1
                    show(done, total)
                out.flush()
                os.fsync(out.fileno())
            os.replace(path + ".new", path)
    finally:
        if progress is None:
            show.close()
    return remarks


def map_parts(folder, parts, img_size):
    """The files of all parts as arrays that are read when needed.   → {part: ImageSet}, None if a size is wrong"""
    sets = {}
    for name, part in parts.items():
        path, shape = os.path.join(folder, f"{name}.pixels"), (len(part.files), 3, img_size, img_size)
        if atomic.size_of(path) != np.prod(shape, dtype=np.int64):
            return None
        sets[name] = ImageSet(np.memmap(path, np.uint8, "r", shape=shape).view(np.ndarray), part.labels)
    return sets


class OnDisk:
    """An array in a temporary file: array[rows] reads rows of its first axis. The file ends with the process."""

    def __init__(self, array):
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        self.file, self.lock = tempfile.TemporaryFile(buffering=0), threading.Lock()
        array.tofile(self.file)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        """rows: a slice, or indices (b,)   →   (b, …), read and not mapped, since a mapped file can have large pages"""
        rows, row_shape = np.arange(len(self))[rows], self.shape[1:]
        array, size = np.empty((len(rows), *row_shape), self.dtype), self.dtype.itemsize * math.prod(row_shape)
        edges = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1), len(rows)]    # rows that follow each other go together
        for lo, hi in itertools.pairwise(edges if len(rows) else []):
            with self.lock:
                self.file.seek(int(rows[lo]) * size)
                self.file.readinto(array[lo:hi])
        return array


def put_aside(image_set):
    """The same ImageSet with its images OnDisk. Images stay where they are if they are more than LARGEST bytes, if the
    disk has no room for them, or if they are mapped from a file already."""
    images = image_set.images
    if not (isinstance(images, np.ndarray) and images.flags.owndata) or images.nbytes > LARGEST:
        return image_set
    try:
        return ImageSet(OnDisk(images), image_set.labels)
    except OSError:
        return image_set
