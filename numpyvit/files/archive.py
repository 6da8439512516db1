"""zip archives, the container of .npz and .pth files, with every claim checked before memory is taken for it.

    [local header · name · data] … · central directory · end record

The directory is read first and held against the file: members lie inside it, do not overlap, and claim together no
more than ROOM bytes above the file's size once they are decompressed. Reading a member compares it with its CRC-32.
"""
import math
import struct
import zlib
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from ..errors import UserError
from .atomic import open_regular, write_atomic

END, END64, LOCATOR64, ENTRY, LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
MAX_DIRECTORY = 1 << 21                                                      # bytes: some 20,000 members
ROOM = 1 << 25                                                               # bytes that decompression may add
STORED, DEFLATED = 0, 8
FULL = 2**32 - 1                                                             # "see the 64-bit field"


class Member(NamedTuple):
    """Where a member's data stand in the file, and what the directory says about the member."""
    start: int
    packed: int
    size: int
    method: int
    crc: int


class Archive:
    """An open zip file.   members: {name: Member}, in the directory's order.   fail(reason) raises the UserError."""

    def __init__(self, file, size, fail):
        self.file, self.fail = file, fail
        self.members = read_directory(file, size, fail)

    def read(self, name):
        """The bytes of a member, decompressed, as a bytearray. UserError if the directory promises others."""
        member = self.members[name]
        self.file.seek(member.start)
        data = bytearray(member.size)
        if member.method == STORED:
            complete = self.file.readinto(data) == member.size
        else:
            complete = inflate(self.file, member, data, lambda reason: self.fail(f"{name[:80]!r}: {reason}"))
        if not complete:
            self.fail(f"{name[:80]!r} is shorter than its {member.size} bytes")
        if zlib.crc32(data) != member.crc:
            self.fail(f"the checksum of {name[:80]!r} does not fit its content, which was changed later")
        return data


@contextmanager
def open_archive(path, what):
    """The zip file at path as an Archive; what: the kind of file that messages speak of ("torch", "npz")."""
    def fail(reason):
        raise UserError(f"{path}: not a usable {what} file: {reason}")

    with open_regular(path) as (file, size):
        yield Archive(file, size, fail)


def inflate(file, member, data, fail):
    """Decompress a member into data, which has the size that it claims.   →   whether the sizes fit"""
    unpacker, filled, left = zlib.decompressobj(-15), 0, member.packed
    try:
        while left and filled < len(data) and not unpacker.eof:
            piece = file.read(min(left, 1 << 20))
            left -= len(piece)
            if not piece:
                return False
            while piece and filled < len(data):
                out = unpacker.decompress(piece, min(len(data) - filled, 1 << 20))
                data[filled:filled + len(out)] = out
                filled, piece = filled + len(out), unpacker.unconsumed_tail
    except zlib.error as error:
        fail(f"it cannot be decompressed ({error})")
    return filled == len(data)


# --- the directory

def read_directory(file, size, fail):
    """{name: Member} of an open zip file of so many bytes."""
    count, length, start = read_end(file, size, fail)
    if length > MAX_DIRECTORY or start + length > size:
        fail(f"a directory of {length} bytes at byte {start} of {size}; at most {MAX_DIRECTORY} bytes are read")
    file.seek(start)
    directory, at, members, spans = file.read(length), 0, {}, []
    for _ in range(count):
        entry = directory[at:at + 46]
        if len(entry) < 46 or entry[:4] != ENTRY:
            fail(f"its directory ends after {len(members)} of {count} members")
        flags, method, crc, packed, unpacked, name_length, extra_length, comment_length, header = unpack_entry(entry)
        raw_name = directory[at + 46:at + 46 + name_length]
        extra = directory[at + 46 + name_length:at + 46 + name_length + extra_length]
        at += 46 + name_length + extra_length + comment_length
        unpacked, packed, header = wide_sizes(extra, (unpacked, packed, header))
        name = decode_name(raw_name, fail)
        if name in members:
            fail(f"{name[:80]!r} occurs twice")
        if flags & 1 or method not in (STORED, DEFLATED):
            how = "encrypted" if flags & 1 else f"compressed by method {method}"
            fail(f"{name[:80]!r} is {how}; stored and deflated members are read")
        data = find_data(file, size, header, raw_name, fail)
        if data + packed > start or (method == STORED and packed != unpacked):
            fail(f"{name[:80]!r} claims {packed} bytes from byte {data}, which are not there")
        members[name] = Member(data, packed, unpacked, method, crc)
        spans.append((header, data + packed))
    spans.sort()
    if any(end > following for (_, end), (following, _) in zip(spans, spans[1:])):
        fail("its members overlap")
    total = sum(member.size for member in members.values())
    if total > size + ROOM:
        fail(f"its members claim {total} bytes, the file has {size}")
    return members


def unpack_entry(entry):
    """46 bytes   →   flags, method, crc, packed, unpacked, lengths of name, extra and comment, place of its header"""
    fields = struct.unpack("<6H3I5H2I", entry[4:])
    _, _, flags, method, _, _, crc, packed, unpacked, name, extra, comment, _, _, _, header = fields
    return flags, method, crc, packed, unpacked, name, extra, comment, header


def read_end(file, size, fail):
    """Of the end record, which stands last but for a comment: (members, bytes of the directory, its place)."""
    file.seek(max(0, size - 65557))                                          # 22 bytes and the longest comment
    tail = file.read(65557)
    at = tail.rfind(END)
    if at < 0 or len(tail) - at < 22:
        fail("no end of a zip archive; it was cut off, or is another kind of file")
    count, length, start = struct.unpack("<H2I", tail[at + 10:at + 20])
    locator = tail[max(0, at - 20):at]
    if FULL in (length, start) or count == 0xFFFF:
        if locator[:4] != LOCATOR64 or len(locator) < 20:
            fail("the record of its 64-bit sizes is missing")
        place = int.from_bytes(locator[8:16], "little")
        if place + 56 > size:
            fail("the record of its 64-bit sizes is not there")
        file.seek(place)
        record = file.read(56)
        if record[:4] != END64 or len(record) < 56:
            fail("the record of its 64-bit sizes is not there")
        count, length, start = struct.unpack("<3Q", record[32:56])
    if count > length // 46:
        fail(f"{count} members in a directory of {length} bytes")
    return count, length, start


def wide_sizes(extra, sizes):
    """The sizes that do not fit 32 bits stand in an extra field, in the same order."""
    at, wide = 0, b""
    while at + 4 <= len(extra):
        kind, length = struct.unpack("<2H", extra[at:at + 4])
        wide = extra[at + 4:at + 4 + length] if kind == 1 else wide
        at += 4 + length
    fields = [int.from_bytes(wide[i:i + 8], "little") for i in range(0, len(wide) - 7, 8)]
    return tuple(fields.pop(0) if value == FULL and fields else value for value in sizes)


def find_data(file, size, header, raw_name, fail):
    """Where the data begin behind the local header at byte `header`, which has to bear the same name."""
    if header + 30 > size:
        fail(f"a member at byte {header} of {size}")
    file.seek(header)
    local = file.read(30 + len(raw_name))
    if len(local) < 30 or local[:4] != LOCAL or local[30:] != raw_name:
        fail(f"no member of the name {raw_name[:80]!r} at byte {header}, where its directory has it")
    name_length, extra_length = struct.unpack("<2H", local[26:30])
    return header + 30 + name_length + extra_length


def decode_name(raw, fail):
    """The name of a member as text; it has to be UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return fail(f"the name {raw[:80]!r} is not UTF-8")


# --- writing

def write_archive(path, members, align=64):
    """Write {name: one-dimensional uint8 array or bytes} atomically, uncompressed, each at a multiple of `align` bytes.

    Raises OSError, and leaves the old file, if anything fails; UserError above 4 GiB, which would need 64-bit sizes.
    """
    buffers, directory, at = [], [], 0
    for name, data in members.items():
        raw, size, crc = name.encode(), len(data), zlib.crc32(data)
        padding = -(at + 30 + len(raw) + 4) % align
        claimed = min(size, FULL)
        fields = struct.pack("<5H3I", 20, 0x800, STORED, 0, 33, crc, claimed, claimed)          # UTF-8; 1 January 1980
        extra = struct.pack("<2H", 0x4246, padding) + b"\0" * padding        # an extra field of padding
        local = LOCAL + fields + struct.pack("<2H", len(raw), len(extra)) + raw + extra
        rest = struct.pack("<5H2I", len(raw), 0, 0, 0, 0, 0, min(at, FULL))
        directory.append(ENTRY + struct.pack("<H", 20) + fields + rest + raw)
        buffers += [local, data]
        at += len(local) + size
    if at >= FULL:
        raise UserError(f"{path}: {math.ceil(at / 2**30)} GiB do not fit this kind of file; use a .safetensors file")
    listing = b"".join(directory)
    end = END + struct.pack("<4H2IH", 0, 0, len(members), len(members), len(listing), at, 0)
    write_atomic(path, [*buffers, listing, end])


def flat_bytes(array):
    """An array's values as a one-dimensional uint8 array, copied only where they are not contiguous already."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
