"""Signals held off for a moment, given other handlers, and left to the main thread.

A signal is first noted by a handler in C, then met by the one in Python, between two instructions
of the main thread.  Two things come of that:

If the handler has meanwhile become the kernel's own (SIG_IGN, SIG_DFL), Python prints a traceback
that ends with "OSError: Signal 2 ignored due to race condition" (_PyErr_CheckSignalsTstate).

If the main thread waits in the kernel it meets no signal but one that was given to itself, which
breaks off the wait.  The kernel gives a process's signal to any thread that does not block it,
signal(7): to another than the main one while that starts a program (subprocess blocks all then) or
has just been sent SIGCHLD.  One in forty Ctrl-C was lost so, where a program had just ended.
"""

from __future__ import annotations

import os
import signal
import threading
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


def start_deaf(thread: threading.Thread) -> None:
    """Start a thread that is given no signal, so that the main one is.

    Nor are programs that it starts, but those started in `hearing`.
    """
    with held_off():
        thread.start()  # with its caller's mask, pthread_create(3)


def deafen() -> None:
    """From now on this thread is given no signal; for one of a pool, as its initializer."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


@contextmanager
def hearing() -> Iterator[None]:
    """What a thread starts in the block blocks no signal, be the thread deaf otherwise."""
    mask = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def noted() -> Iterator[int]:
    """A descriptor that can be read as soon as a signal has been noted, while the block lasts.

    For the main thread, which is to wait for it as well: a signal that is noted just before a wait
    begins does not break that off.  In another thread, which meets none, it stays silent.
    """
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    meets = threading.current_thread() is threading.main_thread()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False) if meets else -1
    try:
        yield reading
    finally:
        if meets:
            signal.set_wakeup_fd(before)
        os.close(writing)
        os.close(reading)
