"""What a lab answers to while it stands: who is in it, whether it still holds, a way in.

Runs in pid 1.  Verbs that change the lab, or measure in it, take turns; looking does not wait.
"""

from __future__ import annotations

import base64
import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from xlab.errors import UsageError, XlabError, meant, quoted
from xlab.faults import kinds
from xlab.faults.faults import Faults
from xlab.faults.kinds import HostCrash
from xlab.inside.build import Testbed, proof_of
from xlab.kernel import foreign, namespaces
from xlab.lab.docker import Container
from xlab.lab.lab import Host, Lab
from xlab.lab.machine_root import TYPED
from xlab.lab.node import Node
from xlab.record.judgement import Judgement
from xlab.record.record import Claim
from xlab.sandbox import containment, sandbox
from xlab.sandbox.containment import Limits
from xlab.sandbox.controller import Emit, Handler, WithDescriptors, aside
from xlab.sandbox.launching import launch
from xlab.sandbox.sandbox import Sandbox
from xlab.scenario.blueprint import Blueprint
from xlab.scenario.judge import Judge, Proved
from xlab.scenario.scenario import Flow, Judging

_MOST_TYPED_BYTES = 1 << 20
#: How long `run` waits for a program unless told otherwise.
DEFAULT_TIMEOUT_S = 10.0


def launch_lab(
    blueprint: Blueprint,
    *,
    name: str | None = None,
    keep: Sequence[Path] = (),
    machines: bool = False,
    guarded: bool = False,
    limits: Limits | None = None,
) -> Sandbox:
    """A sandbox in which the lab can be built, see `launching.launch`; with a name it may stay.

    In one that may its hosts are machines to work on; in another if `machines` says so.  They may
    change nobody's files in one that is `guarded`.  With `limits` every verb raises LimitError once
    one of them has been exceeded.
    """

    def handlers() -> dict[str, Handler]:
        testbed = Testbed(blueprint, machines=machines or bool(name), guarded=guarded)
        verbs = testbed.verbs() | Verbs(testbed, name or "").verbs()
        return {word: _kept(handler) for word, handler in verbs.items()} if limits else verbs

    return launch(handlers, name=name, keep=keep, limits=limits)


def _kept(handler: Handler) -> Handler:
    """What goes wrong where everything has been ended goes wrong for that."""

    def handle(arguments: Mapping[str, Any], emit: Emit) -> Any:
        try:
            return handler(arguments, emit)
        finally:
            containment.require_kept()

    return handle


class Verbs:
    """What is asked of a lab that has been built."""

    def __init__(self, testbed: Testbed, name: str) -> None:
        self._testbed = testbed
        self._name = name
        self._since = datetime.now(UTC)
        self._begun = time.monotonic()
        #: Pid 1's number outside.
        self._pid: int | None = None
        #: From the first one on.
        self._faults: Faults | None = None
        self._exercise: Any = None
        #: What was on the hosts' disks when an exercise began, by host and path.
        self._untouched: dict[str, dict[str, str]] = {}

    def verbs(self) -> dict[str, Handler]:
        return {
            "describe": self.describe,
            "names": self.names,
            "status": self.status,
            "enter": self.enter,
            "run": self.run,
            "fault": self.fault,
            "log": lambda *_: sandbox.log(),
            "network": self.network,
            "sample": self.sample,
            "trace": self.trace,
            "check": self.check,
            "exercise": self.exercise,
            "typed": self.typed,
            "peak": lambda *_: containment.peak(),
            "stay": self.stay,
        }

    def stay(self, arguments: Mapping[str, Any], _: Emit) -> None:
        """It stays from now on; whoever launched it knows pid 1's number outside."""
        self._pid = int(arguments["pid"])

    # -- looking -----------------------------------------------------------------------------------

    def describe(self, _: Mapping[str, Any], __: Emit) -> dict[str, Any]:
        """The lab as facts, whatever its state."""
        testbed, asked = self._testbed, self._testbed.blueprint.design
        lab = testbed.lab
        return {
            "name": self._name,
            "scenario": asked.scenario.name,
            "settings": dict(asked.settings),
            "state": "up" if testbed.stands else "building",
            "until": testbed.stopped_at,
            "since": self._since.isoformat(timespec="seconds"),
            "uptime_s": round(time.monotonic() - self._begun, 1),
            "pid": self._pid,
            "sandbox": sandbox.kind(),
            "datapath": testbed.blueprint.datapath,
            "faults": list(map(str, self._faults.in_force)) if self._faults else [],
            "underlay": dataclasses.asdict(asked.underlay),
            "nodes": [_node_facts(node) for node in lab.nodes] if lab else [],
        }

    def names(self, _: Mapping[str, Any], __: Emit) -> list[str]:
        """The nodes one can enter: hosts, the gateway, running containers."""
        lab = self._testbed.lab
        return [node.name for node in lab.nodes] if lab else []

    def network(self, _: Mapping[str, Any], __: Emit) -> list[dict[str, Any]]:
        """Every node and its devices, see `network.look`."""
        from xlab.lab import network

        return network.look(self._whole_lab())

    def sample(self, _: Mapping[str, Any], __: Emit) -> dict[str, Any]:
        """What nodes have received, sent, dropped and used so far, see `rates.sample`."""
        from xlab.lab import rates

        return rates.sample(self._whole_lab())

    def status(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Check again every claim that is to last, and that packets take the method's path.

        With `prove` the whole proof of the path, which cuts the method and heals it again.  Claims
        and path are told as events; returns how many claims there are and how many hold, what
        became of a daemon that has died, and of a lab that was typed its `judgement`.
        """
        testbed = self._testbed
        found: list[bool] = []

        def tell(event: Mapping[str, Any]) -> None:
            if event["kind"] == "claim":
                found.append(event["holds"])
            told(event)

        # Who does not read what is told would else hold up all who wait for their turn.
        with aside(emit) as told, testbed.turn:
            lab, prove = self._whole_lab(), bool(arguments.get("prove"))
            judge = testbed.blueprint.design.scenario.judge
            judgement = None
            if testbed.built is None and judge is not None:
                judgement = self._judge(lab, judge, tell, prove=prove)
            else:
                self._check_again(lab, tell, prove=prove)
            dead = ""
            try:
                lab.require_daemons()
            except XlabError as error:
                dead = str(error)
        return {
            "claims": len(found),
            "hold": sum(found),
            "dead_daemon": dead,
            "judgement": dataclasses.asdict(judgement) if judgement else None,
        }

    def _check_again(self, lab: Lab, emit: Emit, *, prove: bool) -> None:
        """What a scenario has built."""
        testbed, checks = self._testbed, self._testbed.checks
        assert checks is not None

        def tell(claim: Claim) -> None:
            emit({"kind": "claim", **dataclasses.asdict(claim)})

        checks.again(tell)
        if testbed.built and prove:
            proved = proof_of(testbed.built.flow, lab).proof
            emit({"kind": "path", **dataclasses.asdict(proved)})
        elif testbed.built:
            flow = testbed.built.flow
            checks.stage("path", lasts=False)  # asked here, each time
            how = f"in {flow.encapsulation}" if flow.encapsulation != "none" else "as it is"
            text = f"what {flow.source} sends to {flow.target} crosses the physical link {how}"
            try:
                checks.takes(flow.source, flow.target, flow.encapsulation, text)
            except (XlabError, OSError) as error:  # one of the two has been stopped, say
                tell(Claim("path", "path", text, how, str(error), holds=False, evidence=""))

    def _judge(self, lab: Lab, judge: Judging, emit: Emit, *, prove: bool) -> Judgement:
        """What somebody has typed, or is about to."""
        stated = Judge(lab, emit)
        judge(lab, self._testbed.blueprint.design.settings, stated)
        judgement = stated.judgement()
        if prove and stated.proved:
            proof = proof_of(_flow_of(stated.proved, lab), lab).proof
            emit({"kind": "path", **dataclasses.asdict(proof)})
        return judgement

    # -- going in ----------------------------------------------------------------------------------

    def enter(self, arguments: Mapping[str, Any], _: Emit) -> WithDescriptors:
        """Namespaces of `node`, or of the sandbox itself if that is "", as open files (setns(2)).

        The result names them, as in /proc/PID/ns, in the order of the descriptors, and has the
        `limits` of a contained lab (`containment.guard_who_enters`).  Unless
        `inhabited` is said, only its network is: with the sandbox's files, for sockets and for
        programs that are not to be the node's own.
        """
        theirs: dict[str, int] = {}
        if arguments["node"]:
            node = self._on(str(arguments["node"]))
            inhabited = bool(arguments.get("inhabited"))
            entered = node.inhabited() if inhabited else node.namespaces
            for kind in ("net", "uts", *(("mnt", "pid") if inhabited else ())):
                descriptor = getattr(entered, kind)
                if descriptor is not None:
                    theirs[kind] = descriptor
        with ExitStack() as unless_all_open:
            opened: dict[str, int] = {}
            for kind in sandbox.JOINED:
                opened[kind] = os.dup(theirs[kind]) if kind in theirs else _own(kind)
                unless_all_open.callback(os.close, opened[kind])
            unless_all_open.pop_all()
        limits = containment.limits()
        facts = {
            "kinds": list(opened),
            "sandbox": sandbox.kind(),
            "limits": limits and dataclasses.asdict(limits),
        }
        return WithDescriptors(facts, list(opened.values()))

    def run(self, arguments: Mapping[str, Any], _: Emit) -> dict[str, Any]:
        """Run `argv` in `node` to its end; CommandError if that takes longer than `timeout_s`."""
        stdin = arguments.get("stdin")
        done = self._on(str(arguments["node"])).run(
            [str(word) for word in arguments["argv"]],
            timeout_s=float(arguments.get("timeout_s") or DEFAULT_TIMEOUT_S),
            check=False,
            stdin=None if stdin is None else base64.b64decode(stdin),
            env={str(k): str(v) for k, v in (arguments.get("env") or {}).items()},
        )
        return dataclasses.asdict(done)

    def trace(self, arguments: Mapping[str, Any], _: Emit) -> dict[str, Any]:
        """A ping from `source` to `target`, a node or an address; see `tracing.trace`."""
        from xlab.inside.tracing.trace import trace

        with self._testbed.turn:
            source = self._on(str(arguments["source"]))
            name = str(arguments["target"])
            # What is gone, since its host is down, is an address that others still send to.
            gone = self._faults.address_of_gone(name) if self._faults else None
            target = gone or self._target(name)
            return trace(self._whole_lab(), source, target, gone=name if gone else "")

    def check(self, arguments: Mapping[str, Any], _: Emit) -> dict[str, Any]:
        """{holds, seen}: a check of an exercise, `word` and `arguments`; see `checks.kinds`.

        What is raised means that it can't be carried out.
        """
        from xlab.inside.checks import kinds as check_kinds

        with self._testbed.turn:
            lab = self._whole_lab()
            wait_s = arguments.get("wait_s")
            seen = check_kinds.examine(
                str(arguments["word"]),
                arguments["arguments"],
                lab,
                self._faults_of(lab),
                wait_s=None if wait_s is None else float(wait_s),
                strict=bool(arguments.get("strict")),
            )
        return {"holds": seen.holds, "seen": seen.text}

    def exercise(self, arguments: Mapping[str, Any], _: Emit) -> Any:
        """What is known of the exercise that is done here, once `facts` of it have been told.

        What is on the hosts' disks when they are told first is nobody's own doing.
        """
        if "facts" in arguments:
            if self._exercise is None:
                self._untouched = {host.name: host.changed_files() for host in self._hosts_on()}
            self._exercise = arguments["facts"]
        return self._exercise

    def typed(self, _: Mapping[str, Any], __: Emit) -> dict[str, Any]:
        """What was typed in shells, by node, and the files that were changed, by host and path.

        Both are the student's, and may be anything; a file that is long or no text is left out.
        """
        lines, files = {}, {}
        for host in self._hosts_on():
            for node in (host, *host.containers):
                with suppress(XlabError, OSError), node.entered():
                    found = foreign.text(Path(TYPED), longest_bytes=_MOST_TYPED_BYTES)
                    lines[node.name] = found
            before = self._untouched.get(host.name, {})
            files[host.name] = {
                path: text for path, text in host.changed_files().items()
                if before.get(path) != text
            }  # fmt: skip
        return {"lines": lines, "files": files}

    def _hosts_on(self) -> list[Host]:
        return [host for host in self._whole_lab().hosts if host.is_on]

    def fault(self, arguments: Mapping[str, Any], _: Emit) -> dict[str, Any]:
        """Do what `order` says, see `faults.kinds`; without one only tell.

        With `wait` it returns when the network does what is then to be expected of it, and says
        after how many seconds.  The result names the faults in force and the pairs of nodes that
        cannot reach each other because of them.
        """
        with self._testbed.turn:
            faults = self._faults_of(self._whole_lab())
            if arguments.get("order"):
                faults.do(str(arguments["order"]))
            waited_s = faults.await_expected() if arguments.get("wait") else None
            cut = [list(pair) for pair, reached in faults.expected().items() if not reached]
        return {
            "in_force": [{"fault": str(f), "cure": f.cure} for f in faults.in_force],
            "cut": cut,
            "waited_s": waited_s,
            "grammar": kinds.grammar(),
        }

    # -- finding -----------------------------------------------------------------------------------

    def _faults_of(self, lab: Lab) -> Faults:
        if self._faults is None:
            built = self._testbed.built
            self._faults = Faults(lab, built.flow if built else None)
        return self._faults

    def _whole_lab(self) -> Lab:
        if self._testbed.lab is None or not self._testbed.stands:
            raise XlabError(f"lab {self._name} is still being built")
        return self._testbed.lab

    def _target(self, name: str) -> Node | IPv4Address:
        try:
            return IPv4Address(name)
        except ValueError:
            return self._node(name)

    def _on(self, name: str) -> Node:
        """A node that one can go into."""
        node = self._node(name)
        if not node.is_on:
            raise UsageError(f"{name} is down: {_remedy(name)}")
        return node

    def _node(self, name: str) -> Node:
        lab = self._whole_lab()
        host, _, container = name.partition("/")
        if container and any(each.name == host and not each.is_on for each in lab.hosts):
            with_it = "and its containers with it"
            raise UsageError(f"{name}: {host} is down, {with_it}: {_remedy(host)}")
        if name == lab.wire.name:
            return lab.wire
        try:
            return lab[name]
        except KeyError:
            known = [*(node.name for node in lab.nodes), lab.wire.name]
            guess = meant(name, known)
            shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if known[20:] else "")
            raise UsageError(
                f"no node is called {quoted(name)}: there are {shown}{guess}"
            ) from None


def _flow_of(proved: Proved, lab: Lab) -> Flow:
    h1, h2 = lab.host_of(proved.source), lab.host_of(proved.target)
    return Flow(
        source=proved.source,
        target=proved.target,
        control=(h1, h2),
        encapsulation=proved.encapsulation,
        watched=h1,
        cut=proved.cut.cut,
        heal=proved.cut.heal,
        cut_text=proved.cut.text,
        cut_stops_traffic=proved.cut_stops_traffic,
    )


def _node_facts(node: Node) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": node.name, "kind": "gateway", "address": None}
    if isinstance(node, Host):
        facts |= {"kind": "host", "daemons": node.daemons()}
    elif isinstance(node, Container):
        facts |= {
            "kind": "container",
            "id": node.id[:12],
            "image": node.image,
            "command": list(node.command),
            "host_interface": node.host_interface,
        }
    with suppress(XlabError):
        facts["address"] = str(node.address)
    try:
        facts["addresses"] = node.device_addresses()
    except XlabError:
        # Switched off, or stopped a moment ago.
        return facts | {"up": False, "addresses": {}}
    return facts | {"up": True}


def _remedy(host: str) -> str:
    return f"`xlab fault {HostCrash(host).cure}` brings it back"


def _own(kind: str) -> int:
    """A namespace of pid 1 itself; this thread, which enters nodes, may be elsewhere."""
    held = getattr(namespaces.home(), kind, None)
    if held is not None:
        return os.dup(held)
    return os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
