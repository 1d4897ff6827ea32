"""`xlab lab …`: exercises; each module is the command of its name."""

from importlib import import_module

from xlab.cli._app import group

group(__name__, "Exercises: begin one, be checked, get hints; write, prove and hand out your own.")

#: As the help has them: what a student types, then what a teacher does.
_ORDER = (
    *("list", "start", "check", "hint", "reset", "solve", "submit"),
    *("new", "validate", "selftest", "export", "grade"),
)
for _name in _ORDER:
    import_module(f"{__name__}.{_name}")
