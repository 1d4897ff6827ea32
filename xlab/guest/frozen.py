"""The guest of the virtual clock: booted once, frozen, and thawed for each piece of work.

    CACHE/guest/PACKAGES/               vmlinuz, tree/, packages.json: of one set of packages
    CACHE/guest/PACKAGES/CODE-….frozen  the machine with our code of that digest, ready to work

QEMU executes one instruction a nanosecond of the guest's clock (`-icount shift=0`), and where the
guest waits for a timer its clock leaps there (`sleep=off`).  Nothing comes from outside while it
works: root and job lie in its memory, and there is no disk, no network, no time of day.  So what it
does is the same to the last instruction each time, whatever else this machine does meanwhile.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shlex
import shutil
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from xlab.errors import CapabilityError, XlabError
from xlab.guest import packages, userland
from xlab.guest.inside import JOB, PORT
from xlab.guest.packages import Package, Parts
from xlab.guest.view import KERNEL_OPTIONS, cache_folder
from xlab.kernel import disk
from xlab.kernel.clock import Deadline
from xlab.kernel.patience import Patience

#: What there is to tell while a guest is made ready, in words.
Progress = Callable[[str], None]
Event = Mapping[str, Any]

#: The guest's kernel alone, beside those for a view of this machine: addresses are not random.
_KERNEL_OPTIONS = (*KERNEL_OPTIONS, "norandmaps")
#: To boot and import everything takes 10 s of one quiet processor.
_FREEZING_LIMIT_S = 900.0
#: A stop without a leap takes the instructions from one look at the clock to the next.
_TRIES, _NO_LEAP_NS = 8, 50_000
#: How a folder is called in which something is being made.
_DRAFT = ".made-"
#: Between two looks at what a guest has told.
_LOOK_S = 0.05
#: Of machines of one set of packages, and of such sets: the last is in use, the one before it is
#: often gone back to.
_KEPT = 2


@dataclass(frozen=True, slots=True)
class Frozen:
    """A machine that is ready to work."""

    parts: Parts
    kernel: Path
    memory: Path

    @property
    def differences(self) -> tuple[str, ...]:
        """What it is made of that the lock has otherwise; empty: its figures can be compared."""
        return self.parts.differences(packages.locked())


def ready(progress: Progress) -> Frozen:
    """The machine for this very xlab, made where it is not in the cache.

    Making it takes up to a minute, and the first time some 70 MB of packages are fetched.  Raises
    CapabilityError where this machine can't, XlabError where it broke.
    """
    packages.require_able()
    folder = cache_folder() / "guest"
    folder.mkdir(parents=True, exist_ok=True)
    _require_ours(folder)
    with _locked(folder / "lock", progress):
        # What a killed one was at; whoever has the lock is alone here.
        for left in (*folder.glob(f"{_DRAFT}*"), *folder.glob(f"*/{_DRAFT}*")):
            shutil.rmtree(left, ignore_errors=True)
        parts, place = _made(folder, progress)
        files = userland.our_files()
        memory = place / f"{userland.digest_of(files)}-qemu-{parts.qemu}.frozen"
        if not memory.exists():
            progress("booting the virtual clock's guest, once for this xlab (a minute)")
            with tempfile.TemporaryDirectory(prefix=_DRAFT, dir=place) as scratch:
                fresh = Path(scratch, "frozen")
                with os.fdopen(os.memfd_create("archive"), "w+b") as archive:
                    code = Path(scratch, "code")
                    code.mkdir()
                    userland.write_archive(place / "tree", files, code, archive)
                    archive.flush()
                    _freeze_well(parts, place / "vmlinuz", archive.fileno(), fresh)
                fresh.rename(memory)
            _forget_all_but(_KEPT, place.glob("*.frozen"))
        os.utime(memory)
        os.utime(place)
        return Frozen(parts, place / "vmlinuz", memory)


def _require_ours(folder: Path) -> None:
    """CapabilityError where somebody else could put a machine of theirs into the cache."""
    for each in (folder.parent, folder):
        found = each.stat()
        if not disk.is_trusted(found) or found.st_mode & stat.S_IWOTH:
            raise CapabilityError(
                f"the virtual clock's guest lies in {each}, which others can change",
                "name a folder of your own by XDG_CACHE_HOME",
            )


@contextmanager
def _locked(file: Path, progress: Progress) -> Iterator[None]:
    """For one process at a time."""
    descriptor = disk.lock_file(file)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            by = disk.who_holds(descriptor)
            progress(f"waiting for the virtual clock's guest, which is being made{by}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _made(folder: Path, progress: Progress) -> tuple[Parts, Path]:
    """The parts and their place: the lock's where they are there or can be had."""
    plan, qemu = packages.locked(), packages.qemu_version()
    wanted = _key(plan.packages)
    for place in (folder / wanted, folder / f"{wanted}-other"):
        if (place / "packages.json").exists():
            listed = json.loads((place / "packages.json").read_text())
            return userland.as_parts([Package(**each) for each in listed], qemu), place
    progress("fetching the virtual clock's guest (70 MB, once)")
    with tempfile.TemporaryDirectory(prefix=_DRAFT, dir=folder) as scratch:
        files = Path(scratch, "files")
        files.mkdir()
        fetched = packages.fetch(plan.packages, files)
        progress("unpacking it")
        fresh = Path(scratch, "fresh")
        fresh.mkdir()
        userland.unpack(list(files.glob("*.deb")), fresh / "tree")
        listed = json.dumps([asdict(each) for each in fetched], indent=1)
        (fresh / "packages.json").write_text(listed)
        place = folder / (wanted if fetched == plan.packages else f"{wanted}-other")
        shutil.rmtree(place, ignore_errors=True)
        fresh.rename(place)
    _forget_all_but(_KEPT, folder.glob("*/"))
    return userland.as_parts(fetched, qemu), place


def _key(listed: tuple[Package, ...]) -> str:
    plan = packages.locked()
    told = [
        *map(asdict, listed),
        packages.python_packages(),
        plan.machine,
        plan.processor,
        userland.recipe(),
    ]
    return userland.digest_of_text(json.dumps(told, sort_keys=True))


def _forget_all_but(kept: int, found: Iterable[Path]) -> None:
    for each in sorted(found, key=lambda place: place.stat().st_mtime)[:-kept]:
        if each.is_dir():
            shutil.rmtree(each, ignore_errors=True)
        else:
            each.unlink(missing_ok=True)


# -- QEMU ------------------------------------------------------------------------------------------


def _freeze_well(parts: Parts, kernel: Path, archive: int, memory: Path) -> None:
    """Until the machine has stopped the way it mostly does.

    When it is told to stop, QEMU's main loop takes the processor for idle and lets the clock leap
    to the next timer; or, if it was at the door by chance, it does not.  Both are sound, but their
    digits differ in the third place.
    """
    for _ in range(_TRIES):
        _freeze(parts, kernel, archive, memory)
        thawed = next(work(Frozen(parts, kernel, memory), {}, limit_s=_FREEZING_LIMIT_S))
        if thawed["leap_ns"] > _NO_LEAP_NS:
            return
    raise XlabError(f"the guest could not be frozen in {_TRIES} tries; is the machine very busy?")


def _freeze(parts: Parts, kernel: Path, archive: int, memory: Path) -> None:
    with Machine(parts, kernel, archive=archive) as machine:
        machine.until("GUEST_PANICKED", limit_s=_FREEZING_LIMIT_S)
        machine.ask("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        machine.save(memory)


class Machine:
    """A running QEMU, which never outlives us; its console and what it tells lie in memory."""

    def __init__(
        self,
        parts: Parts,
        kernel: Path,
        *,
        archive: int | None = None,
        memory: Path | None = None,
        job: bytes = b"{}",
    ) -> None:
        """Boots from an `archive` (a descriptor), or goes on where `memory` was frozen."""
        self._console = os.memfd_create("console")
        self._told = os.memfd_create("told")
        self._log = os.memfd_create("log")
        self._read = 0
        job_file = os.memfd_create("job")
        os.write(job_file, job)
        ours, theirs = socket.socketpair()
        console, told = _writing_end(self._console), _writing_end(self._told)
        passed = [console, told, job_file, theirs.fileno()]
        argv = [
            *("setpriv", "--pdeathsig", "KILL", "--", "qemu-system-x86_64"),
            *("-machine", f"{parts.machine},usb=off"),
            # A large buffer for translated code: kernel and Python together outgrow the default.
            *("-accel", "tcg,thread=single,tb-size=512"),
            *("-icount", "shift=0,align=off,sleep=off"),
            *("-cpu", parts.processor, "-smp", "1", "-m", f"{parts.memory_mib}M"),
            *("-nodefaults", "-no-user-config", "-nic", "none", "-display", "none", "-vga", "none"),
            *("-no-reboot", "-action", "panic=pause"),
            # Neither the time of day nor chance comes from outside.
            *("-rtc", "base=2000-01-01T00:00:00,clock=vm", "-seed", "1"),
            *("-kernel", str(kernel), "-append", " ".join(_KERNEL_OPTIONS)),
            # ioeventfd: what is written would be taken by another thread, at another moment.
            *("-device", "virtio-serial-pci,ioeventfd=off"),
            *_port("console", console, "virtconsole,chardev=console"),
            *_port("told", told, f"virtserialport,chardev=told,name={PORT}"),
            *("-device", "pvpanic"),
            *("-fw_cfg", f"name={JOB},file=/proc/self/fd/{job_file}"),
            *("-chardev", f"socket,id=monitor,fd={theirs.fileno()}"),
            *("-mon", "chardev=monitor,mode=control"),
        ]
        if archive is not None:
            argv += ["-initrd", f"/proc/self/fd/{archive}"]
            passed.append(archive)
        if memory is not None:
            argv += ["-incoming", f"exec:exec cat {shlex.quote(str(memory))}"]
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            pass_fds=passed,
        )
        theirs.close()
        for descriptor in (console, told, job_file):
            os.close(descriptor)
        self._monitor = ours
        self._lines = ours.makefile("rwb")
        self._events: list[str] = []
        self._answer()  # its greeting
        self.ask("qmp_capabilities")

    def until(self, event: str, *, limit_s: float) -> None:
        """Wait for an event of QEMU's."""
        deadline = self.patience(limit_s)
        poller = select.poll()
        poller.register(self._monitor, select.POLLIN)
        while event not in self._events:
            if deadline.passed():
                raise XlabError(f"the guest did not get ready within {limit_s:g} s{self.tail()}")
            if poller.poll(1000 * min(1.0, deadline.left_s())):
                self._answer()

    def ask(self, command: str, **arguments: Any) -> Any:
        """One command of QEMU's monitor protocol (QMP); returns what it returns."""
        request = {"execute": command, "arguments": arguments}
        self._lines.write(json.dumps(request).encode() + b"\n")
        self._lines.flush()
        while True:
            said = self._answer()
            if "error" in said:
                raise XlabError(f"QEMU: {said['error'].get('desc')}{self.tail()}")
            if "return" in said:
                return said["return"]

    def save(self, file: Path) -> None:
        """Write the stopped machine to a file."""
        # What older versions of QEMU can do as well.
        self.ask("migrate", uri=f"exec:exec cat >{shlex.quote(str(file))}")
        while (status := self.ask("query-migrate").get("status")) != "completed":
            if status in ("failed", "cancelled"):
                raise XlabError(f"the guest could not be frozen{self.tail()}")
            time.sleep(_LOOK_S)

    def go_on(self) -> None:
        """Once it has been thawed."""
        while self.ask("query-status")["status"] == "inmigrate":
            time.sleep(_LOOK_S)
        self.ask("cont")

    def told(self) -> list[bytes]:
        """The whole lines that it has told since this was last asked."""
        size = os.fstat(self._told).st_size
        found = b""
        while self._read + len(found) < size:
            found += os.pread(self._told, size - self._read - len(found), self._read + len(found))
        whole = found[: found.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole.splitlines()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def patience(self, limit_s: float) -> Deadline:
        """So long from now, while it has a processor."""
        return Patience(self._process.pid, limit_s)

    def tail(self) -> str:
        """The last lines of its console, and of what QEMU said."""
        texts = []
        for name, descriptor in (("its console", self._console), ("QEMU", self._log)):
            size = os.fstat(descriptor).st_size
            text = os.pread(descriptor, 2000, max(0, size - 2000)).decode(errors="replace")
            if text.strip():
                texts.append(f"\n--- {name}\n" + "\n".join(text.splitlines()[-15:]))
        return "".join(texts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._lines.close()
        self._monitor.close()
        for descriptor in (self._console, self._told, self._log):
            os.close(descriptor)

    def _answer(self) -> dict[str, Any]:
        """The next of what the monitor says; events are kept."""
        line = self._lines.readline()
        if not line:
            self._process.wait()
            raise XlabError(f"QEMU ended: status {self._process.returncode}{self.tail()}")
        said: dict[str, Any] = json.loads(line)
        if "event" in said:
            self._events.append(said["event"])
        return said


def _writing_end(file: int) -> int:
    """QEMU takes a descriptor only if it is open for just what it is wanted for."""
    return os.open(f"/proc/self/fd/{file}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)


def _port(name: str, descriptor: int, device: str) -> Iterator[str]:
    yield from ("-add-fd", f"fd={descriptor},set={descriptor}")
    yield from ("-chardev", f"file,id={name},path=/dev/fdset/{descriptor},append=on")
    yield from ("-device", device)


# -- work ------------------------------------------------------------------------------------------

#: A guest fills a processor: more at once than there are would only wait for each other.
_at_once = threading.BoundedSemaphore(max(1, len(os.sched_getaffinity(0))))


def work(frozen: Frozen, job: Mapping[str, Any], *, limit_s: float) -> Iterator[Event]:
    """Have a guest do a job (`inside.WORK`); yields what it tells, as it tells it.

    The job has a "seed", a whole number: with the same one everything is the same; without one
    nothing is done.  First it tells that it has been thawed.  Raises XlabError if the guest ends
    without having done it, or takes longer than `limit_s`, not counting what it waits for other
    guests and for a processor.
    """
    data = json.dumps(job).encode()
    with (
        _at_once,
        Machine(frozen.parts, frozen.kernel, memory=frozen.memory, job=data) as machine,
    ):
        machine.go_on()
        deadline = machine.patience(limit_s)
        while True:
            over = machine.ended
            for line in machine.told():
                event = json.loads(line)
                if event["kind"] == "ended":
                    return
                yield event
            if over:
                raise XlabError(f"the guest ended before its work was done{machine.tail()}")
            if deadline.passed():
                raise XlabError(f"the guest was not done within {limit_s:g} s{machine.tail()}")
            time.sleep(_LOOK_S)
