"""From a report to the files it is about: relative, and to nothing outside a record's folder.

But for one page of the documentation, which every report leads to where it is there.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

from xlab.record.record import RunRecord

#: Of a checkout, and what the page is called where there is no link to it.
GUIDE = "docs/which-method.md"
_CHECKOUT = Path(__file__).resolve().parents[2]
_RAW_FILE = re.compile(r"raw/([A-Za-z0-9][\w.+-]*)", re.ASCII)


def relative(target: Path, base: Path) -> str:
    """The address of a file for a report in the folder `base`; it holds while both move together.

    On different file systems too: neither needs to be there.
    """
    return quote(os.path.relpath(target.absolute(), base.absolute()), errors="surrogateescape")


def guide(base: Path, *, linked: bool) -> str | None:
    """The address of "Which method should I use?"; None where it is not there for the reader.

    A report that is to be handed on (not `linked`) has it while it stays inside the checkout.
    """
    file = _CHECKOUT / GUIDE
    inside = base.resolve().is_relative_to(_CHECKOUT)
    return relative(file, base) if file.is_file() and (linked or inside) else None


def capture(record: RunRecord) -> str:
    """The capture of the path's proof, "raw/path.pcap", if the proof names one."""
    named = _RAW_FILE.match(record.path.evidence) if record.path else None
    return named[0] if named else ""


def raw_files(record: RunRecord) -> list[str]:
    """The names of files under raw/ that the record mentions."""
    named = set(_RAW_FILE.findall(record.path.evidence) if record.path else ())
    for m in record.measurements:
        listed = m.detail.get("raw")
        for name in listed if isinstance(listed, list) else ():
            if isinstance(name, str) and _RAW_FILE.fullmatch(f"raw/{name}"):
                named.add(name)
    return sorted(named)
