"""Files that an exercise puts into hosts, out of its folder, whoever has made that.

They go to others, into a lab or an export: one that is outside of the folder is no part of it.
"""

from __future__ import annotations

from pathlib import Path

from xlab.errors import UsageError, XlabError
from xlab.kernel import foreign

#: Of one; in base64 a request to a lab has room for it (sandbox/controller.py).
MOST_BYTES = 8 << 20


def read(folder: Path, file: Path) -> bytes:
    """UsageError for what is no regular file, too long, or not in the folder, be it by a link."""
    try:
        return foreign.read(file, longest_bytes=MOST_BYTES, below=folder)
    except FileNotFoundError as error:
        raise UsageError(f"{file}: is missing") from error
    except XlabError as error:
        raise UsageError(str(error)) from error
