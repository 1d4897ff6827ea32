"""Signals held off for a moment, and given other handlers without a word from Python.

A signal is first noted by a handler in C, then met by the one in Python, between two instructions.
If that has meanwhile become the kernel's own (SIG_IGN, SIG_DFL), Python prints a traceback that
ends with "OSError: Signal 2 ignored due to race condition" (_PyErr_CheckSignalsTstate).
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

#: One in Python, or signal.SIG_IGN or SIG_DFL; None is one that was not set by Python.
Handler = Callable[[int, FrameType | None], object] | int | signal.Handlers | None


@contextmanager
def held_off() -> Iterator[set[int]]:
    """Signals to this thread wait while the block lasts; gives those that have waited before it.

    For a fork: Python runs hooks in it, in the child, too, and what a handler raises in a hook is
    printed with a traceback and lost (PyErr_WriteUnraisable).
    """
    mask: set[int] = set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    try:
        # Whatever was noted before is met by this call, too, once they are blocked, and may raise.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        yield mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def handle(handlers: Mapping[int, Handler]) -> None:
    """Give signals these handlers; each that comes meanwhile meets its old one or its new one.

    Only for the main thread of a process, and without fail only while it has no other.
    """
    with held_off():
        for number, handler in handlers.items():
            # What was noted before they were held off is met here, by the handler that was.
            signal.signal(number, handler)


def ignore(numbers: Iterable[int]) -> None:
    """Have the kernel drop signals, here and in whatever this process becomes."""
    handle(dict.fromkeys(numbers, signal.SIG_IGN))
