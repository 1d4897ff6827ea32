"""The command line: `app` is the application, `main` runs it.

Each module here is the command of its name, but for those that begin with an underscore: to add a
command is to add its file.  `lab/` has those of `xlab lab`.  Start-up is a promise (`xlab --help`
under 0.15 s), so commands import what does the work when they are to do it.
"""

from importlib import import_module
from pkgutil import iter_modules

from xlab.cli._app import app
from xlab.cli._main import main

#: As the help has them; what is not named here comes last.
_ORDER = (
    "run",
    *("up", "ps", "status", "down"),
    *("shell", "exec", "cli", "fault"),
    *("capture", "trace", "graph", "top"),
    *("compare", "check", "scale", "sweep"),
    *("report", "script"),
    *("list", "doctor"),
)
_found = [each.name for each in iter_modules(__path__) if not (each.ispkg or each.name[0] == "_")]
for _name in sorted(_found, key=lambda name: [*_ORDER, name].index(name)):
    import_module(f"{__name__}.{_name}")
import_module(f"{__name__}.lab")

__all__ = ["app", "main"]
