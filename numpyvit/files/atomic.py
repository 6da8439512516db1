"""Every change a run makes on the disk, in a few functions: a crash at any instant leaves the old file or the new one.

    write a temporary file → fsync it → rename it over the old one → fsync the folder

Without the first fsync a power cut can leave the new name on a file of zeros; without the second, no new name at all.
Each function raises OSError with the path in it, whatever failed.
"""
import errno
import json
import os
import re
import secrets
import stat
from contextlib import contextmanager

from ..errors import UserError

try:
    import fcntl
except ImportError:                                                          # Windows: no lock between processes
    fcntl = None

PIECE = 1 << 26                                                              # bytes given to one write call


def write_atomic(path, buffers):
    """Replace the file at path by the concatenation of buffers (bytes, or one-dimensional uint8 arrays).

    The new file has the permissions of the old one. A device or a pipe is not replaced: the bytes go there. They
    also go to /dev/stdout and the other names of this process's open files, whatever kind of file that is.
    """
    write_together({path: buffers})


def write_together(contents):
    """Replace several files, {path: buffers}, as write_atomic does: all are written before the first one is renamed.

    So a full disk leaves all the old files; a kill between two of the renames leaves old files and new ones.
    """
    written = {}                                                             # path → temporary file
    try:
        for path, buffers in contents.items():
            with naming(path):
                opened, mode = descriptor_of(path), mode_of(path)
                if opened is not None or not (mode is None or stat.S_ISREG(mode)):
                    write_to(os.open(path, os.O_WRONLY) if opened is None else os.dup(opened), buffers)
                    continue
            path = os.path.realpath(path)                                    # a link keeps pointing to its file
            temporary = os.path.join(os.path.dirname(path), f".{secrets.token_hex(8)}.tmp")
            with naming(path, temporary):
                written[path] = temporary
                write_new(temporary, buffers, mode)
        for path, temporary in written.items():
            with naming(path, temporary):
                os.replace(temporary, path)
    except BaseException:
        for temporary in written.values():
            try:
                os.unlink(temporary)
            except OSError:                                                  # renamed; or remove_temporaries does it
                pass
        raise
    for folder in {os.path.dirname(path) for path in written}:
        with naming(folder):
            fsync_folder(folder)


def write_new(path, buffers, mode):
    """Write the buffers to a new file, and wait until the disk has them.   mode: its permissions, None for the usual"""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        if mode is not None:
            os.chmod(path, stat.S_IMODE(mode))
        for buffer in buffers:
            write_all(fd, buffer)
        os.fsync(fd)
    finally:
        os.close(fd)


def mode_of(path):
    """What stat says of the file's kind and permissions; None where there is none."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


def descriptor_of(path):
    """1 for /dev/stdout, N for /dev/fd/N and the like; None for the path of any other file."""
    path = {"/dev/stdout": "/dev/fd/1", "/dev/stderr": "/dev/fd/2"}.get(os.fspath(path), os.fspath(path))
    found = re.fullmatch(r"/(dev|proc/self)/fd/(\d+)", path)
    return found and int(found[2])


def write_to(fd, buffers):
    """Write the buffers to a device, a pipe or an open file, and close the descriptor."""
    try:
        for buffer in buffers:
            write_all(fd, buffer)
    finally:
        os.close(fd)


def append(path, data):
    """Add bytes at the end of the file, without waiting for the disk: sync_file does that when it has to last."""
    with naming(path):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            write_all(fd, data)
        finally:
            os.close(fd)


def sync_file(path):
    """Wait until what was appended to the file is on the disk. A file that is not there has nothing to wait for."""
    with naming(path):
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def truncate(path, size):
    """Cut the file to so many bytes, and wait until the disk has it."""
    with naming(path):
        fd = os.open(path, os.O_WRONLY)
        try:
            os.ftruncate(fd, size)
            os.fsync(fd)
        finally:
            os.close(fd)


def size_of(path):
    """Bytes in the file, 0 where there is none."""
    with naming(path):
        try:
            return os.stat(path).st_size
        except FileNotFoundError:
            return 0


def names_in(folder):
    """The names in the folder, sorted; none where there is no folder."""
    with naming(folder):
        try:
            return sorted(os.listdir(folder))
        except FileNotFoundError:
            return []


def make_folder(path):
    """The folder, with its parents where they are missing; fsynced, so that what is put into it can be found."""
    with naming(path):
        os.makedirs(path, exist_ok=True)
        fsync_folder(os.path.dirname(os.path.abspath(path)))


def make_new_folder(path):
    """As make_folder, for a folder that is not there yet.   →   whether it was made; False if it is there"""
    with naming(path):
        try:
            os.makedirs(path)
        except FileExistsError:
            return False
        fsync_folder(os.path.dirname(os.path.abspath(path)))
        return True


def remove(path):
    """Delete the file; a file that is not there is fine."""
    with naming(path):
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass


def remove_temporaries(folder):
    """Delete what write_atomic left in the folder when its process was killed."""
    for name in names_in(folder):
        if name.startswith(".") and name.endswith(".tmp"):
            remove(os.path.join(folder, name))


def write_all(fd, buffer):
    """Write the whole buffer, in pieces, however few bytes the system takes at once."""
    view = memoryview(buffer)
    while view:
        written = os.write(fd, view[:PIECE])                                 # may be fewer than asked for
        if written == 0:
            raise OSError(errno.EIO, "the system wrote nothing")
        view = view[written:]


def fsync_folder(folder):
    """Make the folder's entries durable, where the file system can."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):                 # a file system that has no such call
            raise
    finally:
        os.close(fd)


@contextmanager
def naming(path, temporary=None):
    """An OSError without a file's name (write, fsync), or with that of a temporary file, leaves with this one."""
    try:
        yield
    except OSError as error:
        if error.filename not in (None, temporary):
            raise
        named = OSError(error.errno, error.strerror or str(error), os.fspath(path))
        folder = os.path.dirname(os.path.abspath(path))
        if error.errno == errno.ENOENT and not os.path.isdir(folder):
            named.add_note(f"there is no folder {folder}")
        raise named from error


@contextmanager
def open_regular(path):
    """The file, open for reading, and its size: (file, bytes). A folder, pipe or device is a UserError at once."""
    with naming(path):
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            kind = "folder" if stat.S_ISDIR(status.st_mode) else "special file"
            raise UserError(f"{path}: expected a file, got a {kind}")
        with open(fd, "rb", closefd=False) as file:
            yield file, status.st_size
    finally:
        os.close(fd)


def read_small(path, limit=1 << 22):
    """The bytes of a file of at most limit bytes (a config, a line of metrics); a longer one is a UserError."""
    with open_regular(path) as (file, size):
        if size > limit:
            raise UserError(f"{path}: expected at most {limit} bytes, got {size}")
        return file.read(limit)


def read_json(path):
    """What a JSON file of at most 4 MiB holds. Raises UserError, with the path and the place."""
    try:
        return json.loads(read_small(path).decode())
    except UserError:
        raise
    except (ValueError, RecursionError) as error:                            # UnicodeDecodeError is a ValueError
        raise UserError(f"{path}: not JSON: {str(error)[:80]}") from None


@contextmanager
def locked(path, what, wait=False):
    """Hold the lock file for as long as the process lives or the block runs.

    Raises UserError if another process holds it, or waits for that process if asked to. The lock is the kernel's: one
    left by a dead process does not exist.
    """
    with naming(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if fcntl:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except (BlockingIOError, PermissionError) as error:
                holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
                raise UserError(f"{what} is in use by another process (id {holder}); wait for it, "
                                "or stop it") from error
            with naming(path):
                os.ftruncate(fd, 0)
                os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(fd)
