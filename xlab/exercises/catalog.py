"""The exercises there are: folders of labs/, or of anywhere else by their path."""

from __future__ import annotations

import re
from pathlib import Path

from xlab.errors import UsageError, meant, quoted, shortened
from xlab.scenario import catalog as scenarios

_FOLDER = "[0-9][0-9]-*"
_NUMBER = re.compile(r"[0-9]{1,2}")


def folders() -> list[Path]:
    """Those of labs/, in their order."""
    _, labs = scenarios.folders()
    return sorted(each for each in labs.glob(_FOLDER) if _is_one(each))


def find(word: str) -> Path:
    """The folder meant: by "05" or 5, "05-share-out-a-subnet", "share-out-a-subnet", or its path.

    UsageError, with the nearest, for what is none.
    """
    if "/" in word or word in (".", ".."):
        folder = Path(word).resolve()
        if not _is_one(folder):
            raise UsageError(f"{shortened(word)}: no exercise is there (it has no lab.yaml)")
        return folder
    known = folders()
    wanted = word.zfill(2) if _NUMBER.fullmatch(word) else word
    for folder in known:
        if wanted in (folder.name, folder.name[:2], folder.name[3:]):
            return folder
    here = Path(word)
    if _is_one(here):
        return here.resolve()
    guess = meant(word, [folder.name[3:] for folder in known])
    raise UsageError(f"no exercise is called {quoted(word)}: `xlab lab list` shows them{guess}")


def _is_one(folder: Path) -> bool:
    try:
        return (folder / "lab.yaml").is_file()
    except OSError:  # a name too long, a folder closed
        return False
