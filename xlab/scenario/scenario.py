"""What a scenario file says about itself, and how it is loaded.

A scenario is data and two functions, or three.  `plan` turns the size and the settings into
addresses, or raises UsageError, before anything exists; `build` types what the tutorial types,
checking its sentences on the way, and returns the flow that is then proved and measured.  `judge`
says what must hold of the method in a lab that somebody else typed, whatever the names there.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from xlab.errors import UsageError, line_of, meant, quoted
from xlab.kernel.packets import Encapsulation
from xlab.lab.lab import Host, Lab
from xlab.lab.node import Node
from xlab.lab.underlay import FEWEST_HOSTS
from xlab.record.portrait import Part, Portrait, Published
from xlab.scenario.claims import Checks
from xlab.scenario.judge import Judge

#: All that a scenario's file needs.
__all__ = [
    "Flow", "Option", "Part", "Portrait", "Published", "Scenario", "Settings", "Size", "load",
]  # fmt: skip

Settings = Mapping[str, str]
Judging = Callable[[Lab, Settings, Judge], None]
#: Beside namespaces, links and switches; as `xlab doctor` calls it.
Need = Literal["Open vSwitch", "masquerading"]


@dataclass(frozen=True, slots=True)
class Option:
    """A `--set NAME=VALUE` of a scenario."""

    name: str
    default: str
    help: str
    #: Empty: any value.
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Size:
    hosts: int
    #: On each host.
    containers: int


@dataclass(frozen=True, slots=True)
class Flow:
    """The traffic a method is about: proved on the wire, then measured."""

    source: Node
    target: Node
    #: Host to host, from eth0 to eth0; Open vSwitch supplies it where that is the method.
    control: tuple[Node, Node]
    #: What must be seen on the physical link of `watched`.
    encapsulation: Encapsulation
    watched: Host
    #: The negative control: take the mechanism away, and put it back.
    cut: Callable[[], None]
    heal: Callable[[], None]
    cut_text: str
    #: False for an inverted control: the traffic must go on, since it never used what was cut.
    cut_stops_traffic: bool = True
    #: What makes a host that has been switched on again part of the method: what its init system
    #: does by itself, and what somebody who typed it once must type again.
    after_boot: Callable[[Host], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    summary: str
    options: tuple[Option, ...]
    plan: Callable[[Size, Settings], Any]
    build: Callable[[Lab, Any, Size, Settings, Checks], Flow]
    #: States, in the order of `stages`, what must hold of a lab of this method that was typed; a
    #: stage that nobody types has nothing there.
    judge: Judging | None = None
    #: Its place among the others, last without one; and what it does not work without.  Both are
    #: read out of the file, which is not run for that: plain literals.
    order: int | None = None
    needs: tuple[Need, ...] = ()
    #: What `xlab compare all` sets beside it, its packets taking another path: "routes=underlay".
    variants: tuple[str, ...] = ()
    #: The same where the clock is virtual: what a kernel without that part would do, say.
    virtual_variants: tuple[str, ...] = ()
    #: What each of these, or "" for itself, adds to the one before, the cheapest first, in words:
    #: what a packet's cost is taken apart by.
    adds: tuple[tuple[str, str], ...] = ()
    #: The stages of its build, in their order, as it calls them (`Checks.stage`).
    stages: tuple[str, ...] = ()
    #: What carries packets between hosts, where it is not Open vSwitch; "userspace" in it if that.
    datapath: Callable[[Settings], str] = lambda _: "linux bridge"
    fewest_hosts: int = FEWEST_HOSTS
    #: For reports: one an encapsulation, the usual first.
    portraits: tuple[Portrait, ...] = ()

    def portrait(self, encapsulation: Encapsulation | None) -> Portrait | None:
        """That of an encapsulation, if it has one; of None the usual."""
        found = (each for each in self.portraits if encapsulation in (each.encapsulation, None))
        return next(found, None)

    def stage(self, text: str) -> str:
        """The stage meant: its name or a part of it that no other has; UsageError lists them.

        A scenario that says nothing of its stages may have any.
        """
        if not self.stages or text in self.stages:
            return text
        found = [stage for stage in self.stages if text.casefold() in stage.casefold()]
        if len(found) == 1:
            return found[0]
        many = "is more than one stage" if found else "is no stage"
        listed = ", ".join(f"{stage!r}" for stage in found or self.stages)
        guess = "" if found else meant(text.casefold(), self.stages)
        raise UsageError(f"{quoted(text)} {many} of {self.name}: {listed}{guess}")

    def settings(self, given: Settings) -> dict[str, str]:
        """Defaults and what was given; UsageError for an unknown name or a value not offered."""
        known = {option.name: option for option in self.options}
        for name, value in given.items():
            if name not in known:
                offered = ", ".join(known) or "none"
                guess = meant(name, known)
                raise UsageError(
                    f"{self.name} has no option {quoted(name)}; it has: {offered}{guess}"
                )
            choices = known[name].choices
            if choices and value not in choices:
                listed = f"{', '.join(choices)} is wanted{meant(value, choices)}"
                raise UsageError(f"{name}={value}: one of {listed}")
        return {option.name: given.get(option.name, option.default) for option in self.options}


def load(path: Path) -> Scenario:
    """The `SCENARIO` of a file; UsageError with file and line if it fails to load."""
    spec = importlib.util.spec_from_file_location(f"xlab_scenario_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"{path}:{line_of(path, error)}: {type(error).__name__}: {error}"
        ) from error
    scenario = getattr(module, "SCENARIO", None)
    if not isinstance(scenario, Scenario):
        raise UsageError(f"{path}: defines no SCENARIO")
    return scenario
