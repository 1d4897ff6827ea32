"""How long a process is waited for, not counting what the kernel and a busy machine take from it.

The kernel frees the bridges of a lab that has ended one by one, four ticks of its clock each
(rcu_barrier in br_multicast_dev_del), and holds the lock of all network configuration meanwhile
(rtnl_mutex): after 1,000 hosts whatever makes, changes or lists an interface, anywhere on the
machine, waits for 17 s.  What waits so sleeps uninterruptibly (state D, proc(5)): it does nothing,
and SIGKILL would not end it.  That is seen without asking the kernel for anything that waits, too.

Whoever has called vfork(2) is in the same state until the child lets go of its memory, perhaps for
ever; that is no wait for the kernel, which says so (wchan, proc(5)).

What is runnable and not given a processor (state R too) waits for whatever else is at work: at load
30 a script of one second takes fifteen.  So while there is something to do, only the processor time
that went into it counts, its own, its children's and ours, who may have to do it; and all the time
in which nothing is: `sleep 100` takes 100 s on any machine, and a loop has as much processor as a
quiet machine would have given it.  Where we ourselves look too late, what went by does not count.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from xlab.kernel.clock import Clock, Deadline, steady

_announce: ContextVar[Callable[[str], object]] = ContextVar("announce", default=lambda _: None)

#: Looks at a process in all its time, and the shortest time between two.
_LOOKS, _SHORTEST_TURN_S = 50, 0.2

#: What a program can make wait as long as it likes, a file system of its own say, or by children
#: whose time nobody is told (SIGCHLD ignored), is waited for no longer; the kernel takes 40 s for
#: 1,000 bridges where its clock has 100 Hz.
LONGEST_S = 300.0

#: Where in the kernel a thread sleeps that has called vfork(2), by the kernel's version.
_VFORK = frozenset({b"kernel_clone", b"wait_for_vfork_done", b"_do_fork", b"do_fork"})


@dataclass(frozen=True, slots=True)
class Look:
    """What a process, its descendants and this process of ours are doing just now."""

    #: Whether a thread of it or of a descendant waits for the kernel.
    held_up: bool = False
    #: Whether there is one with something to do, ours included, but for the thread that looks.
    runnable: bool = False
    #: Processor time that all have had so far; of descendants with their children that have ended.
    used_s: float = 0.0


class Patience(Deadline):
    """A moment `timeout_s` from now, put off while the process, or a child of it, is kept waiting.

    By five minutes at the most for the kernel, and as much, or `timeout_s`, for a busy machine.
    """

    def __init__(
        self,
        pid: int,
        timeout_s: float,
        *,
        clock: Clock = steady,
        look: Callable[[int], Look] | None = None,
    ) -> None:
        super().__init__(timeout_s, clock)
        self._pid = pid
        self._look = look or look_at
        self._every_s = max(_SHORTEST_TURN_S, timeout_s / _LOOKS)
        self._looked_at_s = clock()
        self._used_s: float | None = None
        self._starves_for_s = max(LONGEST_S, timeout_s)
        #: By how much it was put off because the kernel took its time.
        self.waited_s = 0.0

    def turn_s(self) -> float:
        """How long to wait until `passed` is asked again."""
        return min(self._every_s, self.left_s())

    def passed(self) -> bool:
        since_s = self._clock() - self._looked_at_s
        if since_s >= self._every_s or super().passed():
            self._looked_at_s += since_s
            self._allow(since_s, self._look(self._pid))
        return super().passed()

    def _allow(self, since_s: float, seen: Look) -> None:
        """Put off by what was lost of the time since the last look."""
        # The first look knows only what was used in all its life, ours included: it takes a turn
        # for used, and what is beyond that for lost: we, too, have waited for a processor.
        used_s = self._every_s if self._used_s is None else seen.used_s - self._used_s
        self._used_s = seen.used_s
        # Nothing to do, and a look comes far later than it was due: neither had we a processor, or
        # the whole machine was stopped, and whatever it waits for may have been kept waiting, too.
        lost_s = since_s - (used_s if seen.runnable else 2 * self._every_s)
        lost_s = min(since_s, max(0.0, lost_s))
        if seen.held_up and self.waited_s < LONGEST_S:
            self.put_off(since_s)
            self.waited_s += since_s
        elif self._starves_for_s > 0:
            self.put_off(lost_s)
            self._starves_for_s -= lost_s


def look_at(pid: int, *, proc: Path = Path("/proc")) -> Look:
    """What is in sight of it; nothing of what has ended, or may not be looked at."""
    held_up = runnable = False
    ticks = 0
    us, this_thread = os.getpid(), threading.get_native_id()
    waiting = {pid}
    while waiting:
        process = proc / str(waiting.pop())
        # It may end while we look.
        with suppress(OSError):
            ticks += sum(int(field) for field in _stat(process)[11:15])
            for thread in (process / "task").iterdir():
                state = _stat(thread)[0]
                if state == b"D" and _sleeps_in(thread) not in _VFORK:
                    held_up = True
                runnable |= state == b"R"
                waiting |= {int(child) for child in (thread / "children").read_text().split()}
    with suppress(OSError):
        for thread in (proc / str(us) / "task").iterdir():
            runnable |= thread.name != str(this_thread) and _stat(thread)[0] == b"R"
    # Not that of our children which have ended: who waits for many at once would take the time of
    # each for that of every other.
    times = os.times()
    ours_s = times.user + times.system
    return Look(held_up, runnable, ours_s + ticks / os.sysconf("SC_CLK_TCK"))


def doing(pid: int, *, proc: Path = Path("/proc")) -> str:
    """What the threads of a process and of ours are at, for who wonders why it did not end."""
    said = []
    for process in dict.fromkeys((pid, os.getpid())):
        with suppress(OSError):
            for thread in (proc / str(process) / "task").iterdir():
                name = (thread / "comm").read_bytes().strip()
                words = (_stat(thread)[0], b"in", _sleeps_in(thread) or b"?")
                said.append(f"{process} {name!r} {b' '.join(words).decode(errors='replace')}")
    return "; ".join(said)


def _stat(of: Path) -> list[bytes]:
    """The fields behind the name, which is in parentheses and may have some in it: state first."""
    return (of / "stat").read_bytes().rpartition(b") ")[2].split()


def is_held_up(pid: int) -> bool:
    """Whether a thread of the process, or of a descendant, waits for the kernel.

    False for whoever waits in vfork(2).
    """
    return look_at(pid).held_up


def _sleeps_in(thread: Path) -> bytes:
    """The kernel's function; b"0" from a kernel that does not tell, b"" if it may not be asked."""
    with suppress(OSError):
        return (thread / "wchan").read_bytes()
    return b""


@contextmanager
def announcing(say: Callable[[str], object]) -> Iterator[None]:
    """Within this, `say` is told, in words for a person, that the kernel keeps us waiting."""
    before = _announce.set(say)
    try:
        yield
    finally:
        _announce.reset(before)


def announce() -> None:
    """Say that the kernel keeps us waiting, and why as far as can be seen."""
    if frees_namespaces():
        why = "it is still freeing interfaces of labs that have ended, and makes none meanwhile"
    else:
        why = "it takes long to make namespaces, as it does when it frees those of a large lab"
    _announce.get()(f"waiting for the kernel: {why}")


def frees_namespaces(*, proc: Path = Path("/proc")) -> bool:
    """Whether the kernel is freeing network namespaces just now.

    A worker's name says at what it works, for everybody to see; in a container there are none.
    """
    for comm in proc.glob("[0-9]*/comm"):
        with suppress(OSError):
            name = comm.read_bytes()
            if name.startswith(b"kworker/") and name.rstrip().endswith(b"+netns"):
                return True
    return False
