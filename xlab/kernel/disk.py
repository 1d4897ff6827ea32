"""What is written to the disk: whole or not at all, and through nobody's link.

    FOLDER/.partial-PID-TOKEN-NAME        a file:    filled, then renamed  ──>  FOLDER/NAME
    FOLDER/.partial-PID-TOKEN-NAME/NAME   a folder:  the same

Others may have been in the folder before: in /tmp, or where results are shared.  So whatever is
opened for writing is new (O_EXCL) and of a name that nobody guesses, and a folder is held by its
descriptor from the first look to the last rename: who swaps it meanwhile gains nothing.  They may
also give any folder of ours such a name, so only what is marked as hidden goes with all that is in
it: its mode is one that only its owner can give, and that no folder comes to its name with.

Links on the way to a folder are followed as the kernel does it where fs.protected_symlinks is set
(proc_sys_fs(5)), set or not.  One that has the file's own name is followed if it is the caller's or
root's, and stands in a folder of theirs that not anybody may write to; else it is replaced.
"""

from __future__ import annotations

import errno
import fcntl
import fnmatch
import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePath

from xlab.errors import UsageError

#: To go on from (openat(2)): needs no right to read there.
_PLACE = os.O_PATH | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: What is no file is written to as it comes, and never becomes our terminal.
_AS_IT_IS = os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC
#: Of a hidden folder: nobody else gets in, and the sticky bit, of no use there, is its mark.
_DRAFT_MODE = 0o1700
#: Of a folder that is one process's; how often others may take its name before that is given up.
_LOCK, _TRIES = ".lock", 100
#: Of links on one way, as the kernel has it; of bytes in a name.
_MOST_LINKS, _LONGEST_NAME = 40, 255


def write_whole(file: Path, content: bytes) -> None:
    """Write or replace a file: it is there with all of `content`, or as it was.  Raises OSError.

    What is no file but a device, a terminal or a pipe has it written to it.
    """
    with _named(file), _meant(file) as (place, name, as_it_is):
        if as_it_is:
            _fill(os.open(name, as_it_is, dir_fd=place), content)
        else:
            _replace([(file, place, name, content)], durable=False)


def write(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    place: int | None = None,
    durable: bool = False,
) -> None:
    """Write or replace several in `folder` or, by names with a slash, below; raises OSError.

    Each has all of its content or is as it was, and none is replaced before all are written.  The
    folders below are made as needed; a link there is an error.  `durable`: on the disk on return.
    `place` is the folder's descriptor, if it is held.
    """
    with ExitStack() as held:
        with _named(folder):
            top = held.enter_context(_entered(folder)) if place is None else place
        drafts = []
        for path, content in files.items():
            *folders, name = PurePath(path).parts
            with _named((folder / path).parent):
                place = held.enter_context(_below(top, folders))
            drafts.append((folder / path, place, name, content))
        _replace(drafts, durable=durable)


def create(file: Path) -> int:
    """A descriptor to write `file` by, which is empty from now on; what it was before is untouched.

    Of what is no file, the thing itself.  Raises OSError.
    """
    with _named(file), _meant(file) as (place, name, as_it_is):
        if as_it_is:
            return os.open(name, as_it_is, dir_fd=place)
        draft, descriptor = _draft(place, name)
        try:
            os.rename(draft, name, src_dir_fd=place, dst_dir_fd=place)
        except OSError:
            os.close(descriptor)
            _remove(place, draft)
            raise
        return descriptor


def new_folder(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    folders: Sequence[str] = (),
    durable: Sequence[str] = (),
) -> None:
    """Make `folder` with these files and folders in it, whole or not at all; raises OSError.

    FileExistsError if anything has its name already.  `durable` names those of the files that are
    on the disk on return.
    """
    with ExitStack() as held:
        with _named(folder):
            parent = held.enter_context(_entered(folder.parent, make=True))
            draft = _draft_folder(parent, folder.name)
        try:
            with _named(folder):
                around = held.enter_context(_below(parent, [draft]))
                inside = held.enter_context(_below(around, [folder.name]))
            for path in folders:
                with _named(folder / path), _below(inside, PurePath(path).parts):
                    pass
            for path, content in files.items():
                *above, name = PurePath(path).parts
                with _named(folder / path), _below(inside, above) as place:
                    descriptor = os.open(name, _NEW, 0o666, dir_fd=place)
                    _fill(descriptor, content, durable=path in durable)
            with _named(folder):
                _rename_folder(folder.name, around, parent)
        finally:
            _remove(parent, draft)


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """A hidden folder for as long as the context lasts, of a name as if it were to be `beside`."""
    with ExitStack() as held:
        with _named(beside):
            parent = held.enter_context(_entered(beside.parent))
            draft = _draft_folder(parent, beside.name)
        made = beside.with_name(draft)
        try:
            yield made
        except OSError as error:
            if error.filename is not None:
                error.filename = str(error.filename).replace(str(made), str(beside), 1)
            raise
        finally:
            _remove(parent, draft)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, as far as they are missing.  Raises OSError."""
    with _named(folder), _entered(folder, make=True):
        pass


@contextmanager
def held(folder: Path, *, make: bool = False, strict: bool = False) -> Iterator[int]:
    """A descriptor to open files of that folder by, whatever has its name meanwhile.  OSError.

    `strict`, for one that nobody has named: no link of a stranger's is followed, wherever it is.
    """
    with ExitStack() as entered:
        with _named(folder):
            place = entered.enter_context(_entered(folder, make=make, strict=strict))
        yield place


def sweep(folder: Path, name: str = "*") -> None:
    """Remove what was to become `name` (or anything), was the caller's, and has lost its writer."""
    with suppress(OSError), _entered(folder) as place:
        held = Path("/proc/self/fd", str(place))
        found = [entry.name for entry in held.iterdir()]
        for each in fnmatch.filter(found, f".partial-*-{name}"):
            pid = each.split("-")[1]
            dead = pid.isdigit() and not Path("/proc", pid).exists()
            with suppress(OSError):
                owner = os.stat(each, dir_fd=place, follow_symlinks=False).st_uid
                if dead and owner == os.geteuid():
                    _remove(place, each)


def lock_file(file: str | Path, *, place: int | None = None) -> int:
    """A descriptor by which `file`, made if missing, can be locked, flock(2).  Raises OSError.

    Whoever can open a file can lock it, be it only to read: nobody else can open this one.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(file, flags, 0o600, dir_fd=place)
    if _is_a_lock(os.fstat(descriptor)):
        os.fchmod(descriptor, 0o600)  # earlier versions made it readable
    return descriptor


def _is_a_lock(found: os.stat_result) -> bool:
    """Whether it is the caller's, and a file of no other name.

    Where fs.protected_hardlinks is not set link(2) asks nobody whose the file is.
    """
    ours = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
    return ours and found.st_uid == os.geteuid()


class Lock:
    """A folder is for this process alone until `close`, or its end; programs do not inherit that.

    UsageError, `busy` and by whom, while another has it.  Raises OSError.  It is a file in there,
    the caller's: one that others of a group that may write there have made is none, nor is one more
    name of a file of the caller's.
    """

    def __init__(self, folder: Path, busy: str) -> None:
        with _named(folder / _LOCK), _entered(folder) as place:
            self._place = os.dup(place)
            try:
                self._descriptor = self._taken(busy)
            except BaseException:
                os.close(self._place)
                raise

    def _taken(self, busy: str) -> int:
        for _ in range(_TRIES):
            with suppress(FileNotFoundError):
                if not _is_a_lock(os.stat(_LOCK, dir_fd=self._place, follow_symlinks=False)):
                    os.unlink(_LOCK, dir_fd=self._place)
            descriptor = lock_file(_LOCK, place=self._place)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._has_its_name(descriptor):
                    return descriptor
            except BlockingIOError as error:
                by = who_holds(descriptor)
                os.close(descriptor)
                raise UsageError(f"{busy}{by}") from error
            os.close(descriptor)  # whose it was has just removed it
        raise PermissionError(errno.EACCES, "somebody else's")

    def _has_its_name(self, descriptor: int) -> bool:
        """Whether the next one would open this very file, and take it for a lock."""
        ours = os.fstat(descriptor)
        with suppress(FileNotFoundError):
            there = os.stat(_LOCK, dir_fd=self._place, follow_symlinks=False)
            return os.path.samestat(ours, there) and _is_a_lock(there)
        return False

    def close(self) -> None:
        with suppress(OSError):
            if self._has_its_name(self._descriptor):
                os.unlink(_LOCK, dir_fd=self._place)
        os.close(self._descriptor)
        os.close(self._place)


def who_holds(descriptor: int) -> str:
    """ " by process 123", of a file that another process has locked by flock(2); "" if unknown."""
    found = os.fstat(descriptor)
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            # Of another PID namespace the number is 0 (proc_locks(5)).
            _, kind, _, _, pid, file, *_ = line.replace("-> ", "").split()
            if (kind, file) == ("FLOCK", f"{device}:{found.st_ino}") and pid.isdigit() and int(pid):
                return f" by process {pid}"
    return ""


# -- drafts ----------------------------------------------------------------------------------------


def _replace(files: Sequence[tuple[Path, int, str, bytes]], *, durable: bool) -> None:
    """Write each (as it is called, its folder, name, content) to a draft, then rename all."""
    drafts: list[tuple[Path, int, str, str]] = []
    try:
        for file, place, name, content in files:
            with _named(file):
                draft, descriptor = _draft(place, name)
                drafts.append((file, place, draft, name))
                _fill(descriptor, content, durable=durable)
        while drafts:
            file, place, draft, name = drafts[0]
            with _named(file):
                os.rename(draft, name, src_dir_fd=place, dst_dir_fd=place)
            del drafts[0]
    finally:
        for _, place, draft, _ in drafts:
            _remove(place, draft)


def _draft(place: int, name: str) -> tuple[str, int]:
    """A new hidden file in the place of `name`, open, with the rights of what it is to replace."""
    while True:
        draft = _draft_name(name)
        with suppress(FileExistsError):
            descriptor = os.open(draft, _NEW, 0o666, dir_fd=place)
            break
    with suppress(FileNotFoundError):
        before = os.stat(name, dir_fd=place, follow_symlinks=False)
        if stat.S_ISREG(before.st_mode) and before.st_uid == os.geteuid():
            os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
    return draft, descriptor


def _rename_folder(name: str, source: int, target: int) -> None:
    try:
        # rename(2) onto a directory that is not empty fails: nothing is overwritten.
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise FileExistsError(errno.EEXIST, "a record is there already") from error


def _draft_folder(place: int, name: str) -> str:
    """A new hidden folder, marked as that."""
    while True:
        draft = _draft_name(name)
        with suppress(FileExistsError):
            os.mkdir(draft, _DRAFT_MODE, dir_fd=place)
            return draft


def _draft_name(name: str) -> str:
    hidden = f".partial-{os.getpid()}-{secrets.token_hex(4)}-{name}"
    return os.fsdecode(os.fsencode(hidden)[:_LONGEST_NAME])


def _fill(descriptor: int, content: bytes, *, durable: bool = False) -> None:
    """Write all of it and close."""
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(place: int, name: str) -> None:
    """A folder that is not empty stays if it is no draft of ours."""
    with suppress(OSError):  # it was gone, or is somebody else's
        try:
            os.unlink(name, dir_fd=place)
        except IsADirectoryError:
            _empty_draft(place, name)
            os.rmdir(name, dir_fd=place)


def _empty_draft(place: int, name: str) -> None:
    import shutil

    folder = os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
    try:
        found = os.fstat(folder)
        # Where new folders have their parent's group the kernel has added that bit.
        mode = stat.S_IMODE(found.st_mode) & ~stat.S_ISGID
        if (found.st_uid, mode) != (os.geteuid(), _DRAFT_MODE):
            return
        for entry in os.listdir(folder):  # noqa: PTH208 - a descriptor has no path
            try:
                os.unlink(entry, dir_fd=folder)
            except IsADirectoryError:
                shutil.rmtree(entry, ignore_errors=True, dir_fd=folder)
    finally:
        os.close(folder)


# -- the way there ---------------------------------------------------------------------------------


@contextmanager
def _entered(folder: Path, *, make: bool = False, strict: bool = False) -> Iterator[int]:
    """A descriptor of a folder that the caller has named; with `make` it is made if missing."""
    here = os.open("/" if folder.is_absolute() else ".", _PLACE)
    with _walked(here, folder.parts, make=make, links=True, strict=strict) as place:
        yield place


@contextmanager
def _below(place: int, folders: Sequence[str]) -> Iterator[int]:
    """A folder within one that is held, made as needed; no link is followed on the way."""
    if ".." in folders:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    with _walked(os.dup(place), folders, make=True, links=False) as below:
        yield below


@contextmanager
def _walked(
    here: int, folders: Sequence[str], *, make: bool, links: bool, strict: bool = False
) -> Iterator[int]:
    """Where these names lead from a folder whose descriptor becomes ours."""
    try:
        left, followed = [name for name in reversed(folders) if name != "/"], 0
        while left:
            step = _step(here, left.pop(), make=make)
            found = os.fstat(step)
            if links and stat.S_ISLNK(found.st_mode):
                followed += 1
                try:
                    _require_followed(found, os.fstat(here), followed, strict=strict)
                    target = PurePath(os.readlink("", dir_fd=step))
                finally:
                    os.close(step)
                left += [name for name in reversed(target.parts) if name != "/"]
                if not target.is_absolute():
                    continue
                step = os.open("/", _PLACE)
            here, step = step, here
            os.close(step)
            if not stat.S_ISDIR(os.fstat(here).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        yield here
    finally:
        os.close(here)


def _step(here: int, name: str, *, make: bool) -> int:
    """Whatever has this name, links not followed; with `make` a new folder where nothing has."""
    try:
        return os.open(name, _PLACE | os.O_NOFOLLOW, dir_fd=here)
    except FileNotFoundError:
        if not make:
            raise
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=here)
        return os.open(name, _PLACE | os.O_NOFOLLOW, dir_fd=here)


def _require_followed(
    link: os.stat_result, folder: os.stat_result, links: int, *, strict: bool
) -> None:
    if links > _MOST_LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    anybodys = bool(folder.st_mode & stat.S_IWOTH)
    refused = anybodys and link.st_uid not in (os.geteuid(), folder.st_uid)
    if refused or (strict and not is_ones_own(link)):
        raise PermissionError(errno.EACCES, "a link of somebody else's is on the way")


@contextmanager
def _meant(file: Path) -> Iterator[tuple[int, str, int]]:
    """Where to write what is to be `file`: a folder, a name in it, and how to open what is no file.

    /dev/stdout must not be replaced, nor /dev/null, nor a pipe that the caller has made; at a pipe
    of somebody else's we would wait.
    """
    for _ in range(_MOST_LINKS + 1):
        with _entered(file.parent) as place:
            try:
                found = os.stat(file.name, dir_fd=place, follow_symlinks=False)
            except FileNotFoundError:
                yield place, file.name, 0
                return
            if not stat.S_ISLNK(found.st_mode):
                no_file = stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)
                no_file |= stat.S_ISFIFO(found.st_mode) and is_trusted(found)
                yield place, file.name, _AS_IT_IS | os.O_NOFOLLOW if no_file else 0
                return
            if Path("/proc/self/fd", str(place)).readlink().is_relative_to("/proc"):
                # Something that is open, whatever it is: its name need not be one (proc_pid_fd(5)).
                yield place, file.name, _AS_IT_IS
                return
            above = os.fstat(place)
            if above.st_mode & stat.S_IWOTH or not (is_trusted(found) and is_trusted(above)):
                yield place, file.name, 0
                return
            file = file.parent / os.readlink(file.name, dir_fd=place)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def is_trusted(found: os.stat_result) -> bool:
    """Whether it is the caller's own, or root's."""
    return found.st_uid in (0, os.geteuid())


def is_ones_own(found: os.stat_result) -> bool:
    """The same, or of whoever has become root by sudo(8)."""
    by_sudo = os.geteuid() == 0 and os.environ.get("SUDO_UID") == str(found.st_uid)
    return is_trusted(found) or by_sudo


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """An OSError comes out with the name of `path`: nobody knows the hidden one."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
