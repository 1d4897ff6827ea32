"""The lab: hosts, containers, links, datapaths; and, called, the Python API's `xlab.lab(…)`.

The name is the package's and the function's.  Importing any module of this package makes
`xlab.lab` the package, whatever was there before, so the package itself has to be callable: its
class is replaced, which the language reference has for this ("Customizing module attribute
access").  Static type checkers see the function (xlab/__init__.py).
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    def __call__(self, *arguments: Any, **named: Any) -> Any:
        from xlab import api

        return api.lab(*arguments, **named)


sys.modules[__name__].__class__ = _CallablePackage
