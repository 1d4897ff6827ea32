"""A process that has opened nearly all it may."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from xlab.sandbox.console import close_all

_LIMIT = 256


@contextmanager
def room_for(more: int) -> Iterator[None]:
    """This process may open so many descriptors more, and then meets EMFILE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_LIMIT, soft), hard))
    taken: list[int] = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        assert len(taken) >= more
        for _ in range(more):
            os.close(taken.pop())
        yield
    finally:
        close_all(taken)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
