"""The Python API: a scenario's lab that lives as long as a `with` block.

    with xlab.lab("ovs-gre", hosts=3) as lab:
        lab["h1/c1"].run("ping", "-c1", lab["h3/c1"].address)

    your program ── lab process (lab_process.py): plans, launches, waits for the program's end
         │             └── pid 1 of the lab
         └── a socket to pid 1, handed over by the lab process

A sandbox is a fork that goes on running Python, sound only in a process with one thread, and ends
with the thread that made it (PR_SET_PDEATHSIG, prctl(2)).  A program that uses a lab may have
threads, and make it in one that ends.  So a process of its own does that, and the program needs no
more than subprocess and a socket: it stays where it is, and so does all it has imported.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import IO, Any, Literal, Self

from xlab.errors import (
    CapabilityError,
    ClaimError,
    CommandError,
    SandboxError,
    UsageError,
    XlabError,
    meant,
    quoted,
)
from xlab.kernel.processes import Completed
from xlab.outside import asking
from xlab.outside.asking import Status, Told
from xlab.record.record import Claim, PathProof
from xlab.sandbox import entering, sandbox
from xlab.sandbox.containment import Limits
from xlab.sandbox.controller import Client
from xlab.sandbox.pulse import Pulse
from xlab.scenario.request import Request

#: How long the lab process may take to end all processes of a lab.
_END_S = 60.0


def lab(
    scenario: str | os.PathLike[str],
    *,
    hosts: int | None = None,
    containers: int = 2,
    settings: Mapping[str, object] | None = None,
    topo: str | None = None,
    mtu: int = 1500,
    rate_bits_per_second: float | None = None,
    delay_ms: float | None = None,
    jitter_ms: float | None = None,
    loss_ratio: float | None = None,
    until: str | None = None,
    empty: bool = False,
    machines: bool = False,
    check: bool = True,
    keep: Sequence[str | os.PathLike[str]] = (),
) -> LabHandle:
    """A scenario's lab, built and checked where its `with` block begins, gone where that ends.

    `scenario` is a name (`xlab list`) or a path to a scenario file, `settings` its options; hosts
    (2 unless `topo` says), containers (on each host), topo, mtu and the conditions of the links
    (each link, each way) are as in `xlab.scenario.request.Request`.  The build ends where
    the stage `until` begins; with `empty` hosts are wired, and that is all.  Hosts that are
    `machines` have files of their own, docker, systemctl and what else is typed in a lab that stays
    (docs/hosts.md).  A lab has a /tmp and a /run of its own: `keep` names folders below the
    machine's that stay visible.

    Raises UsageError for what makes no sense; as the block begins also CapabilityError for what
    this machine can't do, and, with `check`, ClaimError if a claim does not hold or the path of
    the packets is not proved.
    """
    if topo is not None and hosts is not None:
        raise UsageError("topo says how many hosts there are: leave hosts out")
    if empty and until is not None:
        raise UsageError("empty builds nothing of the scenario: leave until out")
    request = Request(
        scenario=os.fspath(scenario),
        hosts=2 if hosts is None else hosts,
        containers=containers,
        topo=topo,
        mtu=mtu,
        rate_bits_per_second=rate_bits_per_second,
        delay_ms=delay_ms,
        jitter_ms=jitter_ms,
        loss_ratio=loss_ratio,
        settings={name: str(value) for name, value in (settings or {}).items()},
    )
    return of_request(request, until=until, empty=empty, machines=machines, check=check, keep=keep)


def of_request(
    request: Request,
    *,
    until: str | None = None,
    empty: bool = False,
    machines: bool = False,
    check: bool = True,
    keep: Sequence[str | os.PathLike[str]] = (),
    guarded: bool = False,
    limits: Limits | None = None,
) -> LabHandle:
    """The same for a request that has been made; with `limits` for the work of strangers.

    In one that is `guarded` people's files are read-only (`lab.machine_root`).
    LimitError is what then is raised of whatever is asked once one was exceeded.
    """
    how = {"until": until, "empty": empty}
    return LabHandle(
        request, how=how, machines=machines, check=check, keep=keep, guarded=guarded, limits=limits
    )


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong with a lab on purpose."""

    #: "link h1 down" …
    in_force: tuple[str, ...]
    #: Pairs of nodes that cannot reach each other because of it.
    cut: tuple[tuple[str, str], ...]
    #: How long the network took to do what is to be expected of it; None if not waited for.
    waited_s: float | None


class LabHandle:
    """See `lab`.  Its methods may be called from any thread."""

    def __init__(
        self,
        request: Request,
        *,
        how: Mapping[str, Any],
        machines: bool,
        check: bool,
        keep: Sequence[str | os.PathLike[str]],
        guarded: bool = False,
        limits: Limits | None = None,
    ) -> None:
        #: All that were checked while it was built.
        self.claims: tuple[Claim, ...] = ()
        #: The proof of the packets' path; None in a lab that is not built to its end.
        self.path: PathProof | None = None
        #: Fallbacks that whoever reads the figures must know of.
        self.notes: tuple[str, ...] = ()
        #: What moves packets between hosts: "linux bridge", "ovs userspace" …
        self.datapath = ""
        self._request = request
        self._how = how
        self._machines = machines
        self._check = check
        self._keep = [str(Path(folder).resolve()) for folder in keep]
        self._guarded = guarded
        self._limits = limits
        self._nodes: dict[str, NodeHandle] = {}
        self._process: _LabProcess | None = None
        self._connections: _Connections | None = None
        self._started: list[subprocess.Popen[Any]] = []

    # -- its nodes ---------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> NodeHandle:
        """A host ("h1"), a container ("h1/c1") or the gateway ("gw")."""
        self._connected()
        try:
            return self._nodes[name]
        except KeyError:
            guess = meant(str(name), self._nodes)
            known = ", ".join(list(self._nodes)[:20])
            raise UsageError(
                f"no node is called {quoted(str(name))}: there are {known}{guess}"
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._nodes

    def __iter__(self) -> Iterator[str]:
        """The nodes' names: each host and its containers, then the gateway."""
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def hosts(self) -> tuple[NodeHandle, ...]:
        return tuple(node for node in self._nodes.values() if node.kind == "host")

    @property
    def containers(self) -> tuple[NodeHandle, ...]:
        """Those of the first host, then those of the second, and so on."""
        return tuple(node for node in self._nodes.values() if node.kind == "container")

    @property
    def wire(self) -> NodeHandle:
        """Where the switches of the physical network are: port s1-eth1 leads to the first host."""
        self._connected()
        return NodeHandle(self, "wire", "wire", None)

    # -- what can be asked of it -------------------------------------------------------------------

    def status(self, *, prove: bool = False) -> Status:
        """Check every claim again that is to last, and the way packets take.

        With `prove` the whole proof of the path, which cuts the method and heals it again.
        """
        with self._connected().one() as client:
            return asking.status(client, prove=prove)

    def fault(self, order: str = "", *, wait: bool = False) -> Faults:
        """Let something go wrong, or mend it, in the words of `xlab fault`; "" only tells.

            link h1 down      crash h2       kill h1 ovs-vswitchd       partition h1 | h2
            link h1 up        reboot h2      restart h1 ovs-vswitchd    heal

        With `wait` it returns when the network does what is then to be expected of it;
        DeadlineError if that takes too long.
        """
        with self._connected().one() as client:
            found = client.call("fault", {"order": order, "wait": wait})
        return Faults(
            tuple(str(each["fault"]) for each in found["in_force"]),
            tuple((str(a), str(b)) for a, b in found["cut"]),
            found["waited_s"],
        )

    def call(self, verb: str, arguments: Mapping[str, Any]) -> Any:
        """Anything else its pid 1 answers to, see `inside.verbs`."""
        with self._connected().one() as client:
            return client.call(verb, arguments)

    # -- its life ----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._process is not None:
            raise UsageError("a lab is used once: call xlab.lab() again for another")
        self._process = _LabProcess()
        try:
            self._build(self._process)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the lab down; returns when the last of its processes has ended."""
        if self._connections is not None:
            self._connections.close()
        if self._process is not None:
            self._process.close()
        for process in self._started:
            process.wait(_END_S)  # the lab is gone, and with it what ran there
        self._started.clear()

    def _build(self, process: _LabProcess) -> None:
        asked = {
            "request": dataclasses.asdict(self._request),
            "until": self._how["until"],
            "keep": self._keep,
            "machines": self._machines,
            "guarded": self._guarded,
            "limits": dataclasses.asdict(self._limits) if self._limits else None,
        }
        facts, channel = process.launch(asked)
        pulse = Pulse(facts["pid"])
        client = Client(channel, pulse)
        self._connections = _Connections(client, pulse)
        self.datapath = str(facts["datapath"])
        told = Told()
        client.call("build", {**self._how, "until": facts["until"]}, told.hear)
        self.claims, self.path = tuple(told.claims), told.path
        self.notes = (*facts["notes"], *told.notes)
        for node in client.call("describe", {})["nodes"]:
            address = IPv4Address(node["address"]) if node["address"] else None
            self._nodes[node["name"]] = NodeHandle(self, node["name"], node["kind"], address)
        if self._check:
            self._require_claims(whole=not (self._how["until"] or self._how["empty"]))

    def _require_claims(self, *, whole: bool) -> None:
        broken = [claim for claim in self.claims if not claim.holds]
        reasons = [f"{c.text}: expected {c.expected}, observed {c.observed}" for c in broken]
        if whole and not (self.path and self.path.proved):
            reasons.append("the path of the packets is not proved")
        elif self.path and not self.path.negative_control:
            reasons.append(f"the negative control failed ({self.path.control_detail})")
        if reasons:
            held = f"{len(self.claims) - len(broken)} of {len(self.claims)} claims hold"
            raise ClaimError(
                "\n  ".join([f"{self._request.scenario}: {held}", *reasons]), self.claims
            )

    def _connected(self) -> _Connections:
        if self._connections is None or self._connections.closed:
            raise UsageError("the lab is not there: it lives within its `with` block")
        return self._connections


@dataclass(eq=False, repr=False)
class NodeHandle:
    """A host, a container or the gateway of a lab, or its wire."""

    _lab: LabHandle
    name: str
    kind: Literal["host", "container", "gateway", "wire"]
    _address: IPv4Address | None

    @property
    def address(self) -> IPv4Address:
        """What others reach it by, as of when the lab was built; XlabError if it has none."""
        if self._address is None:
            raise XlabError(f"{self.name} has no address yet")
        return self._address

    def run(
        self,
        *argv: object,
        timeout_s: float = 10.0,
        check: bool = True,
        stdin: bytes | str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a program here to its end; each argument as `str` has it.

        `env` is added to the environment the lab was made in, whose language is English.  Raises
        CommandError if it does not end in time (it is killed then) and, with `check`, if its
        status is not 0; CapabilityError if there is no such program.
        """
        if not argv:
            raise UsageError("which program? run() takes its name and its arguments")
        words = [str(word) for word in argv]
        data = stdin.encode() if isinstance(stdin, str) else stdin
        with self._lab._connected().one() as client:
            completed = asking.run(
                client, self.name, words, timeout_s=timeout_s, stdin=data, env=env
            )
        if check and completed.returncode != 0:
            raise CommandError(
                words,
                node=self.name,
                returncode=completed.returncode,
                stderr=completed.stderr or completed.stdout,
            )
        return completed

    def popen(
        self,
        *argv: object,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        text: bool = False,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[Any]:
        """Start a program here that goes on by itself; it ends with the lab at the latest.

        All arguments by name are as subprocess.Popen's, but that `env` is added to the environment
        of the caller.  The streams are the program's itself.  It starts in the working directory,
        or `cwd`, or in "/" where the lab has none of that name.  Its `pid` is of a process that
        stands in for it: signals (but SIGSTOP) are passed on, and both end alike.

        Raises CapabilityError if there is no such program, CommandError if it cannot be executed.
        """
        if not argv:
            raise UsageError("which program? popen() takes its name and its arguments")
        with self._lab._connected().one() as client:
            doors = asking.enter(client, self.name)
        words = [str(word) for word in argv]
        orders = {
            "doors": dict(doors.opened),
            "rootless": doors.rootless,
            "limits": doors.limits and dataclasses.asdict(doors.limits),
            "node": self.name,
            "argv": words,
            "folder": str(Path(cwd).resolve() if cwd else sandbox.current_folder()),
            "env": {**entering.environment(doors), **(env or {})},
        }
        file = os.memfd_create("xlab-orders", os.MFD_CLOEXEC)
        begun, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            os.write(file, json.dumps(orders).encode())
            process: subprocess.Popen[Any] = subprocess.Popen(
                _python("process_proxy", file, theirs),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                text=text,
                pass_fds=[file, theirs, *doors.opened.values()],
            )
        except BaseException:
            os.close(begun)
            raise
        finally:
            os.close(file)
            os.close(theirs)
            doors.close()
        self._lab._started.append(process)
        with os.fdopen(begun, "rb") as pipe:
            complaint = pipe.read()
        if complaint:
            process.communicate()
            raise _refusal(json.loads(complaint), words, self.name)
        return process

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name} {self._address or 'without an address'}>"


def _refusal(complaint: Mapping[str, Any], argv: Sequence[str], node: str) -> XlabError:
    """Why there is no program, as `run` has it."""
    status, text = int(complaint["status"]), str(complaint["text"])
    if status == entering.NOT_FOUND:
        from xlab.kernel.programs import remedy

        return CapabilityError(f"`{argv[0]}` is not installed", remedy(argv[0]))
    if status == entering.NOT_EXECUTABLE:
        return CommandError(argv, node=node, returncode=status, stderr=text)
    return SandboxError(text)


class _Connections:
    """As many to pid 1 as threads ask something at once: each has its requests one by one."""

    def __init__(self, first: Client, pulse: Pulse) -> None:
        self._lock = threading.Lock()
        self._first = first
        self._pulse = pulse
        self._idle: list[Client] = []
        self.closed = False

    @contextmanager
    def one(self) -> Iterator[Client]:
        with self._lock:
            client = self._idle.pop() if self._idle else self._another()
        sound = False
        try:
            yield client
            sound = True
        except XlabError as error:
            sound = not isinstance(error, SandboxError)  # which may have hung up
            raise
        finally:
            # Interrupted, it has an answer coming that is nobody's.
            with self._lock:
                if sound and not self.closed:
                    self._idle.append(client)
                else:
                    client.close()

    def _another(self) -> Client:
        _, (descriptor,) = self._first.call_for_descriptors("connect", {})
        return Client(socket.socket(fileno=descriptor), self._pulse)

    def close(self) -> None:
        with self._lock:
            self.closed = True
            for client in (self._first, *self._idle):
                client.close()
            self._idle.clear()
            self._pulse.close()


class _LabProcess:
    """The process that holds the lab (lab_process.py)."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        self._log = os.memfd_create("xlab-lab", os.MFD_CLOEXEC)
        program = os.pidfd_open(os.getpid())
        #: In a fork of the program the lab is somebody else's.
        self._owner = os.getpid()
        try:
            self._process = subprocess.Popen(
                _python("lab_process", theirs.fileno(), program),
                pass_fds=[theirs.fileno(), program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if os.environ.get("XLAB_DEBUG") else self._log,
                # Ctrl-C is for the program, which decides what comes of it.
                start_new_session=True,
            )
        except BaseException:
            self._control.close()
            os.close(self._log)
            raise
        finally:
            theirs.close()
            os.close(program)

    def launch(self, asked: Mapping[str, Any]) -> tuple[dict[str, Any], socket.socket]:
        """The plan's facts, and a socket to pid 1."""
        client = Client(self._control)
        try:
            facts, (channel,) = client.call_for_descriptors("launch", asked)
        except SandboxError as error:
            said = os.pread(self._log, 1 << 16, 0).decode(errors="replace").strip()
            raise SandboxError(f"{error}: {said[-800:]}" if said else str(error)) from error
        return dict(facts), socket.socket(fileno=channel)

    def close(self) -> None:
        if self._control.fileno() < 0:
            return
        try:
            if os.getpid() == self._owner:
                # Closing is not enough where a fork of the program has a copy.
                self._control.shutdown(socket.SHUT_RDWR)
                self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            raise SandboxError(f"the lab has not ended within {_END_S:g} s") from None
        except OSError:
            self._process.wait(_END_S)  # the lab process is gone: it need not be told
        finally:
            self._control.close()
            os.close(self._log)


def _python(module: str, *arguments: int) -> list[str]:
    """What starts a module of ours where Python finds what it finds here."""
    path = [str(Path(entry).resolve()) for entry in sys.path if entry]
    start = (
        f"import sys; sys.path[:] = {path!r}; from xlab.outside import {module}; {module}.main()"
    )
    return [sys.executable, "-P", "-c", start, *map(str, arguments)]
