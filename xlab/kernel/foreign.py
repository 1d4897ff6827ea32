"""Files that somebody else may have put there, as those in a lab, read and written by its pid 1.

They may be anything: a FIFO that nobody writes to, a link to /dev/zero, 20 GB of nothing, a link to
somebody's own files.  Paths are looked up where the calling thread is: in a node's own root, if it
has entered that (setns(2) moves a thread's root, too), so no link in it leads out.  Outside of labs
`below` sees to that.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from xlab.errors import XlabError
from xlab.kernel import syscalls

#: Of a file that a person writes.
LONGEST_BYTES = 1 << 16
#: A FIFO is opened at once, whoever writes to it, and a terminal becomes nobody's own.
_AT_ONCE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def read(
    path: Path,
    *,
    longest_bytes: int = LONGEST_BYTES,
    below: Path | None = None,
    place: int | None = None,
) -> bytes:
    """What is in a regular file, or one that links lead to; none that is not `below` a folder.

    `place` is that folder's descriptor, if it is held.

    Raises FileNotFoundError where there is none, XlabError for what is no such file, or a longer
    one, or cannot be read.
    """
    try:
        descriptor = os.open(path, _AT_ONCE) if below is None else _opened(path, below, place)
        with os.fdopen(descriptor, "rb", buffering=0) as opened:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise XlabError(f"{path}: not a regular file")
            found = bytearray()
            # What is in /proc has no size before it is read.
            while len(found) <= longest_bytes:
                data = opened.read(longest_bytes + 1 - len(found))
                if data is None:
                    raise XlabError(f"{path}: has no end")
                if not data:
                    return bytes(found)
                found += data
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise XlabError(f"{path}: {getattr(error, 'strerror', '') or error}") from error
    raise XlabError(f"{path}: longer than {longest_bytes:,} bytes")


def _opened(path: Path, below: Path, place: int | None) -> int:
    """Nothing outside of the folder is opened, not even to look at it."""
    try:
        inside = str(path.relative_to(below))
        how = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        folder = os.open(below, how) if place is None else os.dup(place)
        try:
            return syscalls.open_beneath(folder, inside, _AT_ONCE)
        finally:
            os.close(folder)
    except ValueError:
        pass
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    raise XlabError(f"{path}: not a file of {below}")


def text(path: Path, *, longest_bytes: int = LONGEST_BYTES) -> str:
    """The same as text."""
    return read(path, longest_bytes=longest_bytes).decode(errors="replace")


def put(path: Path, content: bytes) -> None:
    """A new file in the place of whatever is there, which nobody follows or opens; XlabError.

    A folder goes with all that is in it.
    """
    new = path.with_name(f".{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(new, flags, 0o644), "wb") as opened:
            opened.write(content)
        try:
            new.replace(path)
        except IsADirectoryError:
            remove(path)
            new.replace(path)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise XlabError(f"{path}: {error.strerror}") from error


def remove(folder: Path) -> None:
    """A folder with all that is in it, whatever is nested in what; raises OSError.

    Python's own (shutil.rmtree) calls itself for each level, with a descriptor each.  Here what a
    folder has in it moves up to the top before that folder goes.
    """
    top = os.open(folder, _FOLDER)
    try:
        left = os.listdir(top)  # noqa: PTH208 - a descriptor has no path
        while left:
            name = left.pop()
            if not _unlinked(name, top):
                left += _emptied(name, top)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    folder.rmdir()


def _unlinked(name: str, place: int) -> bool:
    """Whether it is gone: it was no folder."""
    try:
        os.unlink(name, dir_fd=place)
    except IsADirectoryError:
        return False
    return True


def _emptied(name: str, top: int) -> list[str]:
    """What the folders in this one are called now, in `top`; all else in it is gone."""
    place = os.open(name, _FOLDER, dir_fd=top)
    moved = []
    try:
        for each in os.listdir(place):  # noqa: PTH208 - a descriptor has no path
            if not _unlinked(each, place):
                moved.append(secrets.token_hex(8))
                os.rename(each, moved[-1], src_dir_fd=place, dst_dir_fd=top)
    finally:
        os.close(place)
    return moved


def files(folder: Path) -> Iterator[Path]:
    """All below that is no folder, links among it, whatever is nested in what.

    Folders that cannot be read are passed over, and what has a longer path than may be.
    """
    left = [str(folder)]
    while left:
        found = []
        with suppress(OSError), os.scandir(left.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found.append(entry.path)
                else:
                    yield Path(entry.path)
        left += reversed(found)
