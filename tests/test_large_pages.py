"""Large pages: which memory moves, that it does, and that Lanes asks once, when the arrays of a batch are there."""
import subprocess
import sys

import numpy as np
import pytest

from numpyvit import threads
from numpyvit.models import create_model
from numpyvit.training import lanes

SETTING = "/sys/kernel/mm/transparent_hugepage/enabled"
MAPS = """\
55d0c0000000-55d0c0200000 r-xp 00001000 fe:00 260850                     /usr/bin/python3.11
55d0c1000000-55d0c1200000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000400000 rw-p 00000000 00:00 0 
7f0000400000-7f00005ff000 rw-p 00000000 00:00 0 
7f0000600000-7f0004000000 ---p 00000000 00:00 0 
7f0010000000-7f0010800000 rw-p 00000000 fe:00 77                         /tmp/a name with spaces
7f0020000000-7f0020800000 rw-s 00000000 00:01 12                         /dev/zero (deleted)
7ffc00000000-7ffc00800000 rw-p 00000000 00:00 0                          [stack]
"""


def setting():
    try:
        with open(SETTING) as file:
            return file.read()
    except OSError:
        return "none"


def test_memory_of_two_megabytes_that_is_no_file_and_may_be_written():
    assert threads.anonymous_regions(MAPS) == [(0x55d0c1000000, 0x55d0c1200000), (0x7f0000000000, 0x7f0000400000)]
    assert threads.anonymous_regions("") == []


@pytest.mark.skipif("[madvise]" not in setting(), reason="Linux gives no large pages on request here")
def test_memory_is_marked_and_keeps_its_numbers():
    """Whether Linux then finds whole pages of 2 MB depends on the machine's other work; the mark ("hg") does not."""
    code = """
import mmap, numpy as np
from numpyvit.threads import use_large_pages
memory = mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
numbers = np.frombuffer(memory, np.float32)
numbers[:] = np.arange(numbers.size)

def marked():
    found = False
    for line in open("/proc/self/smaps"):
        first, *rest = line.split()
        if not first.endswith(":"):
            start, end = (int(address, 16) for address in first.split("-"))
            found = start <= numbers.ctypes.data < end
        elif found and first == "VmFlags:":
            return "hg" in rest

before = marked()
use_large_pages()
print(before, marked(), (numbers == np.arange(numbers.size)).all())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False True True\n", "")


@pytest.mark.parametrize("text", ["always madvise [never]", "[always] madvise never", None])
def test_another_setting_or_another_system_is_left_alone(text, monkeypatch, tmp_path):
    (tmp_path / "maps").write_text(MAPS)
    if text:
        (tmp_path / "setting").write_text(text)
    names = {SETTING: tmp_path / "setting", "/proc/self/maps": tmp_path / "maps"}
    monkeypatch.setattr(threads, "open", lambda name: open(names[name]), raising=False)
    monkeypatch.setattr(threads.ctypes, "CDLL", lambda name: pytest.fail("asked"))
    threads.use_large_pages()


def test_a_refusal_of_linux_is_no_error(monkeypatch, tmp_path):
    """These addresses are of no memory of this process: madvise returns -1 for all of them."""
    (tmp_path / "maps").write_text(MAPS)
    (tmp_path / "setting").write_text("always [madvise] never")
    names, asked = {SETTING: tmp_path / "setting", "/proc/self/maps": tmp_path / "maps"}, []

    class Libc:
        def __init__(self, name):
            def madvise(*arguments):
                asked.append(arguments)
                return -1
            self.madvise = madvise

    monkeypatch.setattr(threads, "open", lambda name: open(names[name]), raising=False)
    monkeypatch.setattr(threads.ctypes, "CDLL", Libc)
    threads.use_large_pages()
    assert asked == [(start, end - start, advice) for start, end in threads.anonymous_regions(MAPS) for advice in (14, 25)]


@pytest.mark.parametrize("work", ["gradient", "logits"])
def test_lanes_ask_once_before_the_second_batch(work, monkeypatch):
    asked, batches = [], 0
    monkeypatch.setattr(lanes, "use_large_pages", lambda: asked.append(batches))
    model = create_model("vit", img_size=16, embed_dim=32, depth=1, num_heads=2)
    images = np.zeros((4, 3, 16, 16), np.float32)
    with lanes.Lanes(model, 1) as four:
        for _ in range(4):
            if work == "gradient":
                four.gradient(4, lambda lo, hi: (images[lo:hi], np.zeros(hi - lo, int), None))
            else:
                four.logits(4, lambda lo, hi: images[lo:hi])
            batches += 1
    assert asked == [1]
