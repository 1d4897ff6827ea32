"""The command line: `app` is the application, `main` runs it.

Each module here is the command of its name, but for those that begin with an underscore: to add a
command is to add its file.  `lab/` has those of `xlab lab`.  Start-up is a promise (`xlab --help`
under 0.15 s), so commands import what does the work when they are to do it.
"""

from importlib import import_module
from pkgutil import iter_modules

from xlab.cli._app import app
from xlab.cli._main import main

for _found in iter_modules(__path__):
    if not _found.name.startswith("_") and _found.name != "screens":
        import_module(f"{__name__}.{_found.name}")

__all__ = ["app", "main"]
