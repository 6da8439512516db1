"""Downloads, from a server of our own: what arrives is whole, checked and atomic, or nothing is left."""
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from datasets import (ARCHIVE, ARCHIVE_NAME, BLOB, assert_is_content, nothing_to_be_found, refused, server,   # noqa: F401
                      with_remote, write_archive)
from numpyvit.data import cifar10, load, registry
from numpyvit.files import download
from numpyvit.files.atomic import size_of

REPOSITORY = Path(download.__file__).parents[2]


def silent(done, total):
    assert 0 < done <= total == len(BLOB)


def fetch(target, *urls, progress=silent):
    return download.fetch(replace(ARCHIVE.archive, urls=urls), target.parent, progress)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "numpyvit" / "cifar10" / ARCHIVE_NAME


def left_over(target):
    """What a download left in its folder beside the lock."""
    names = os.listdir(target.parent) if target.parent.exists() else []
    return sorted(name for name in names if name != ".lock")


@pytest.mark.parametrize("chunked", [False, True])
def test_download(target, chunked):
    seen = []
    with server(chunked=chunked) as (url, asked):
        assert fetch(target, url, progress=lambda *figures: seen.append(figures)) == str(target)
    assert target.read_bytes() == BLOB and len(asked) == 1 and left_over(target) == [ARCHIVE_NAME]
    assert seen[-1] == (len(BLOB), len(BLOB)) and seen == sorted(seen)


def test_a_file_that_is_there_needs_no_request(target):
    write_archive(target.parent)
    assert fetch(target, "http://127.0.0.1:1/x") == str(target)


@pytest.mark.parametrize("cut", [[30_000], [30_000, 20_000], [0, 1]])
def test_a_broken_connection_is_tried_again(target, cut):
    with server(cut=cut) as (url, asked):
        fetch(target, url)
    assert target.read_bytes() == BLOB and len(asked) == len(cut) + 1 and left_over(target) == [ARCHIVE_NAME]


@pytest.mark.parametrize("options, words, requests", [
    (dict(blob=bytes(len(BLOB))), "another SHA-256", 3), (dict(blob=b"<html>log in</html>"), "gave 19 bytes", 1),
    (dict(blob=b"<html>log in</html>", chunked=True), "gave 19 bytes", 1),
    (dict(blob=BLOB + b"x", chunked=True), "more than", 1),
    (dict(blob=BLOB * 50), "more than", 1), (dict(status=404), "answered 404", 1), (dict(status=503), "answered 503", 3),
    (dict(cut=[9000] * 9), "broke, 3 times", 3), (dict(blob=BLOB[:-1]), "bytes, expected", 1)],
    ids=["other content", "page", "page, chunked", "too long", "much too long", "404", "503", "always cut", "too short"])
def test_wrong_answers_leave_nothing(target, options, words, requests):
    with server(**options) as (url, asked):
        message = refused(fetch, target, url, match=words)
    assert url.rsplit("/", 1)[0] in message or words == "more than"
    assert left_over(target) == [] and len(asked) == requests
    with server() as (url, _):                                               # and the next attempt finds nothing in its way
        fetch(target, url)
    assert target.read_bytes() == BLOB


def test_the_next_address_is_taken_where_one_fails(target):
    with server(status=404) as (wrong, _), server() as (right, _):
        fetch(target, wrong, "http://127.0.0.1:1/x", right)
    assert target.read_bytes() == BLOB
    target.unlink()
    with server(status=404) as (wrong, _):
        message = refused(fetch, target, wrong, "http://127.0.0.1:1/x", match="answered 404")
    assert "no connection to http://127.0.0.1:1/x" in message


def test_a_server_that_says_nothing_is_given_up(target, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        refused(fetch, target, f"http://127.0.0.1:{deaf.getsockname()[1]}/x", match="no answer from .* in 0.1 seconds")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://name.invalid/x", "no url", "http://[", ""])
def test_addresses_that_lead_nowhere(target, url):
    with pytest.raises(download.DownloadFailed) as caught:
        fetch(target, url)
    assert "\n" not in str(caught.value) and left_over(target) == []


def test_two_downloads_at_once(target):
    """The second waits for the first, as the processes of one run over MPI do, and then has nothing to fetch."""
    with server(pause=0.1) as (url, asked):
        processes = [fetching_process(url, target) for _ in range(2)]
        for process in processes:
            out, error = process.communicate(timeout=60)
            assert out.strip().endswith(ARCHIVE_NAME), error
    assert target.read_bytes() == BLOB and len(asked) == 1 and left_over(target) == [ARCHIVE_NAME]


FETCH = """
import resource, sys
from numpyvit.files import download
from numpyvit.files.atomic import size_of
from numpyvit.files.download import Remote, fetch
download.BLOCK = 4096                                                        # so that a part is in the file early
url, folder, size, sha256, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
print(fetch(Remote("cifar-10-binary.tar.gz", (url,), int(size), sha256), folder), flush=True)
"""


def fetching_process(url, target, limit=0):
    arguments = [url, target.parent, ARCHIVE.archive.size, ARCHIVE.archive.sha256, limit]
    return subprocess.Popen([sys.executable, "-c", FETCH, *map(str, arguments)], cwd=REPOSITORY, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})


def test_a_killed_download_leaves_no_broken_copy(target):
    """Killed in mid-file: only pooch's temporary is there, the archive is not; the next download removes it."""
    with server(pause=0.5) as (url, asked):                                  # four seconds in all
        process = fetching_process(url, target)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not any(
                name.startswith("tmp") and size_of(target.parent / name) for name in left_over(target)):
            time.sleep(0.01)
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert len(left_over(target)) == 1 and left_over(target)[0].startswith("tmp")
    refused(cifar10.load, records=with_remote(ARCHIVE, urls=("http://127.0.0.1:1/x",)), match="not available")
    with server() as (url, _):
        fetch(target, url)
    assert left_over(target) == [ARCHIVE_NAME] and target.read_bytes() == BLOB


def test_full_disk(target):
    """A limit on the size of files fails in the same call as a full disk."""
    pytest.importorskip("resource")
    with server() as (url, _):
        out, error = fetching_process(url, target, 40_000).communicate()
    assert "cannot be written (File too large)" in error and "XDG_CACHE_HOME" in error and not out.endswith(ARCHIVE_NAME)
    assert left_over(target) == []


def test_cache_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    refused(fetch, tmp_path / "file" / ARCHIVE_NAME, "http://127.0.0.1:1/x", match="XDG_CACHE_HOME")


def test_a_folder_in_the_place_of_the_file(target):
    target.mkdir(parents=True)
    with server() as (url, _):
        refused(fetch, target, url, match="cannot be written")


def test_load_downloads_reads_and_finds_it_the_next_time(target):
    with server() as (url, asked):
        archive = with_remote(ARCHIVE, urls=(url,))
        assert_is_content(cifar10.load(records=archive, progress=silent))
        assert_is_content(cifar10.load(records=archive, progress=silent))
        assert len(asked) == 1
        target.write_bytes(BLOB[:-1] + b"?")                                 # gone bad in the cache: fetched anew
        assert_is_content(cifar10.load(records=archive, progress=silent))
        assert len(asked) == 2 and target.read_bytes() == BLOB
        target.write_bytes(BLOB[:-1] + b"?")
        refused(cifar10.load, records=archive, download=False, match="SHA-256")
    message = refused(cifar10.load, records=archive, match="no connection")
    assert "SHA-256" in message                                              # and the damaged copy is named as well


def test_plain_lines_of_progress_where_there_is_no_terminal(target, capsys, monkeypatch):
    monkeypatch.setattr(download, "BLOCK", 1000)
    with server() as (url, _):
        download.fetch(replace(ARCHIVE.archive, urls=(url,)), target.parent)
    lines = capsys.readouterr().out.splitlines()
    assert 10 <= len(lines) <= 11 and all(line.startswith(f"downloading {ARCHIVE_NAME}: ") for line in lines)
    monkeypatch.setattr(sys, "stdout", None)                                 # a program without standard output
    target.unlink()
    with server() as (url, _):
        download.fetch(replace(ARCHIVE.archive, urls=(url,)), target.parent)


def test_a_bar_on_a_terminal(target, monkeypatch):
    """The bar of rich is drawn on a terminal, ends full, and gives the cursor back."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, server() as (url, _):
        monkeypatch.setattr(sys, "stdout", terminal)
        download.fetch(replace(ARCHIVE.archive, urls=(url,)), target.parent)
        terminal.flush()
        shown = b""
        while select.select([ours], [], [], 1)[0]:                           # a second without another byte is the end
            shown += os.read(ours, 1 << 16)
    os.close(ours)
    assert b"downloading" in shown and b"129.7/129.7 kB" in shown and shown.rindex(b"\x1b[?25h") > shown.rindex(b"kB")


# Loading, as people call it.

@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(cifar10, "CIFAR10", with_remote(ARCHIVE, urls=("http://127.0.0.1:1/x",)))


def test_auto_falls_back_to_shapes_and_says_so(offline):
    dataset = load("auto")
    assert dataset.name == "shapes" and "CIFAR-10" in dataset.notice and "shapes" in dataset.notice
    assert "\n" not in dataset.notice and "no connection to http://127.0.0.1" in dataset.notice
    assert load("auto", download=False).notice != "" == load("shapes").notice


def test_auto_takes_cifar10_where_it_is(offline, tmp_path):
    write_archive(tmp_path / "mine")
    assert_is_content(load("auto", tmp_path / "mine"))
    assert_is_content(load(data_dir=str(tmp_path / "mine")))


@pytest.mark.parametrize("download", [True, False])
def test_cifar10_that_cannot_be_had_names_three_ways_out(offline, download):
    message = refused(load, "cifar10", download=download)
    for way in ("with a network", "--data-dir or $NUMPYVIT_DATA", "--data shapes", ARCHIVE_NAME, "cifar-10-batches-bin"):
        assert way in message


@pytest.mark.parametrize("name", ["auto", "cifar10"])
def test_a_wrong_path_or_a_broken_copy_is_no_reason_to_fall_back(offline, name, tmp_path):
    refused(load, name, tmp_path / "typo", match="typo does not exist")
    (tmp_path / "page.html").write_text("")
    refused(load, name, tmp_path / "page.html", match="got the file")
    write_archive(tmp_path / "mine", BLOB[:-5])
    refused(load, name, tmp_path / "mine", match="truncated")
    refused(load, name, img_size=64, match="32")
    (tmp_path / "pictures" / "train" / "cat").mkdir(parents=True)
    refused(load, name, tmp_path / "pictures", match="--data folder")


def test_unknown_name():
    names = ", ".join(registry.TABLE)
    assert names in refused(load, "no such set", match="got 'no such set'")
    for wrong in ("cifar10:root", "", "Folder:x", None):
        refused(load, wrong, match="data set")
    refused(load, "folder", match="--data-dir")
    assert refused(load, "Mnits").endswith("did you mean mnist?")
    os.makedirs("own")
    assert refused(load, "own").endswith("give folder:own")
