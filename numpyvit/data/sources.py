"""Where the files of a published data set come from: a folder of the user's, the cache, or the network.

A data set's own page says what is published (a Source) and how a folder of it is read; this page finds the folder.
"""
import hashlib
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..files.atomic import open_regular
from ..files.download import DownloadFailed, Remote, fetch

BLOCK = 1 << 18


@dataclass(frozen=True)
class Source:
    """What a data set is published as, and what else of it is read.

    name       the data set's name, and its folder in the cache
    title      its name in a message
    remotes    the published files
    unpacked   names of the files inside them, which are read as well
    folders    names of folders that either kind usually lies in
    unread     names of files with the same images in a form that is not read
    """
    name: str
    title: str
    remotes: tuple[Remote, ...]
    unpacked: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def files(self):
        return " and ".join(remote.name for remote in self.remotes)


class NotAvailable(UserError):
    """There is no copy of the data set and none could be fetched; `reason` says why, in a few words."""

    def __init__(self, reason, source):
        self.reason, self.title = " ".join(str(reason).split()), source.title
        unpacked = f" or the unpacked folder {source.folders[0]}" if source.unpacked and source.folders else ""
        super().__init__(f"{source.title} is not available: {self.reason}. Three ways out: (1) run once with a "
                         f"network, to download it; (2) put {source.files}{unpacked} under --data-dir or "
                         "$NUMPYVIT_DATA; (3) use --data shapes, which needs no files")


def load_from(source, read, data_dir=None, download=True, progress=None):
    """read(path) of the first place that has the data set; where there is none, of the cache after a download.

    path is a folder, or the published file itself. Raises NotAvailable if there is no copy to be had, and UserError if
    the copy that was found is broken. A broken or incomplete copy in the cache is fetched anew.
    """
    check_data_dir(source, data_dir)
    places, broken = search_places(data_dir), ""
    for place in places:
        found = find(place, source)
        if found is None:
            continue
        try:
            return read(found)
        except UserError as error:
            if not download or place != cache_dir():
                raise
            broken = f" ({error})"
    if data_dir is not None and (Path(data_dir) / "train").is_dir():
        raise UserError(f"{data_dir}: expected {source.files}, found train/; for a folder of images use --data folder:"
                        f"{data_dir}")
    looked = "no whole copy in " + ", ".join(map(str, places)) + broken
    looked += "".join(f" ({place / name} is another version, which is not read)"
                      for place in places for name in source.unread if (place / name).exists())
    if not download:
        raise NotAvailable(f"{looked}, and downloading is switched off", source)
    folder = cache_dir() / source.name
    try:
        for remote in source.remotes:
            fetch(remote, folder, progress)
    except DownloadFailed as error:
        raise NotAvailable(f"{looked}; {error.reason}", source) from error
    return read(folder)


def check_data_dir(source, data_dir):
    """Raise UserError for a --data-dir that is not there, or is a file and none that is published."""
    if data_dir is None or Path(data_dir).is_dir():
        return
    if not Path(data_dir).exists():
        raise UserError(f"data directory: {data_dir} does not exist; give the directory that has {source.files}")
    if is_archive(Path(data_dir), source):
        return
    raise UserError(f"data directory: expected a directory or {source.files}, got the file {data_dir}")


def cache_dir():
    """$XDG_CACHE_HOME/numpyvit, or ~/.cache/numpyvit"""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~"), ".cache")) / "numpyvit"


def search_places(data_dir=None):
    """Where a copy is looked for, in order: data_dir, $NUMPYVIT_DATA, ./data and the cache."""
    named = [data_dir, os.environ.get("NUMPYVIT_DATA"), "data"]
    return [Path(place).expanduser() for place in named if place] + [cache_dir()]


def find(place, source):
    """The folder that has the files, or the path itself if it is the published file; None if neither is there.

    Unpacked files come first: they need no decompression. One of the files is enough for the folder to be taken, so
    that a missing file is an error and not a silent search elsewhere.
    """
    try:
        if place.is_file():
            return place if is_archive(place, source) else None
        folders = [*(place / name for name in (*source.folders, source.name)), place]
        for names in (source.unpacked, [remote.name for remote in source.remotes]):
            for folder in folders:
                if any((folder / name).exists() or (folder / name).is_symlink() for name in names):
                    return folder
    except OSError as error:
        raise UserError(f"{place}: cannot be looked into ({why(error)}); check its permissions") from error
    return None


def is_archive(path, source):
    """Whether the file's name is that of the one published archive; a copy may have another stem."""
    return len(source.remotes) == 1 and path.name.endswith(".tar.gz") and path.is_file()


@contextmanager
def reading(path):
    """The file, open for reading, and its size: (file, bytes). An OSError becomes a UserError that says what to do."""
    try:
        with open_regular(path) as (file, size):
            yield file, size
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({why(error)}); check that it exists and its permissions") from error


@contextmanager
def verified(path, remote):
    """The file, open at its beginning, after its size and its SHA-256 have been compared with the published ones."""
    anew = f"delete it to have it downloaded again, or get {remote.name} anew"
    with reading(path) as (file, size):
        if size != remote.size:
            kind = "it is truncated" if size < remote.size else "it is another file"
            raise UserError(f"{path}: expected {remote.size:,} bytes, got {size:,}; {kind}: {anew}")
        digest = hashlib.sha256()
        while block := file.read(BLOCK):
            digest.update(block)
        if digest.hexdigest() != remote.sha256:
            raise UserError(f"{path}: expected SHA-256 {remote.sha256}, got {digest.hexdigest()}; it is damaged or "
                            f"another file: {anew}")
        file.seek(0)
        yield file


def why(error):
    """An exception in a few words, on one line."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) if text else type(error).__name__
