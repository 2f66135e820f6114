"""Reading a wheel or an sdist whole, in memory, within limits; what is odd about the archive itself is a fault.

An archive must be exactly its files: no path that leaves it, no link, no name twice, no byte that belongs to none of
them. Two programs that unpack it then see the same thing.
"""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib

from waitbus.verify.report import NO_DATA, Unusable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Tenfold what a release needs, and nothing that a machine would feel.
MAX_PACKED = 8 << 20
MAX_UNPACKED = 32 << 20
MAX_ENTRIES = 5000

_LOCAL = struct.Struct("<4s5H3I2H")
_END = struct.Struct("<4s4H2IH")
_DESCRIPTOR = 0x08
_ENCRYPTED = 0x01


class Contents:
    """The files of an archive by name, in its order, and what is wrong with the archive."""

    __slots__ = ("faults", "files")

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: list[str] = []


def read_wheel(data: bytes) -> Contents:
    """The files of a wheel. Raises `Unusable` when `data` is no ZIP archive at all."""
    contents = Contents()
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise Unusable(NO_DATA, f"it is no ZIP archive ({error}): download it again") from None
    with archive:
        entries = archive.infolist()
        if len(entries) > MAX_ENTRIES:
            contents.faults.append(f"it holds {len(entries)} files, more than {MAX_ENTRIES}")
            return contents
        contents.faults += _name_faults(entry.orig_filename for entry in entries)
        contents.faults += _layout_faults(data, entries)
        room = MAX_UNPACKED
        for entry in entries:
            if fault := _entry_fault(entry, room):
                contents.faults.append(f"{entry.orig_filename!r} {fault}")
                continue
            try:
                body = archive.read(entry)
            except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError) as error:
                contents.faults.append(f"{entry.orig_filename!r} cannot be read: {error}")
                continue
            room -= len(body)
            contents.files.setdefault(entry.orig_filename, body)
    return contents


def _entry_fault(entry: zipfile.ZipInfo, room: int) -> str | None:
    """Why an entry of a wheel is not even read."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG) or entry.is_dir():
        return "is not a plain file"
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is packed by method {entry.compress_type}, which no release uses"
    if entry.file_size > room:
        return f"unpacks to more than {MAX_UNPACKED >> 20} MiB"
    return None


def _layout_faults(data: bytes, entries: list[zipfile.ZipInfo]) -> Iterator[str]:
    """Bytes that belong to no entry, or to two: where unpackers begin to disagree."""
    signature, _, _, _, count, size, start, comment = _END.unpack(data[-_END.size :])
    if signature != b"PK\x05\x06" or comment or start + size + _END.size != len(data) or count != len(entries):
        yield "its directory is not the last thing in it"
        return
    expected = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        head = data[expected : expected + _LOCAL.size]
        if entry.header_offset != expected or len(head) < _LOCAL.size:
            yield f"{entry.orig_filename!r} does not begin where the file before it ends"
            return
        _, _, flags, _, _, _, _, _, _, name_length, extra_length = _LOCAL.unpack(head)
        if flags & _DESCRIPTOR or extra_length or entry.extra or entry.comment:
            yield f"{entry.orig_filename!r} carries more than its content"
            return
        expected += _LOCAL.size + name_length + entry.compress_size
    if expected != start:
        yield "it holds bytes that belong to no file"


def read_sdist(data: bytes) -> Contents:
    """The files of an sdist; directories are passed over. Raises `Unusable` when `data` is no .tar.gz at all."""
    contents = Contents()
    raw = _gunzip(data, contents)
    if raw is None:
        return contents
    names: list[str] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:", errorlevel=2) as archive:
            for member in archive:
                if len(names) >= MAX_ENTRIES:
                    contents.faults.append(f"it holds more than {MAX_ENTRIES} files")
                    return contents
                names.append(member.name)
                if member.type == tarfile.DIRTYPE:
                    continue
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
                    contents.faults.append(f"{member.name!r} is not a plain file")
                    continue
                body = archive.extractfile(member)
                contents.files.setdefault(member.name, body.read() if body is not None else b"")
            if raw[archive.offset :].strip(b"\0"):
                contents.faults.append("something lies behind its end")
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        if not names:
            raise Unusable(NO_DATA, f"it is no tar archive ({error}): download it again") from None
        contents.faults.append(f"it cannot be read to its end: {error}")
    contents.faults += _name_faults(names)
    return contents


def _gunzip(data: bytes, contents: Contents) -> bytes | None:
    """The one gzip stream that `data` must be; None with a fault when it is not, or is too large."""
    if data[:2] != b"\x1f\x8b":
        raise Unusable(NO_DATA, "it is no gzip file: download it again")
    unpack = zlib.decompressobj(wbits=31)
    try:
        raw = unpack.decompress(data, MAX_UNPACKED + 1)
    except zlib.error as error:
        contents.faults.append(f"it cannot be unpacked: {error}")
        return None
    if len(raw) > MAX_UNPACKED:
        contents.faults.append(f"it unpacks to more than {MAX_UNPACKED >> 20} MiB")
        return None
    if not unpack.eof:
        contents.faults.append("its end is missing")
    if unpack.unused_data:
        contents.faults.append("something lies behind the gzip stream")
    return raw


def _name_faults(names: Iterable[str]) -> Iterator[str]:
    """Paths that leave the archive, and names that are one file on some disk."""
    seen: dict[str, str] = {}
    for name in names:
        if not is_plain(name):
            yield f"{name!r} is no path inside the archive"
        key = unicodedata.normalize("NFC", name).casefold()
        if key in seen:
            yield f"{name!r} is there twice" + (f", once as {seen[key]!r}" if seen[key] != name else "")
        seen[key] = name


def is_plain(name: str) -> bool:
    """Whether `name` is a relative path of printable words: no ``..``, no root, no drive, no backslash."""
    return (
        name.isprintable()
        and not set(name) & set('\\:"')
        and all(part not in ("", ".", "..") for part in name.split("/"))
    )
