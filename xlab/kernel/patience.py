"""How long a process is waited for, not counting the time in which it waits for the kernel itself.

The kernel frees the bridges of a lab that has ended one by one, four ticks of its clock each
(rcu_barrier in br_multicast_dev_del), and holds the lock of all network configuration meanwhile
(rtnl_mutex): after 1,000 hosts whatever makes, changes or lists an interface, anywhere on the
machine, waits for 17 s.  What waits so sleeps uninterruptibly (state D, proc(5)): it does nothing,
and SIGKILL would not end it.  That is seen without asking the kernel for anything that waits, too.

Whoever has called vfork(2) is in the same state until the child lets go of its memory, perhaps for
ever; that is no wait for the kernel, which says so (wchan, proc(5)).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from xlab.kernel.clock import Clock, Deadline, steady

_announce: ContextVar[Callable[[str], object]] = ContextVar("announce", default=lambda _: None)

#: Looks at a process in all its time, and the shortest time between two.
_LOOKS, _SHORTEST_TURN_S = 50, 0.2

#: What a program can make wait as long as it likes, a file system of its own say, is waited for no
#: longer; the kernel takes 40 s for 1,000 bridges where its clock has 100 Hz.
_LONGEST_S = 300.0

#: Where in the kernel a thread sleeps that has called vfork(2), by the kernel's version.
_VFORK = frozenset({b"kernel_clone", b"wait_for_vfork_done", b"_do_fork", b"do_fork"})


class Patience(Deadline):
    """A moment `timeout_s` from now, put off while the process, or a child of it, is held up.

    By five minutes at the most.
    """

    def __init__(
        self,
        pid: int,
        timeout_s: float,
        *,
        clock: Clock = steady,
        held_up: Callable[[int], bool] | None = None,
    ) -> None:
        super().__init__(timeout_s, clock)
        self._pid = pid
        self._held_up = held_up or is_held_up
        self._every_s = max(_SHORTEST_TURN_S, timeout_s / _LOOKS)
        self._looked_at_s = clock()
        #: By how much it was put off.
        self.waited_s = 0.0

    def turn_s(self) -> float:
        """How long to wait until `passed` is asked again."""
        return min(self._every_s, self.left_s())

    def passed(self) -> bool:
        since_s = self._clock() - self._looked_at_s
        if since_s >= self._every_s or super().passed():
            self._looked_at_s += since_s
            if self.waited_s < _LONGEST_S and self._held_up(self._pid):
                self.put_off(since_s)
                self.waited_s += since_s
        return super().passed()


def is_held_up(pid: int, *, proc: Path = Path("/proc")) -> bool:
    """Whether a thread of the process, or of a descendant, is in uninterruptible sleep.

    False for what has ended, or may not be looked at, and for whoever waits in vfork(2).
    """
    waiting = [str(pid)]
    while waiting:
        # It may end while we look.
        with suppress(OSError):
            threads = proc / waiting.pop() / "task"
            for thread in threads.iterdir():
                # The name before the state is in parentheses, and may have some in it.
                state = (thread / "stat").read_bytes().rpartition(b") ")[2][:1]
                if state == b"D" and _sleeps_in(thread) not in _VFORK:
                    return True
                waiting += (thread / "children").read_text().split()
    return False


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
