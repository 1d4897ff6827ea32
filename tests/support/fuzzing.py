"""What property tests of readers share: a documented error is an outcome, all else a failure."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import hypothesis

_T = TypeVar("_T")

#: What a message to a person may come to, whatever it quotes.
_LONGEST_MESSAGE = 1000


def one_in(parts: int) -> hypothesis.settings:
    """For what takes long: so much fewer examples than the profile has, be it fast or long."""
    return hypothesis.settings(max_examples=hypothesis.settings().max_examples // parts)


class Refusal(str):
    """The words of a documented error."""

    __slots__ = ()


def attempt(call: Callable[[], _T], *documented: type[Exception]) -> _T | Refusal:
    """What `call` returns, or what it says where it raises one of the `documented` errors.

    Any other exception passes, and fails the test; so does an error without words, or with more
    than anyone would read.
    """
    try:
        return call()
    except documented as error:
        said = str(error)
    assert 0 < len(said) <= _LONGEST_MESSAGE, said[:_LONGEST_MESSAGE]
    return Refusal(said)


@contextmanager
def memory_below(limit_bytes: int) -> Iterator[None]:
    """Fails if Python objects made inside ever take more; slows everything inside several times."""
    tracemalloc.start()
    try:
        yield
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < limit_bytes, f"{peak_bytes:,} bytes"
