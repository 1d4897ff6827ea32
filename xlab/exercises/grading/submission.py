"""What a student hands in: scripts by host and answers, the form of an exercise's solution/.

    anna-05-share-out-a-subnet.tar.gz     or a .zip, a .tar, a folder with the same files
        05-share-out-a-subnet/
            submission.yaml      whose, and of which exercise: said, not believed
            h1.sh  h2.sh         parts divided by lines `# part N`, carried out in their order
            answers.yaml

Anybody may have made it.  Only these files are read, into memory, each of them and all together up
to a limit; nothing is unpacked to a disk, and no name in it is ever opened.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from xlab.errors import UsageError, quoted
from xlab.exercises import answers, beginning, document
from xlab.exercises.exercise import is_name, parts
from xlab.exercises.grading import tarball
from xlab.exercises.model import Exercise, Solution

MANIFEST = "submission.yaml"
#: An argument of a program has at most 128 KiB (MAX_ARG_STRLEN), and each part becomes one.
_LONGEST_BYTES = 100 << 10
_MOST_BYTES = 1 << 20
#: Of all scripts: each starts a shell, and is told in the grade.
_MOST_PARTS = 1000
#: What else is in an archive is passed over, but not without end.
_MOST_MEMBERS, _MOST_PACKED_BYTES, _MOST_UNPACKED_BYTES = 200, 4 << 20, 16 << 20
_SCRIPT = re.compile(r"h[1-9][0-9]?\.sh")
#: What the standard library raises of what is none.
_NO_ARCHIVE = (
    tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError,
    NotImplementedError, RuntimeError, ValueError, OverflowError,
)  # fmt: skip
#: Of a link the kernel says that it is one; a pipe is opened, not waited at.
_NO_LINK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: LZMA may ask for 4 GiB to unpack some hundred bytes.
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")


@dataclass(frozen=True, slots=True)
class Submission:
    #: By host.
    scripts: Mapping[str, str] = field(repr=False)
    answers: str = field(repr=False)
    #: What it says of itself; "" for nothing.
    student: str = ""
    exercise: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of what is carried out and judged."""
        summed = hashlib.sha256()
        for name, text in (*sorted(self.scripts.items()), ("answers", self.answers)):
            summed.update(f"{name}\0{len(text)}\0{text}\0".encode())
        return summed.hexdigest()

    def given(self) -> dict[str, Any]:
        """The answers; UsageError, which names the line, for what are none."""
        found = document.parse(self.answers, Path(answers.NAME))
        return answers.of_document(found)

    def files(self) -> dict[str, bytes]:
        said = f"student: {_quoted(self.student)}\nexercise: {_quoted(self.exercise)}\n"
        texts = {f"{host}.sh": text for host, text in self.scripts.items()}
        texts |= {answers.NAME: self.answers, MANIFEST: said}
        return {name: text.encode() for name, text in sorted(texts.items())}


def of_solution(found: Exercise, solution: Solution) -> Submission:
    """What somebody hands in who has typed just that, and knows all answers."""
    scripts = {host: "".join(f"# part {number}\n{text}" for number, text in by_task.items())
               for host, by_task in solution.scripts.items()}  # fmt: skip
    sheet = answers.sheet(found, beginning.right_answers(solution))
    return Submission(scripts, sheet, found.student, found.name)


def is_one(path: Path) -> bool:
    """Whether it looks like one: an archive, or a folder with a script or answers in it."""
    try:
        if path.is_dir():
            return any(_is_wanted(entry.name) for entry in path.iterdir())
    except OSError:  # closed by its student: reading it says so
        return True
    return path.name.endswith(_ARCHIVES)


def stem(path: Path) -> str:
    """The name without what says how it is packed."""
    for ending in _ARCHIVES:
        if path.name.endswith(ending):
            return path.name.removesuffix(ending)
    return path.name


def read(path: Path, *, collected: Path | None = None) -> Submission:
    """UsageError, in words for the student, for what can't be one.

    No link is followed below `collected` (the folder it is in, if not said), and each folder is
    held: whoever owns one may have made a link of it since `names` looked.
    """
    top = collected or path.parent
    try:
        with ExitStack() as held:
            found = held.enter_context(_opened(str(top), flags=os.O_PATH | os.O_CLOEXEC))
            for name in path.relative_to(top).parts:
                found = held.enter_context(_opened(name, found, called="it"))
            if stat.S_ISDIR(os.fstat(found).st_mode):
                return _made(_of_folder(found))
            packed = held.enter_context(_regular(found, path.name))
            if os.fstat(found).st_size > _MOST_PACKED_BYTES:
                raise UsageError(f"it is larger than {_MOST_PACKED_BYTES >> 20} MiB")
            return _made(_of_zip(packed) if path.name.endswith(".zip") else _of_tar(packed))
    except _NO_ARCHIVE as error:
        raise UsageError(f"it is no archive that can be read: {error}") from error
    except OSError as error:
        raise UsageError(f"it can't be read: {error.strerror or error}") from error


def pack(given: Submission) -> bytes:
    """A .tar.gz; the same bytes for the same submission."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as squeezed,
        tarfile.open(fileobj=squeezed, mode="w") as archive,
    ):
        for name, content in given.files().items():
            member = tarfile.TarInfo(f"{given.exercise or 'submission'}/{name}")
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _made(found: Mapping[str, bytes]) -> Submission:
    if sum(map(len, found.values())) > _MOST_BYTES:
        raise UsageError(f"its files have more than {_MOST_BYTES >> 20} MiB together")
    texts = {}
    for name, content in found.items():
        try:
            texts[name] = content.decode()
        except UnicodeDecodeError:
            raise UsageError(f"{name} is no UTF-8") from None
        if "\0" in texts[name]:
            raise UsageError(f"{name} is no text: there is a NUL in it")
    scripts = {PurePosixPath(name).stem: text for name, text in sorted(texts.items())
               if _SCRIPT.fullmatch(name)}  # fmt: skip
    if not scripts and answers.NAME not in texts:
        raise UsageError(f"there is no script of a host (h1.sh) in it, and no {answers.NAME}")
    if sum(len(parts(text)) for text in scripts.values()) > _MOST_PARTS:
        raise UsageError(f"its scripts have more than {_MOST_PARTS} parts together")
    said: Any = document.parse(texts.get(MANIFEST, ""), Path(MANIFEST)).value or {}
    if not isinstance(said, dict):
        raise UsageError(f"{MANIFEST} does not say whose it is")
    exercise = str(said.get("exercise", ""))
    return Submission(
        scripts,
        texts.get(answers.NAME, ""),
        student=str(said.get("student", ""))[:200],
        exercise=exercise if is_name(exercise) else "",
    )


def _of_folder(folder: int) -> dict[str, bytes]:
    found = {}
    for name in sorted(os.listdir(folder)):
        if _is_wanted(name):
            with _opened(name, folder) as file, _regular(file, name) as opened:
                found[name] = _limited(opened, name)
    return found


@contextmanager
def _opened(
    name: str, place: int | None = None, *, called: str = "", flags: int = _NO_LINK
) -> Iterator[int]:
    """A descriptor of what has this name in a folder that is held (openat(2))."""
    try:
        descriptor = os.open(name, flags, dir_fd=place)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UsageError(f"{called or name} is a link, to what may be somebody else's") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _regular(descriptor: int, name: str) -> IO[bytes]:
    """To read a file that is one, no pipe and no device; the descriptor stays the caller's."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise UsageError(f"{name} is no regular file")
    return os.fdopen(descriptor, "rb", closefd=False)


def _limited(opened: IO[bytes], name: str) -> bytes:
    content = opened.read(_LONGEST_BYTES + 1)
    if len(content) > _LONGEST_BYTES:
        raise UsageError(f"{name} is longer than {_LONGEST_BYTES >> 10} KiB")
    return content


def _of_tar(packed: IO[bytes]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    squeezed = packed.read(2) == b"\x1f\x8b"
    packed.seek(0)
    # Unpacked once, as much as it may be.
    plain = gzip.GzipFile(fileobj=packed) if squeezed else packed
    whole = plain.read(_MOST_UNPACKED_BYTES + 1)
    if len(whole) > _MOST_UNPACKED_BYTES:
        raise UsageError(f"it unpacks to more than {_MOST_UNPACKED_BYTES >> 20} MiB")
    for number, member in enumerate(tarball.members(whole), 1):
        _require_few(number)
        if (name := _wanted(member.name, found)) is None:
            continue
        if not member.regular:
            raise UsageError(f"{name} is no regular file")
        found[name] = _limited(io.BytesIO(member.content), name)
    return found


def _of_zip(packed: IO[bytes]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with zipfile.ZipFile(packed) as archive:
        for number, member in enumerate(archive.infolist(), 1):
            _require_few(number)
            if (name := _wanted(member.filename, found)) is None:
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir() or kind not in (0, stat.S_IFREG):
                raise UsageError(f"{name} is no regular file")
            if member.compress_type not in _PACKED:
                raise UsageError(f"{name} is packed in a way of its own; others' .zip deflate")
            with archive.open(member) as opened:
                found[name] = _limited(opened, name)
    return found


def _require_few(number: int) -> None:
    if number > _MOST_MEMBERS:
        raise UsageError(f"there are more than {_MOST_MEMBERS} files in it")


def _wanted(path: str, found: Mapping[str, bytes]) -> str | None:
    """The name it is kept by; None for what is passed over.  It may lie in one folder."""
    parts = PurePosixPath(path).parts
    if not parts or not _is_wanted(parts[-1]) or any(part.startswith("__") for part in parts):
        return None
    if len(parts) > 2 + (parts[0] == ".") or ".." in parts or path.startswith("/"):
        raise UsageError(f"{quoted(path)} is not where it is to be: in one folder, or in none")
    if parts[-1] in found:
        raise UsageError(f"{parts[-1]} is there twice")
    return parts[-1]


def _is_wanted(name: str) -> bool:
    return name in (answers.NAME, MANIFEST) or _SCRIPT.fullmatch(name) is not None


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def names(folder: Path) -> Iterator[tuple[str, Path]]:
    """Whose and where: those in `folder`, and in folders of students in it.

    The name is that of the file or folder: whoever collects it has given it, not the student.
    """
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if is_one(entry):
            yield _student(stem(entry)), entry
        elif entry.is_symlink():
            # To a folder whose files are not its: to be refused, not gone through.
            yield entry.name, entry
        elif entry.is_dir():
            for inner in sorted(entry.iterdir()):
                if not inner.name.startswith(".") and is_one(inner):
                    yield entry.name, inner


def _student(name: str) -> str:
    """Of "anna-05-share-out-a-subnet" anna."""
    return re.sub(r"[-_.]+[0-9]{2}-[a-z0-9-]+$", "", name) or name
