"""What others have said, as cells of a table."""

from __future__ import annotations

import pytest

from xlab.record import spreadsheet


@pytest.mark.parametrize(
    ("said", "cell"),
    [
        ("=1+1", "'=1+1"),
        (" +1", "' +1"),
        ("-1", "'-1"),
        ("@sum(a1)", "'@sum(a1)"),
        ("\ufe66", "\ufe66"),
        ("\uff1dcmd", "'\uff1dcmd"),
        ("\twell", "'\twell"),
        ("no route;=cmd|' /C calc'!A0;", "no route;'=cmd|' /C calc'!A0;"),
        ("seen; -1", "seen;' -1"),
        ("seen\n=1", "seen\n'=1"),
        ("10.0.0.1 - 10.0.0.9, a=b; c", "10.0.0.1 - 10.0.0.9, a=b; c"),
        ("", ""),
    ],
)
def test_a_text_is_no_formula_however_it_is_divided(said: str, cell: str) -> None:
    assert spreadsheet.harmless(said) == cell


@pytest.mark.parametrize("number", [-1, -0.5, 0, None])
def test_a_number_stays_as_it_is(number: float | None) -> None:
    assert spreadsheet.harmless(number) is number
