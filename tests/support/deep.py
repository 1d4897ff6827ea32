"""A folder in a folder in a folder, as whoever may write somewhere makes it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def nested(top: Path, deep: int) -> Iterator[int]:
    """So many folders, the first of them `top`; a descriptor of the last.

    What is left in the end goes by rm(1): Python's own, of pytest's folders, too, goes no deeper
    than its calls.
    """
    top.mkdir()
    here = os.open(top, os.O_PATH)
    try:
        for _ in range(deep - 1):
            os.mkdir("d", dir_fd=here)
            here, above = os.open("d", os.O_PATH, dir_fd=here), here
            os.close(above)
        yield here
    finally:
        os.close(here)
        subprocess.run(["rm", "-rf", "--", str(top)], check=True)
