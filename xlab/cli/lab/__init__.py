"""`xlab lab …`: exercises; each module is the command of its name."""

from importlib import import_module
from pkgutil import iter_modules

from xlab.cli._app import group

group(__name__, "Exercises: begin one, be checked, get hints; write, prove and hand out your own.")

for _found in iter_modules(__path__):
    if not _found.name.startswith("_"):
        import_module(f"{__name__}.{_found.name}")
