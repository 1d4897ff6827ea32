"""Mininet's modules as a script sees them: their own contents, with our classes in the place of
Mininet's.

Mininet's code keeps seeing its own modules, which our classes are derived from: in sys.modules are
copies of them.  A plain function of a module looks its names up in the copy.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from xlab.kernel import reaping
from xlab.mininet import cli, intf, link, net, node, openvswitch, original, switch
from xlab.mininet import machine as machines


def _started(argv: Any, *arguments: Any, **options: Any) -> Any:
    openvswitch.see_to(argv)
    return original.util.Popen(argv, *arguments, **options)


#: Our classes: each stands for Mininet's of that name, wherever that is.
_CLASSES = {
    name: value
    for module in (cli, intf, link, net, node, switch)
    for name, value in vars(module).items()
    if isinstance(value, type) and value.__module__ == module.__name__
}
_MODULES = ("node", "nodelib", "link", "net", "cli", "util", "clean", "topolib", "term")
#: What else is ours, by module; the rest of it stays as it is.
_OURS: dict[str, dict[str, Any]] = {
    "node": {
        "DefaultControllers": (switch.Controller, switch.OVSController),
        "DefaultController": switch.default_controller,
        "findController": lambda *_, **__: switch.Controller,
    },
    "util": {
        "waitListening": net.wait_listening,
        "moveIntf": node.move_interface,
        "moveIntfNoRetry": node.move_interface,
        "ensureRoot": lambda: None,
        "fixLimits": lambda: None,
        "mountCgroups": lambda: None,
        "makeIntfPair": link.make_pair,
        # Of quietRun, errRun and the like.
        "Popen": _started,
    },
    "clean": {"cleanup": net.clean_up, "killprocs": lambda *_: None},
}


def install() -> None:
    """Put the copies into sys.modules; once is enough.

    Modules that have been imported before keep what they took from Mininet's own.
    """
    package = sys.modules["mininet"]
    if hasattr(package, "xlab"):
        return
    package.xlab = True  # type: ignore[attr-defined]
    # What Mininet runs by itself must not lose its exit status in pid 1.
    if reaping.reaps_everything():
        original.util.Popen = machines.Program
    by_identity = {
        id(getattr(getattr(original, module), name)): ours
        for module in _MODULES
        for name, ours in {**_CLASSES, **_OURS.get(module, {})}.items()
        if hasattr(getattr(original, module), name)
    }
    for module in _MODULES:
        copy = _copy(getattr(original, module), _OURS.get(module, {}), by_identity)
        sys.modules[copy.__name__] = copy
        setattr(package, module, copy)


def _copy(
    module: types.ModuleType, names: dict[str, Any], by_identity: dict[int, Any]
) -> types.ModuleType:
    copy = types.ModuleType(module.__name__, module.__doc__)
    copy.__dict__.update(module.__dict__)
    for name, value in vars(module).items():
        if id(value) in by_identity:
            setattr(copy, name, by_identity[id(value)])
        elif isinstance(value, types.FunctionType) and value.__module__ == module.__name__:
            setattr(copy, name, _with_globals(value, copy.__dict__))
    copy.__dict__.update(names)
    return copy


def _with_globals(function: types.FunctionType, namespace: dict[str, Any]) -> types.FunctionType:
    """The same function, which looks names up elsewhere."""
    twin = types.FunctionType(
        function.__code__,
        namespace,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    twin.__dict__.update(function.__dict__)
    twin.__doc__ = function.__doc__
    return twin
