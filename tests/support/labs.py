"""What tests of running labs share: a story told inside a sandbox, and a run told from outside.

@sandboxed                          the whole test is part of a lab's pid 1
def test_two_hosts_talk() -> None:
    h1, h2 = joined("10.0.0.1/24", "10.0.0.2/24")
    assert h1.run(["ping", "-c1", "10.0.0.2"]).stdout

with Run(request, results) as run:  `runner.run` in a process of its own
    run.until("claim")
    run.kill_parent()
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ParamSpec

import pytest

from xlab.errors import SandboxError
from xlab.kernel import capabilities, programs
from xlab.lab.network import FALLBACK_TUNNELS
from xlab.lab.node import Node
from xlab.sandbox import controller
from xlab.sandbox.launching import launch
from xlab.scenario.request import Request

Parameters = ParamSpec("Parameters")

#: Within this any story or run has an end; a guest without KVM is some ten times slower.
PATIENCE_S = 600 if "XLAB_GUEST" in os.environ else 60

ROOT = Path(__file__).resolve().parents[2]


# -- what this machine can do ----------------------------------------------------------------------


@functools.cache
def machine() -> capabilities.Machine:
    return capabilities.probe()


def why_no_sandbox() -> str:
    """The missing capability without which no lab can be made; empty if all are there."""
    for needed in (machine().namespaces, machine().veth, machine().bridge):
        if not needed.usable:
            return f"{needed.name}: {needed.detail}"
    return ""


def why_no_open_vswitch() -> str:
    """What an Open vSwitch scenario lacks here; empty if nothing."""
    for tool in ("ovs-vswitchd", "ovsdb-server"):
        if programs.locate(tool) is None:
            return f"{tool} is not installed"
    if not (machine().ovs_datapath.live or machine().tun.usable):
        return f"{machine().ovs_datapath.detail}, and {machine().tun.detail}"
    return ""


def interfaces(node: Node) -> list[str]:
    """But for what modules of tunnels put into every namespace of this machine."""
    return [name for name in node.interfaces() if name not in FALLBACK_TUNNELS]


# -- stories inside --------------------------------------------------------------------------------


def run_in_sandbox(
    story: Callable[[], Any], *, keep: Sequence[Path] = (), patience_s: float = PATIENCE_S
) -> Any:
    """What `story` returns, as JSON would have it, told on a connection thread of a fresh pid 1.

    A failed assertion is raised here as one; other errors as the controller's client rebuilds them.
    The traceback from inside is a note of the exception.
    """
    # The sandbox is a fork of this very process, which is sound only while it has one thread.
    assert threading.active_count() == 1, threading.enumerate()

    def tell(_: Mapping[str, Any], __: controller.Emit) -> Any:
        try:
            return story()
        except pytest.fail.Exception as failure:  # of pytest.raises, say; not an Exception
            raise AssertionError(str(failure)) from failure

    with launch(lambda: {"tell": tell}, keep=keep) as lab:
        lab.channel.settimeout(patience_s)
        with closing(controller.Client(lab.channel)) as client:
            try:
                return client.call("tell", {})
            except SandboxError as error:
                kind, colon, text = str(error).partition(": ")
                if colon and kind == "AssertionError":
                    failure = AssertionError(text)
                    failure.add_note("\n".join(error.__notes__))
                    raise failure from None
                raise


def sandboxed(test: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """The test is told inside a fresh sandbox; fixtures and parameters come along in the fork."""

    @functools.wraps(test)
    def outside(*arguments: Parameters.args, **named: Parameters.kwargs) -> None:
        run_in_sandbox(lambda: test(*arguments, **named))

    marked: Callable[Parameters, None] = pytest.mark.sandbox(outside)
    return marked


# -- runs seen from outside ------------------------------------------------------------------------


class Marked:
    """A process that bears a mark which all its descendants inherit, whoever their parent becomes.

    Whatever else happens on this machine, what carries the mark belongs to it.
    """

    pid: int

    def __init__(self) -> None:
        self.mark = f"XLAB_TEST_RUN={uuid.uuid4()}"

    def environment(self) -> dict[str, str]:
        """What to start it with."""
        name, _, value = self.mark.partition("=")
        return {**os.environ, name: value, "PYTHONPATH": str(ROOT)}

    def processes(self) -> list[int]:
        """Everything alive that carries the mark, the process that was started first."""
        found = [pid for pid in all_pids() if self.mark.encode() in environment_of(pid)]
        return sorted(found, key=lambda pid: (pid != self.pid, pid))

    def first_process(self) -> int | None:
        """Pid 1 of the sandbox, by its number out here; None before there is one."""
        for pid in self.processes():
            # The name tells it from the trial that asks whether sandboxes can be made.
            if _numbers(pid)[1:] == [1] and comm_of(pid) == "xlab":
                return pid
        return None

    def daemon(self, name: str) -> int | None:
        """One process below of that name, or with that argument; None if there is none."""
        for pid in self.processes():
            if pid != self.pid and (comm_of(pid) == name or name in _arguments_of(pid)):
                return pid
        return None


class Run(Marked):
    """`runner.run` in a process of its own."""

    def __init__(
        self,
        request: Request,
        results: Path,
        *,
        measure: bool = False,
        claim_patience_s: float | None = None,
        patience_s: float = PATIENCE_S,
        stop_at: str | None = None,
        argv: Sequence[str] = (sys.executable,),
    ) -> None:
        """Start it: without measuring unless asked.

        `claim_patience_s` is for runs in which claims will not come true, `patience_s` for large
        ones.  When an event of the kind `stop_at` has been told, it stops (SIGSTOP) until it is
        continued; its lab does not.  `argv` is what Python is started with.
        """
        super().__init__()
        self.results = results
        self._errors = results.with_name(f"{results.name}-{self.mark[-8:]}.stderr")
        orders = {
            "request": dataclasses.asdict(request),
            "results": str(results),
            "measure": measure,
            "patience_s": math.ceil(patience_s),
            "claim_patience_s": claim_patience_s,
            "stop_at": stop_at,
        }
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [*argv, "-P", "-W", "error", "-c", _DRIVER],
                cwd=ROOT,
                env=self.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.pid = self._process.pid
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(orders))
        self._process.stdin.close()
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self.wait()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Events as they happen, {"kind": "ready"} before the first and "finished" at the end."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event: dict[str, Any] = json.loads(line)
            self.events.append(event)
            yield event

    def finish(self) -> dict[str, Any]:
        """Read on to the end; the last event, which has "status", "reason" and "folder"."""
        for _ in self:
            pass
        self.wait()
        last = self.events[-1] if self.events else {}
        assert last.get("kind") == "finished", self.stderr() or f"the run ended after {last}"
        return last

    def wait(self) -> int:
        """Reap the process; its exit status."""
        status = self._process.wait(PATIENCE_S)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return status

    def stderr(self) -> str:
        return self._errors.read_text(errors="replace")


#: Reads its orders from stdin; every event is a line of stdout.  SIGALRM bounds it, come what may.
_DRIVER = """
import json, os, signal, sys
from pathlib import Path
from xlab.scenario import claims
from xlab.experiments import runner
from xlab.scenario.request import Request

orders = json.load(sys.stdin)
signal.alarm(orders["patience_s"])
if not orders["measure"]:
    runner.Bench.measure_rounds = lambda _: None
if orders["claim_patience_s"]:
    claims.PATIENCE_S = orders["claim_patience_s"]

def tell(event):
    print(json.dumps(event, default=str), flush=True)
    if event["kind"] == orders["stop_at"]:
        os.kill(os.getpid(), signal.SIGSTOP)

tell({"kind": "ready"})
record, folder = runner.run(
    Request(**orders["request"]), results=Path(orders["results"]), watch=tell
)
tell({"kind": "finished", "status": record.status, "reason": record.reason, "folder": str(folder)})
sys.exit({"passed": 0, "failed": 1, "skipped": 3}[record.status])
"""


def but_for_waiting(said: str) -> str:
    """What xlab has said, without that it waits for the kernel to free what others have had."""
    lines = said.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("xlab: waiting for the kernel"))


# -- /proc -----------------------------------------------------------------------------------------


def process_numbers() -> set[str]:
    """Of all processes there are, ended ones that wait to be reaped included."""
    return {name for name in names_in("/proc") if name.isdigit()}


def all_pids() -> list[int]:
    """Every process that has not ended; a zombie only waits for its parent to ask.

    One whose first thread has ended is a zombie, too, and has not ended before the others have:
    until then its files are open.
    """
    return [int(number) for number in process_numbers() if not _ended(number)]


def _ended(pid: str) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return True
    # The command's name, in brackets, may hold anything; the state stands behind it (proc(5)).
    fields = stat.rpartition(") ")[2].split()
    state, threads = fields[0], int(fields[17])
    return state == "X" or (state == "Z" and threads <= 1)


def namespaces_of(pid: int) -> set[str]:
    """The namespaces that a process is in or holds open, "net:[4026532001]" say."""
    folders = (f"/proc/{pid}/ns", f"/proc/{pid}/fd")
    targets = {link_target(f"{folder}/{name}") for folder in folders for name in names_in(folder)}
    return {t for t in targets if ":[" in t and t.partition(":")[0] in _NAMESPACES}


def link_target(path: str) -> str:
    """Where a symbolic link of /proc leads; empty once it is gone, or if it is not ours to read."""
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


def names_in(folder: str) -> list[str]:
    """The names in a folder, sorted; none once it is gone."""
    try:
        return sorted(path.name for path in Path(folder).iterdir())
    except OSError:
        return []


_NAMESPACES = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}


def kill(pid: int) -> None:
    """SIGKILL; whoever is gone already needs none."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def environment_of(pid: int) -> bytes:
    """The environment a process was started with; empty once it is gone, or if it is not ours."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def comm_of(pid: int) -> str:
    """The name of what a process executes, its first 15 characters; empty once it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _arguments_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


def _numbers(pid: int) -> list[int]:
    """A process's numbers in each PID namespace it is in, ours first (NSpid, proc(5))."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return []
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return [int(number) for number in line.split()[1:]]
    return []
