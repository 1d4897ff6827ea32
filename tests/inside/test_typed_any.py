"""Any words typed after `docker`, `weave`, `systemctl`, `service` and `journalctl` in a host.

They are done, or refused in words: an exit status, or a program to attend to, and never another
error than ours, whatever is there already.  The host is a real one, with containers that run.
"""

from __future__ import annotations

import io
import json
import os
import resource
import select
import signal
import socket
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.desk import Caller, line_for
from tests.support.labs import PATIENCE_S, sandboxed
from xlab.errors import XlabError
from xlab.inside.machine import client, docker, systemd, units
from xlab.inside.machine.client import DESK
from xlab.inside.machine.desk import MOST_CLIENTS, Desk
from xlab.inside.machine.systemd import DockerService, Systemd
from xlab.inside.machine.units import Unit
from xlab.kernel.processes import wait_until
from xlab.lab import underlay
from xlab.lab.docker import DaemonOptions
from xlab.lab.lab import Host, Lab
from xlab.lab.weave import ROUTER
from xlab.sandbox.console import close_all
from xlab.sandbox.controller import WithDescriptors

pytestmark = pytest.mark.sandbox

VERBS = {
    "docker": ["run", "create", "start", "stop", "kill", "restart", "rm", "ps", "exec", "attach",
               "logs", "inspect", "network", "images", "image", "pull", "version", "container",
               "help"],
    "weave": ["launch", "run", "attach", "status", "ps", "stop", "version", "expose",
              "hide"],
    "systemctl": ["start", "stop", "restart", "try-restart", "status", "cat", "is-active", "edit",
                  "is-failed", "is-enabled", "enable", "disable", "daemon-reload", "list-units"],
    "service": ["docker", "docker.service", "nobody"],
    "journalctl": ["-u", "-n", "-xe", "--lines", "-f", "-r"],
}  # fmt: skip
#: What people put behind them, and what nobody should.
WORDS = st.one_of(
    st.sampled_from(
        ["c1", "c2", "new", "bridge", "ls", "inspect", "ubuntu", "x/y:z@", "-d", "-it", "-i", "-t",
         "--rm", "--name", "--name=c1", "--name=new", "-e", "A=B", "=", "-h", "--hostname=name",
         "--network", "host", "-p", "80:80", "-f", "-af", "-q", "-a", "-l", "--no-trunc",
         "--format", "{{.State.Status}}", "{{json .}}", "{{range .Config.Env}}{{.}}{{end}}",
         "{{.Config.Env.A}}",
         "{{range .State.Pid}}{{end}}", "{{range .Name}}{{.X}}{{end}}", "{{", "-w", "/nowhere",
         "true", "sh", "-c", "exit 3", "no-such-program", "/", "./", "start", "stop",
         "restart", "status", "docker", "docker.service", "-u", "-n",
         "0", "-1", "9" * 5000, "٣", "10.2.1.1/24",
         "10.211.55.4", "10.2.1.1/", "300.1.1.1/8", "1/2/3", "connections", "peers", "--", "-",
         "--opt", "", " ", "\n", "\udcff", "\x1b[2J", "x" * 300]
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4),
)  # fmt: skip


@st.composite
def command_lines(draw: st.DrawFn) -> tuple[str, list[str]]:
    command = draw(st.sampled_from(sorted(VERBS)))
    verb = draw(st.sampled_from(VERBS[command]))
    return command, [verb, *draw(st.lists(WORDS, max_size=6))]


class FromText(Systemd):
    """As of a host that has a disk, with the unit file of its package."""

    def _read(self, name: str) -> Unit:
        unit = f"{name}.service"
        return units.parse(unit, {Path("/usr/lib") / unit: systemd.unit_for(DaemonOptions())})


class Place:
    """A host with two containers, one of which runs; the same again after each command."""

    def __init__(self, lab: Lab) -> None:
        self.host = lab.hosts[0]
        self.rebooted: list[Host] = []
        services: dict[str, Any] = {"docker": DockerService(self.host)}
        self.desk = Desk(self.host, FromText(self.host, services), self.rebooted.append)
        self.restore()

    def restore(self) -> None:
        docker = self.host.docker
        if self.host.weave.alive().get(ROUTER):
            self.host.weave.kill()
        if not docker.is_running:
            docker.start()
        for container in list(docker.all_containers):
            docker.remove(container, force=True)
        docker.run("c1")
        docker.create("c2")

    def type(self, command: str, words: list[str], *, terminal: bool) -> int | None:
        """The exit status; None for a program to attend to, which is ended."""
        said: list[Any] = []
        asked = {"command": command, "words": words, "terminal": terminal}
        found = self.desk._typed(asked, said.append, mine=[])
        json.dumps(said)
        assert all(set(each) <= {"out", "err"} for each in said)
        if not isinstance(found, WithDescriptors):
            status: int = found["status"]
            assert status == 0 or said, "refused without a word"
            return status
        for descriptor in found.descriptors:
            os.close(descriptor)
        attached = {"attached": found.result["attached"]}
        self.desk._signal({**attached, "signal": signal.SIGKILL}, said.append)
        assert self.desk._await(attached, said.append) in range(256)
        return None


def told_by(place: Place) -> Callable[[], None]:
    @given(command_lines(), st.booleans())
    @example(("docker", ["run", "-d", "--hostname=" + "x" * 300, "x", "true"]), False)
    @example(("docker", ["inspect", "--format", "{{range .State.Pid}}{{end}}", "c1"]), False)
    @example(("journalctl", ["-n", "9" * 5000]), False)
    @example(("docker", ["exec", "c1", "\udcff"]), False)
    @example(("docker", ["run", "-d", "-h", "\udcff", "ubuntu", "sleep", "9"]), False)
    @example(("docker", ["create", "\x1b]0;x\n"]), False)
    def any_words(line: tuple[str, list[str]], terminal: bool) -> None:
        command, words = line
        # An editor is a program of its own.
        status = place.type(command, words, terminal=terminal and command == "docker")
        assert status is None or status in range(256)
        place.restore()

    return any_words


@sandboxed
def test_one_host_does_not_take_up_all_of_pid_1() -> None:
    """Each command that is at work has a thread and a descriptor there."""
    place = Place(Lab(underlay.describe(None, hosts=2)))
    place.desk.open()

    def connected() -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        with place.host.entered():
            client.connect(DESK)
        client.settimeout(PATIENCE_S)
        return client

    def told(client: socket.socket) -> dict[str, Any]:
        with client.makefile("rb") as lines:
            answer: dict[str, Any] = json.loads(lines.readline())
        return answer

    busy = [connected() for _ in range(MOST_CLIENTS)]
    with connected() as client:
        assert "at work in this host already" in told(client)["error"]["message"]
    for each in busy:
        each.close()

    def answers() -> bool:
        with connected() as client, suppress(OSError):
            client.sendall(b'{"verb": "typed", "arguments": {"command": "x", "words": []}}\n')
            return "event" in told(client)
        return False

    wait_until(answers, timeout_s=PATIENCE_S, awaited="room again")
    # Nor do its programs.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    gap = os.open(os.devnull, os.O_RDONLY)
    with Path(os.devnull).open() as lowest_free:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free.fileno() + 2, hard))
    os.close(gap)
    try:
        words = ["exec", "-d", "c1", "sleep", "9"]
        assert place.type("docker", words, terminal=False) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert place.type("docker", words, terminal=False) == 0


_TIMES = 5


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@sandboxed
def test_a_command_that_fails_keeps_nothing_of_pid_1() -> None:
    place = Place(Lab(underlay.describe(None, hosts=2)))
    docker = place.host.docker

    def kept(*lines: list[str]) -> int:
        """What pid 1 has open more afterwards."""

        def type_all() -> None:
            for words in lines:
                # Words that execve(2) cannot be given are told as what they are.
                with suppress(ValueError):
                    place.type("docker", words, terminal=False)

        type_all()
        before = open_files()
        for _ in range(_TIMES):
            type_all()
        with suppress(XlabError):
            wait_until(lambda: open_files() <= before, timeout_s=2, awaited="what they had open")
        return open_files() - before

    new = ["rm", "-f", "new"]
    found = {
        "exec, NUL": kept(["exec", "-i", "c1", "echo", "a\0b"]),
        "exec, folder": kept(["exec", "-i", "-w", "a\0b", "c1", "true"]),
        "exec, surrogate": kept(["exec", "c1", "echo", "\ud800"]),
        "exec, nothing there": kept(["exec", "c1", "no-such-program"]),
        "run, NUL": kept(["run", "-i", "--name", "new", "ubuntu", "echo", "a\0b"], new),
        "run, gone with it": kept(["run", "--rm", "ubuntu", "echo", "\ud800"]),
        "run, nothing there": kept(["run", "--rm", "-i", "ubuntu", "no-such-program"]),
        "start, without a program": kept(
            ["start", "-a", "c1"], ["stop", "c1"], ["start", "-a", "c1"]
        ),
        "start, running": kept(
            ["run", "-d", "--name", "new", "ubuntu", "sleep", "600"], ["start", "new"], new
        ),
    }
    place.restore()
    place.host.rtnl.remove_link(docker.bridge)
    found |= {
        "run -d, no bridge": kept(["run", "-d", "--name", "new", "ubuntu", "true"], new),
        "run, no bridge": kept(["run", "--name", "new", "ubuntu", "true"], new),
        "start, no bridge": kept(["create", "--name", "new", "ubuntu"], ["start", "new"], new),
    }  # fmt: skip
    assert {way: many for way, many in found.items() if many >= _TIMES} == {}


@sandboxed
def test_who_attached_and_left_keeps_nothing_of_pid_1() -> None:
    place = Place(Lab(underlay.describe(None, hosts=2)))
    words = ["run", "-d", "--name", "quiet", "ubuntu", "sleep", "600"]
    assert place.type("docker", words, terminal=False) == 0
    before = open_files()
    for _ in range(20):
        asked = {"command": "docker", "words": ["attach", "quiet"]}
        found = place.desk._typed(asked, lambda _: None, mine=[])
        assert isinstance(found, WithDescriptors)
        close_all(found.descriptors)
    # The last one is seen to have left when somebody comes, or when something is printed.
    wait_until(
        lambda: open_files() <= before + 2, timeout_s=PATIENCE_S, awaited="what they had open"
    )


@sandboxed
def test_who_starts_what_runs_is_attached_to_it() -> None:
    place = Place(Lab(underlay.describe(None, hosts=2)))
    words = ["run", "-di", "--name", "runs", "ubuntu", "sh", "-c", "read line; echo $line; exit 7"]
    assert place.type("docker", words, terminal=False) == 0
    asked = {"command": "docker", "words": ["start", "-ai", "runs"]}
    found = place.desk._typed(asked, lambda _: None, mine=[])
    assert isinstance(found, WithDescriptors)
    typing, output, errors = found.descriptors
    os.write(typing, b"heard\n")
    with os.fdopen(output, "rb") as said:
        assert said.read() == b"heard\n"
    attached = {"attached": found.result["attached"]}
    assert place.desk._await(attached, lambda _: None) == 7
    close_all((typing, errors))


@sandboxed
def test_programs_that_nobody_awaits_keep_nothing_of_pid_1() -> None:
    place = Place(Lab(underlay.describe(None, hosts=2)))
    place.desk.open()

    def leave_alone(client: socket.socket) -> None:
        words = {"command": "docker", "words": ["exec", "c1", "true"]}
        client.sendall(json.dumps({"verb": "typed", "arguments": words}).encode() + b"\n")
        while b'"attached"' not in (got := socket.recv_fds(client, 1 << 16, 8))[0]:
            assert got[0]
        for descriptor in got[1]:
            os.close(descriptor)

    place.host.docker.container("c1").inhabited()
    before = open_files()
    for times in (1, 8, 1, 1, 1, 1, 1, 1, 1, 1):
        with socket.socket(socket.AF_UNIX) as client:
            with place.host.entered():
                client.connect(DESK)
            client.settimeout(PATIENCE_S)
            for _ in range(times):
                leave_alone(client)
    wait_until(
        lambda: open_files() <= before + 4, timeout_s=PATIENCE_S, awaited="what they had open"
    )


@sandboxed
def test_of_what_is_asked_only_what_is_known_is_kept() -> None:
    # Held: of what the collector ends meanwhile, pytest keeps the frames, and so what they read.
    lab = Lab(underlay.describe(None, hosts=2))
    host = lab.hosts[0]
    begun, go_on = threading.Semaphore(0), threading.Event()

    def reboot(_: Host) -> None:
        begun.release()
        go_on.wait(PATIENCE_S)

    desk = Desk(host, Systemd(host, {}), reboot)
    desk.open()
    tracemalloc.start()
    callers = [Caller(host) for _ in range(17)]
    before, _ = tracemalloc.get_traced_memory()
    for caller, many in zip(callers, [300_000, *[4_000] * 16], strict=True):
        caller.ask("typed", command="reboot", words=[], terminal=False, x=[{}] * many)
    for _ in callers:
        assert begun.acquire(timeout=PATIENCE_S)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    go_on.set()
    assert [caller.told() for caller in callers] == [{"result": {"status": 0}}] * len(callers)
    # The line of one is 1.2 MB, and in memory 24 times as much until it has been read.
    assert kept - before < 2 << 20
    assert most - before < 48 << 20
    # A program may run for as long as it likes.
    attachable: Any = Attached()
    desk._attached[7] = attachable
    for caller, many in zip(callers, [300_000, 0], strict=False):
        caller.ask("await", attached=7, x=[{}] * many)
    assert "a request has a verb and arguments" in callers[0].told()["error"]["message"]
    attachable.ended.set()
    assert callers[1].told() == {"result": 3}


class Attached:
    """A program that has not ended yet."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def wait(self) -> int:
        assert self.ended.wait(PATIENCE_S)
        return 3


@sandboxed
def test_long_command_lines_are_read_one_after_the_other() -> None:
    place = Place(Lab(underlay.describe(None, hosts=2)))
    place.desk.open()
    long = line_for("typed", command="x", words=["w" * (1 << 20)])
    callers = {caller.socket: caller for caller in (Caller(place.host) for _ in range(6))}
    left = {each: memoryview(long)[:-1] for each in callers}
    # What is short is not held up.
    for _ in range(len(callers)):
        while True:
            waited_s = PATIENCE_S if all(left.values()) else 1
            _, ready, _ = select.select([], [each for each in left if left[each]], [], waited_s)
            if not ready:
                break
            for each in ready:
                left[each] = left[each][each.send(left[each], socket.MSG_DONTWAIT) :]
        # What a socket holds by itself, unix(7), is some 200 KB.
        (one,) = [each for each in left if len(left[each]) < len(long) // 2]
        short = Caller(place.host)
        short.ask("typed", command="x", words=["w" * 10_000])
        assert short.told() == {"result": {"status": 1}}
        short.socket.close()
        one.sendall(b"\n")
        assert callers[one].told() == {"result": {"status": 1}}
        del left[one]


@sandboxed
def test_a_command_line_is_as_long_as_a_program_may_be_given() -> None:
    place = Place(Lab(underlay.describe(None, hosts=2)))
    place.desk.open()

    def typed(*words: str) -> dict[str, Any]:
        with place.host.entered():
            desk = client.Desk()
        asked = {"command": "docker", "words": ["inspect", *words], "terminal": False}
        with redirect_stderr(said):
            result, _ = desk.ask("typed", asked)
        return dict(result)

    said = io.StringIO()
    # ARG_MAX is 2 MiB.
    words = ["é" * (1 << 19), "\n" * (1 << 19), "\udcff😀\0"]
    assert typed(*words) == {"status": 1}
    assert said.getvalue().endswith(f"{words[-1]}\n")
    with pytest.raises(client.RefusalError, match="longer than 4,194,304 bytes"):
        typed("w" * (4 << 20))
    assert typed("short") == {"status": 1}


@sandboxed
def test_a_host_keeps_so_many_containers_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(Lab(underlay.describe(None, hosts=2)))

    def create(*words: str) -> int | None:
        return place.type("docker", ["create", *words], terminal=False)

    large = "x" * (3 << 20)
    assert [create("ubuntu", large), create("-e", f"A={large}", "ubuntu")] == [0, 0]
    assert [create("ubuntu", large), create("ubuntu", "small")] == [125, 0]
    assert create("--name", "n" * 256, "ubuntu") == 125
    monkeypatch.setattr(docker, "_MOST_CONTAINERS", len(place.host.docker.all_containers) + 1)
    assert [create("ubuntu"), create("ubuntu")] == [0, 125]


@sandboxed
def test_any_words_are_done_or_refused() -> None:
    lab = Lab(underlay.describe(None, hosts=2))
    lab.give_addresses(IPv4Network("10.211.55.0/24"), first=3, gateway=1)
    place = Place(lab)
    told_by(place)()
    # All of it has left the host a host.
    assert place.type("docker", ["ps"], terminal=False) == 0
    assert place.type("systemctl", ["is-active", "docker"], terminal=False) == 0
    assert place.rebooted == []
