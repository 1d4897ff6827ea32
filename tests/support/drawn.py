"""The same charts drawn once."""

from __future__ import annotations

import functools

import pytest

from xlab.report import drawing

_embedded = functools.lru_cache(maxsize=256)(drawing.embedded)
_pictures = functools.lru_cache(maxsize=256)(drawing.pictures)


def once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(drawing, "embedded", _embedded)
    patch.setattr(drawing, "pictures", _pictures)
