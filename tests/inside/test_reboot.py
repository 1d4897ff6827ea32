"""A host that is switched off forgets what was asked for, however much that was."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.desk import Caller
from tests.support.labs import PATIENCE_S, sandboxed
from xlab.inside.machine.desk import Desk
from xlab.inside.machine.machines import Machines
from xlab.inside.machine.systemd import DockerService, Systemd
from xlab.inside.machine.units import Unit
from xlab.kernel.processes import wait_until
from xlab.lab import node, underlay
from xlab.lab.docker import Container
from xlab.lab.lab import Host, Lab

pytestmark = pytest.mark.sandbox


@sandboxed
def test_a_host_reboots_once_however_often_it_is_told_to() -> None:
    turn = threading.Lock()
    machines = Machines(turn, userspace=False)
    described = underlay.describe(None, hosts=2)
    lab = Lab(described, own_disks=True, furnished=machines.furnished)
    machines.take_over(lab)
    host, other = lab.hosts
    booted: list[Host] = []
    lab.after_boot = booted.append
    for each in lab.hosts:
        each.inhabited()
    with turn:
        callers = {caller.socket: caller for caller in (Caller(host) for _ in range(6))}
        for number, caller in enumerate(callers.values()):
            if number % 2:
                caller.ask("typed", command="reboot", words=[], terminal=False)
            else:
                caller.ask("typed", command="shutdown", words=["-r", "now"], terminal=False)
        elsewhere = Caller(other)
        elsewhere.ask("typed", command="reboot", words=[], terminal=False)
        wait_until(
            lambda: len(select.select(list(callers), [], [], 0)[0]) >= len(callers) - 1,
            timeout_s=PATIENCE_S, awaited="answers but for one",
        )  # fmt: skip
        assert booted == []
    answers = [caller.told() for caller in (*callers.values(), elsewhere)]
    assert sorted(each["result"]["status"] for each in answers) == [0, 0, 1, 1, 1, 1, 1]
    assert sorted(map(str, booted)) == ["h1", "h2"]
    # The next one is another matter.
    host.inhabited()
    again = Caller(host)
    again.ask("typed", command="reboot", words=[], terminal=False)
    assert again.told() == {"result": {"status": 0}}
    assert booted[2:] == [host]


class Story:
    """A host with a container and a service, both of which count how often they are started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lab = Lab(underlay.describe(None, hosts=2))
        self.host = self.lab.hosts[0]
        self.host.inhabited()
        self.host.docker.start()
        self.container = self.host.docker.run("c1", command=["sleep", "600"])
        services: dict[str, Any] = {"slow": self, "docker": DockerService(self.host)}
        self.systemd = Systemd(self.host, services)
        self.desk = Desk(self.host, self.systemd, lambda _: None)
        self.starts = 0
        #: Called with the first start of a service or a container.
        self.at_first: Callable[[], None] = lambda: None
        original = Container.start_main_process

        def start_main_process(*arguments: Any) -> None:
            self._count()
            original(*arguments)

        monkeypatch.setattr(Container, "start_main_process", start_main_process)

    def _count(self) -> None:
        self.starts += 1
        if self.starts == 1:
            self.at_first()

    def type(self, command: str, *words: str) -> str:
        """What is said to it."""
        said: list[Any] = []
        asked = {"command": command, "words": list(words), "terminal": False}
        self.desk._typed(asked, said.append, mine=[])
        return "".join(each.get("err", "") for each in said)

    def switch_off_and_on(self) -> None:
        self.lab.crash(self.host)
        self.lab.boot(self.host)
        self.host.docker.start()

    # A service:

    def start(self, _: Unit) -> list[str]:
        self._count()
        return []

    def stop(self) -> None: ...

    def is_active(self) -> bool:
        return False


@pytest.mark.parametrize(
    "line",
    [["systemctl", "restart", "slow", "slow"], ["docker", "restart", "c1", "c1"],
     ["docker", "start", "c1", "c1"]],
    ids=" ".join,
)  # fmt: skip
@sandboxed
def test_of_many_things_none_is_begun_in_another_life(
    line: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story(monkeypatch)
    if line[1] == "start":
        story.host.docker.stop(story.container)
    if line[0] == "systemctl":
        story.at_first = story.switch_off_and_on
        said = story.type(*line)
    else:
        said = ""
        told: list[Any] = []

        def emit(event: Any) -> None:
            told.append(event)
            if event == {"out": "c1\n"} and story.starts == 1:
                story.switch_off_and_on()

        asked = {"command": line[0], "words": line[1:], "terminal": False}
        story.desk._typed(asked, emit, mine=[])
        said = "".join(each.get("err", "") for each in told)
    assert story.starts == 1
    assert "h1 has been switched off since" in said


class WatchedLock:
    """One that says who wants it."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.askers: set[int | None] = set()

    def __enter__(self) -> None:
        self.askers.add(threading.get_ident())
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@pytest.mark.parametrize(
    "line", [["systemctl", "start", "slow"], ["docker", "restart", "c1"]], ids=" ".join
)
@sandboxed
def test_who_waits_for_another_is_not_before_who_switches_the_host_off(
    line: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story(monkeypatch)
    begun, go_on = threading.Event(), threading.Event()

    def hold_up() -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)

    story.at_first = hold_up
    docker: Any = story.host.docker
    jobs: Any = story.systemd._jobs
    lock = jobs["slow"] = WatchedLock(jobs["slow"])
    if line[0] == "docker":
        lock = docker._lock = WatchedLock(docker._lock)
    threads = [threading.Thread(target=story.type, args=line) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert begun.wait(PATIENCE_S)
    wait_until(
        lambda: {thread.ident for thread in threads} <= lock.askers,
        timeout_s=PATIENCE_S,
        awaited="a queue",
    )
    first = story.host._init
    assert first is not None

    def off_and_on() -> None:
        story.lab.crash(story.host)
        story.lab.boot(story.host)
        story.systemd.boot()

    power = threading.Thread(target=off_and_on)
    power.start()
    wait_until(first.has_ended, timeout_s=PATIENCE_S, awaited="the power to be off")
    go_on.set()
    for thread in (*threads, power):
        thread.join(PATIENCE_S)
    # The one that was at work, and the service's at the boot.
    assert story.starts == 2


@sandboxed
def test_docker_waits_for_one_silent_container_and_not_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Lab(underlay.describe(None, hosts=2), own_disks=True).hosts[0]
    docker = host.docker
    docker.start()
    silent = [docker.run(name, command=["sleep", "600"]) for name in ("c1", "c2", "c3")]
    for container in silent:
        container.restart_policy = "always"
        # Each program looks there first, ld.so(8), and waits for somebody to write.
        container.run(["mkfifo", "/etc/ld.so.preload"], timeout_s=PATIENCE_S)
    docker.shut_down()
    monkeypatch.setattr(node, "_FIRST_PROCESS_S", 0.5)
    tried: list[Container] = []
    original = Container.start_main_process

    def start_main_process(container: Container, *arguments: Any) -> None:
        tried.append(container)
        original(container, *arguments)

    monkeypatch.setattr(Container, "start_main_process", start_main_process)
    docker.start()
    assert tried == silent[:1]
