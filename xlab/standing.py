"""A lab that stays, seen from outside: start one, find it, ask it, go into it, end it.

    with standing.find("ovs-gre") as lab:
        lab.run("h1", ["ip", "address"])
        lab.down()

Nothing is written down anywhere: which labs run, and what they are, is asked of the labs.
"""

from __future__ import annotations

import base64
import select
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Self

from xlab import capabilities, job, names, sandbox
from xlab.chronicle import Chronicle, Watch
from xlab.controller import Client
from xlab.entering import Doors
from xlab.errors import SandboxError, UsageError
from xlab.processes import Completed
from xlab.request import Request
from xlab.runner import Bench

#: A controller that looks answers at once; one that is being stopped or is very busy may not.
_LOOKING_S = 15.0


class Standing:
    """A connection to a lab that stays."""

    def __init__(self, name: str) -> None:
        """UsageError if no lab of that name runs."""
        self.name = name
        self._channel = names.connect(name)
        self._client = Client(self._channel)

    def describe(self) -> dict[str, Any]:
        """See `Resident.describe`; SandboxError if that takes longer than 15 s."""
        return dict(self._look("describe"))

    def node_names(self, patience_s: float = _LOOKING_S) -> list[str]:
        return [str(name) for name in self._look("names", patience_s)]

    def log(self) -> str:
        """What its pid 1 has printed."""
        return str(self._look("log"))

    def status(self, watch: Watch, *, prove: bool = False) -> dict[str, Any]:
        """See `Resident.status`."""
        return dict(self._client.call("status", {"prove": prove}, watch))

    def run(
        self,
        node: str,
        argv: Sequence[str],
        *,
        timeout_s: float = 10.0,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a program in a node to its end, whatever its status."""
        arguments = {
            "node": node,
            "argv": list(argv),
            "timeout_s": timeout_s,
            "stdin": None if stdin is None else base64.b64encode(stdin).decode(),
            "env": dict(env or {}),
        }
        done = self._client.call("run", arguments)
        return Completed(**{**done, "argv": tuple(done["argv"])})

    def enter(self, node: str, *, inhabited: bool = True) -> Doors:
        """The way into a node, or with "" into the sandbox itself."""
        facts, descriptors = self._client.call_for_descriptors(
            "enter", {"node": node, "inhabited": inhabited}
        )
        opened = dict(zip(facts["kinds"], descriptors, strict=True))
        return Doors(opened, rootless=facts["sandbox"] == "rootless")

    def call(self, verb: str, arguments: Mapping[str, Any], watch: Watch = lambda _: None) -> Any:
        """Any other verb of its controller."""
        return self._client.call(verb, arguments, watch)

    def has_ended(self) -> bool:
        """Whether its pid 1 has, or does within a second."""
        poller = select.poll()
        poller.register(self._channel, select.POLLIN)
        return bool(poller.poll(1e3)) and not self._channel.recv(1, socket.MSG_PEEK)

    def down(self) -> None:
        """End the lab; returns when the last of its processes has ended."""
        _, descriptors = self._client.call_for_descriptors("down", {})
        sandbox.await_end(descriptors[0])

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look(self, verb: str, patience_s: float = _LOOKING_S) -> Any:
        self._channel.settimeout(patience_s)
        try:
            return self._client.call(verb, {})
        finally:
            self._channel.settimeout(None)


def find(name: str | None) -> Standing:
    """The lab of that name; without one, the only lab that runs.

    UsageError if there is none, or if without a name there are several: it lists them.
    """
    running = names.running()
    if name is not None:
        names.validated(name)
        if name in running:
            return Standing(name)
        there_are = f"; there {_are(running)}" if running else ""
        raise UsageError(f"no lab named {name!r} is running{there_are}")
    if not running:
        raise UsageError("no lab is running; `xlab up SCENARIO` starts one")
    if len(running) > 1:
        raise UsageError(f"which lab? There {_are(running)}")
    return Standing(running[0])


def describe_all() -> list[dict[str, Any]]:
    """All labs that run, as facts; of one that does not answer only the name and the state."""
    found = []
    for name in names.running():
        try:
            with Standing(name) as lab:
                found.append(lab.describe())
        except UsageError:
            continue  # it has ended meanwhile
        except SandboxError as error:
            found.append({"name": name, "state": str(error), "nodes": []})
    return found


def up(
    request: Request,
    *,
    name: str | None = None,
    until: str | None = None,
    empty: bool = False,
    watch: Watch = lambda _: None,
) -> Chronicle:
    """Start a lab that stays; returns when it has been built, and what was found on the way.

    Its name is the scenario's unless given.  With `until` the build ends where that stage begins;
    with `empty` hosts are wired, and that is all.  A lab in which claims do not hold stays; one
    that cannot be built does not, and the error is raised.  UsageError if the name is taken.
    """
    design = job.design(request)
    name = names.validated(name or design.scenario.name)
    if name in names.running():
        raise UsageError(
            f"a lab named {name!r} is already running: `xlab down {name}` ends it, "
            "--name gives this one another name"
        )
    if until is not None:
        until = design.scenario.stage(until)
    chronicle = Chronicle(design, watch)
    chronicle.job = job.equip(design, capabilities.probe())
    with Bench(chronicle, name=name) as bench:
        bench.build(until=until, empty=empty)
        bench.stay()
    return chronicle


def _are(running: Sequence[str]) -> str:
    return f"{'is' if len(running) == 1 else 'are'} {', '.join(running)}"
