"""The forms of a report: each module here is one, called what the form is called.

Its first line says by which names of files it is meant, and what is in such a file:

    FILE.html, FILE.htm: a page with charts.

`of_results(told, base)` composes it of records or of a comparison, `of_sweep(told, base)` of a
sweep, with links that begin at the folder `base`; a form may have one of them alone.  Either
returns text, bytes, or what becomes JSON.  Nothing else lists the forms.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from xlab.errors import UsageError

Kind = Literal["results", "sweep"]

_FIRST_LINE = re.compile(r'"""(FILE\.[^:]+): (.+)\.(?:""")?$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Form:
    name: str
    #: ".html", ".htm": what the name of such a file ends in, the usual one first.
    endings: tuple[str, ...]
    #: What is in it: "a page with charts".
    about: str

    def composer(self, kind: Kind) -> Callable[[Any, Path], Any] | None:
        """What composes it of results or of a sweep; None where nothing does."""
        module = importlib.import_module(f"{__name__}.{self.name}")
        found: Callable[[Any, Path], Any] | None = getattr(module, f"of_{kind}", None)
        return found


def known() -> Iterator[Form]:
    """All forms, by name.  Only their first lines are read: `xlab --help` imports none of them."""
    for file in sorted(Path(__file__).parent.glob("[!_]*.py")):
        with file.open(encoding="utf-8") as opened:
            said = _FIRST_LINE.match(opened.readline())
        if said:
            endings = tuple(name.removeprefix("FILE") for name in said[1].split(", "))
            yield Form(file.stem, endings, said[2])


def composer(name: str, kind: Kind) -> Callable[[Any, Path], Any]:
    """What composes the form of that name; UsageError, with those that can, if it is not for it."""
    able = {form.name: found for form in known() if (found := form.composer(kind))}
    if name not in able:
        raise UsageError(f"of a {kind} there is no {name}: there are text, {', '.join(able)}")
    return able[name]
