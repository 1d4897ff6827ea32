"""The members of a .tar of any origin, read in one pass and in bounded time.

    header  [ header of the next  records ]  header  content  …  zeros       blocks of 512 bytes

`tarfile` takes one header apart; what follows from it is decided here.  TarFile believes what a
header says: a negative size leads back to what was read before, or to all that is left, a map of
holes is read to its end, and a number of thousands of digits raises whatever int() does.  Here an
offset only grows, and nothing is larger than what is there.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from xlab.errors import UsageError

#: Headers that say more of the next member, or of all that follow (pax, GNU): of one, and of all.
_LONGEST_HEADER_BYTES, _MOST_HEADER_BYTES = 4 << 10, 128 << 10
_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_GNU = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
#: What its member is called, the first that is there; a sparse one has a made-up path beside it.
_NAMES = (b"GNU.sparse.name", b"path")


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    #: A file, without holes.
    regular: bool
    content: memoryview = field(repr=False)


def members(whole: bytes) -> Iterator[Member]:
    """In their order; tarfile.TarError or UsageError for what is no .tar.

    It ends, as `tarfile` does, at a block of zeros, or behind a member at what is no header.
    """
    start, together = 0, 0
    of_all: dict[bytes, bytes] = {}
    of_next: dict[bytes, bytes] = {}
    content = memoryview(whole)
    while header := _header(whole[start : start + tarfile.BLOCKSIZE], first=start == 0):
        start += tarfile.BLOCKSIZE
        extended = header.type in _PAX + _GNU
        said = of_all | of_next
        size = header.size if extended else _size(header, said)
        if extended:
            together += size
            if size > _LONGEST_HEADER_BYTES or together > _MOST_HEADER_BYTES:
                raise UsageError("a header in it is too long")
        if not 0 <= size <= len(whole) - start:
            raise tarfile.ReadError("a header promises more than there is")
        inner = content[start : start + size]
        start += -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        if header.type in _PAX:
            (of_all if header.type == tarfile.XGLTYPE else of_next).update(_records(bytes(inner)))
        elif header.type == tarfile.GNUTYPE_LONGNAME:
            of_next[b"path"] = bytes(inner).partition(b"\0")[0]
        elif not extended:
            of_next = {}
            yield Member(_name(header, said), _is_plain(header, said), inner)


def _header(block: bytes, *, first: bool) -> tarfile.TarInfo | None:
    """None at the end."""
    if block == bytes(tarfile.BLOCKSIZE):
        return None
    try:
        found = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        if first:
            raise
        return None
    if found.type == tarfile.GNUTYPE_SPARSE:
        # Its map goes on behind the header, as far as it says itself.
        raise UsageError("a file in it is sparse: pack it without --sparse")
    return found


def _size(header: tarfile.TarInfo, said: Mapping[bytes, bytes]) -> int:
    """Of the content that follows: a link or a folder has none, whatever its header says."""
    if not header.isreg() and header.type in tarfile.SUPPORTED_TYPES:
        return 0
    size = said.get(b"size")
    if size is None:
        return header.size
    if not size.isdigit() or len(size) > 20:
        raise tarfile.HeaderError("a size is no number")
    return int(size)


def _name(header: tarfile.TarInfo, said: Mapping[bytes, bytes]) -> str:
    name = next((said[key] for key in _NAMES if said.get(key)), None)
    return header.name if name is None else name.decode("utf-8", "surrogateescape")


def _is_plain(header: tarfile.TarInfo, said: Mapping[bytes, bytes]) -> bool:
    return header.isreg() and not any(key.startswith(b"GNU.sparse.") for key in said)


def _records(header: bytes) -> dict[bytes, bytes]:
    r"""Of a pax header (POSIX.1-2008, pax): "LENGTH KEYWORD=VALUE\n", the length that of all."""
    found = {}
    while header:
        digits = header[:6].partition(b" ")[0]
        record = header[: int(digits)] if digits.isdigit() else b""
        keyword, equals, value = record[len(digits) + 1 :].partition(b"=")
        if not equals or len(record) != int(digits) or not value.endswith(b"\n"):
            raise tarfile.HeaderError("a pax header has a record that is none")
        found[keyword] = value[:-1]
        header = header[len(record) :]
    return found
