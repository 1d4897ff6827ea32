"""Cells that come from others, in tables that a spreadsheet opens (OWASP, "CSV Injection")."""

from __future__ import annotations

import re

#: Full-width ones, too: = + - @ where Chinese or Japanese is typed.
_SIGN = r"[=+@\uff1d\uff0b\uff0d\uff20-]"
#: Where a decimal comma is in use lists are divided by semicolons: one in a text, or a new line,
#: begins a cell there, whatever is quoted.
_BEGINS = re.compile(rf"^(?=[\t\r\n]|\s*{_SIGN})|(?<=[;\t\r\n])(?= *{_SIGN})")


def harmless(cell: object) -> object:
    """A text without formulas: an apostrophe before each that would be one; others as they are."""
    return _BEGINS.sub("'", cell) if isinstance(cell, str) else cell
