"""A published file is fetched by pooch, checked by its SHA-256, and appears in its folder only when it is whole.

pooch downloads to a temporary file beside the target and renames it when the hash is right. This page adds what pooch
leaves to its user: one process at a time, a limit on the bytes, fsync before the rename, and a display.
"""
import os
import sys
from dataclasses import dataclass

from ..errors import UserError
from . import atomic

RETRIES = 2                                                                  # attempts after a connection broke
TIMEOUT = 10                                                                 # seconds without an answer or without data
BLOCK = 1 << 18                                                              # bytes asked for at a time


@dataclass(frozen=True)
class Remote:
    """A published file: its name, its addresses (the first that works is taken), its bytes, its SHA-256."""
    name: str
    urls: tuple[str, ...]
    size: int
    sha256: str


class DownloadFailed(UserError):
    """The file could not be fetched; `reason` says why in a few words. Nothing of the attempt is left."""

    def __init__(self, reason):
        self.reason = reason
        super().__init__(reason)


class Hopeless(Exception):
    """A second attempt at the same address would fail alike. pooch tries again after a ValueError, not after this."""


def fetch(remote, folder, progress=None):
    """Download remote to folder/remote.name, unless a file with its SHA-256 is already there.   → path

    progress   progress(bytes_done, bytes_total) instead of the display on standard output
    Another process that downloads to the same folder is waited for. Raises DownloadFailed (no connection, other
    content) and UserError (the disk).
    """
    path, failures = os.path.join(folder, remote.name), []
    show = progress or Display(f"downloading {remote.name}")
    try:
        atomic.make_folder(folder)
        with atomic.locked(os.path.join(folder, ".lock"), f"the download folder {folder}", wait=True):
            for name in atomic.names_in(folder):
                if name.startswith("tmp"):                                   # a download that was killed left this file
                    atomic.remove(os.path.join(folder, name))
            for url in remote.urls:
                try:
                    retrieve(url, remote, folder, show)
                    atomic.fsync_folder(folder)
                    return path
                except DownloadFailed as error:
                    failures.append(error.reason)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); make room there, or set "
                        "XDG_CACHE_HOME to another folder") from error
    finally:
        if progress is None:
            show.close()
    raise DownloadFailed("; ".join(failures))


def retrieve(url, remote, folder, show):
    """pooch's part, for one address. Raises DownloadFailed for the network's failures and OSError for the disk's."""
    import pooch
    import requests
    over_http = pooch.HTTPDownloader(chunk_size=BLOCK, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"})

    def download(url, path, _):
        with open(path, "wb") as file:
            counted = Counted(file, remote.size, show)
            try:
                over_http(url, counted, None)
            except requests.HTTPError as error:
                if error.response.status_code < 500:
                    raise Hopeless(reason(error, url)) from error
                raise
            except requests.RequestException as error:
                if not counted.done and not isinstance(error, requests.exceptions.ChunkedEncodingError):
                    raise Hopeless(reason(error, url)) from error
                raise
            if counted.done != remote.size:
                raise Hopeless(f"{url} gave {counted.done:,} bytes, expected {remote.size:,}")
            file.flush()
            os.fsync(file.fileno())

    pooch.get_logger().setLevel("WARNING")                                   # its own lines about each download
    registry = pooch.create(folder, "", registry={remote.name: f"sha256:{remote.sha256}"}, urls={remote.name: url},
                            retry_if_failed=RETRIES)
    try:
        registry.fetch(remote.name, downloader=download)
    except Hopeless as error:
        raise DownloadFailed(str(error)) from error
    except requests.RequestException as error:
        raise DownloadFailed(reason(error, url)) from error
    except ValueError as error:
        raise DownloadFailed(f"{url} gave a file of another SHA-256 than the expected {remote.sha256}") from error


class Counted:
    """A file that counts what is written, shows the count, and takes no byte more than the expected size."""

    def __init__(self, file, size, show):
        self.file, self.size, self.show, self.done = file, size, show, 0

    def write(self, block):
        self.done += len(block)
        if self.done > self.size:
            raise Hopeless(f"the address gave more than the expected {self.size:,} bytes")
        self.file.write(block)
        self.show(self.done, self.size)

    def flush(self):
        """pooch flushes after each block; the file is flushed once, at its end."""


def reason(error, url):
    """An exception of requests in a few words."""
    import requests
    if isinstance(error, requests.HTTPError):
        return f"{url} answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return f"no answer from {url} in {TIMEOUT} seconds"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return f"the connection to {url} broke, {1 + RETRIES} times"
    if isinstance(error, requests.ConnectionError):
        return f"no connection to {url}"
    return f"{url} could not be downloaded ({' '.join(str(error).split())})"


class Display:
    """A progress bar on a terminal; on anything else a plain line every tenth of the way."""

    def __init__(self, what):
        self.what, self.bar, self.task, self.told = what, None, None, -1

    def __call__(self, done, total):
        if sys.stdout is None:
            return
        if sys.stdout.isatty():
            if self.bar is None:
                from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
                columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
                self.bar = Progress(*columns)
                self.bar.start()
                self.task = self.bar.add_task(self.what, total=total)
            self.bar.update(self.task, completed=done)
        elif 10 * done // total != self.told:
            self.told = 10 * done // total
            print(f"{self.what}: {done / 1e6:.1f} of {total / 1e6:.1f} MB", flush=True)

    def close(self):
        """Give the terminal back."""
        if self.bar is not None:
            self.bar.stop()
