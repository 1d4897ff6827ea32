"""What unit tests share."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from xlab.report import drawing

_embedded = functools.lru_cache(maxsize=256)(drawing.embedded)
_pictures = functools.lru_cache(maxsize=256)(drawing.pictures)


@pytest.fixture(scope="module")
def same_charts_drawn_once() -> Iterator[None]:
    """For tests of what is around charts: one that was drawn before is taken as it was.

    Most of the time of making a page is matplotlib's, and the same chart is drawn the same
    (test_report_charts.py).
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "embedded", _embedded)
        patch.setattr(drawing, "pictures", _pictures)
        yield
