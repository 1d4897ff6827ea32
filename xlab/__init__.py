"""xlab: a reproducible testbed for cross-host container networking on one Linux machine.

with xlab.lab("ovs-gre", hosts=3) as lab:
    lab["h1/c1"].run("ping", "-c1", lab["h3/c1"].address)
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

from xlab.record.version import __version__ as __version__

if TYPE_CHECKING:
    from xlab.outside.api import lab as lab
else:
    # The name is the package's and the function's.  Importing any module of the package makes
    # `xlab.lab` the package, whatever was there before, so the package itself has to be callable:
    # its class is replaced, which the language reference has for this ("Customizing module
    # attribute access").  Nothing else is imported: every start of the command line passes here.
    from xlab import lab


class _CallablePackage(ModuleType):
    def __call__(self, *arguments: Any, **named: Any) -> Any:
        from xlab.outside import api

        return api.lab(*arguments, **named)


lab.__class__ = _CallablePackage
