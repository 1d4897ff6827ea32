"""Sweeps on workers: the embedded one, a cluster's, and real labs that end with whoever asked."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.labs import PATIENCE_S, ROOT, Marked, kill
from tests.support.ordinary import ORDINARY
from xlab.errors import UsageError
from xlab.experiments.sweep import engine, outcome, spec, task
from xlab.experiments.sweep.outcome import Failure
from xlab.kernel.processes import wait_until
from xlab.record import comparisons, record

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="another user is played by root alone")

#: A round of two methods takes some ten seconds; a guest is slower.
_PATIENCE_S = 10 * PATIENCE_S
THREE = spec.parse(b"methods: bridge\naxes: {mtu: [1500, 9000, 1400]}\nquick: true\nrepeat: 3\n")
Wanted = Callable[[], bool]
Waits = Callable[[str], object]


def work(folder: Path) -> Callable[[Mapping[str, Any], Wanted, Waits], dict[str, Any]]:
    """A task that leaves a file; made here, so that it goes to workers as it is."""

    def done(point: Mapping[str, Any], wanted: Wanted, _: Waits) -> dict[str, Any]:
        mtu = point["values"]["mtu"]
        assert wanted()
        (folder / mtu).write_text(f"{os.getpid()}")
        if mtu == "1500":
            raise ValueError("no MTU for us")
        if mtu == "1400":
            return {"comparison": {"schema_version": 0}}
        return {"status": "skipped", "reason": "no such cable"}

    return done


def patient(folder: Path) -> Callable[[Mapping[str, Any], Wanted, Waits], dict[str, Any]]:
    """A task that goes on until it is not wanted any more, and says so."""

    def done(point: Mapping[str, Any], wanted: Wanted, _: Waits) -> dict[str, Any]:
        (folder / "began").touch()
        ticks = threading.Event()
        while wanted():
            ticks.wait(0.02)
        (folder / "ended").touch()
        return {}

    return done


def assert_told(found: Mapping[str, object]) -> None:
    assert found == {
        "mtu=1500": Failure("failed", "ValueError: no MTU for us"),
        "mtu=9000": Failure("skipped", "no such cable"),
        "mtu=1400": Failure(
            "failed",
            "what the worker told makes no sense: schema_version: expected 1, found 0",
        ),
    }


def carried_out(client: Any, folder: Path) -> dict[str, object]:
    return {p.slug: told for p, told in engine.carry_out(client, THREE.points, work(folder))}


def assert_given_up_is_ended(client: Any, folder: Path) -> None:
    """Ctrl-C ends what runs, and nothing else is begun."""

    def interrupt() -> None:
        awaited(folder / "began")
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        next(engine.carry_out(client, THREE.points, patient(folder)))
    awaited(folder / "ended")


def awaited(file: Path) -> None:
    wait_until(file.exists, timeout_s=PATIENCE_S, awaited=file.name)


def told_alone(story: Callable[[Path], None], folder: Path, prefix: Sequence[str] = ()) -> None:
    """In a process of its own: Dask leaves threads behind, and sandboxes are forks of this one."""
    said = subprocess.run(
        [*prefix, *_alone(story, folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=3 * PATIENCE_S,
    )
    assert (said.returncode, said.stderr) == (0, "")


def _alone(story: Callable[[Path], None], folder: Path) -> list[str]:
    name = story.__name__
    program = (
        f"from pathlib import Path; from {__name__} import {name}; {name}(Path({str(folder)!r}))"
    )
    return [sys.executable, "-P", "-W", "error", "-c", program]


# -- the embedded worker ---------------------------------------------------------------------------


def test_the_embedded_worker(tmp_path: Path) -> None:
    told_alone(embedded_story, tmp_path)


@pytest.mark.sandbox
@pytest.mark.slow
def test_the_embedded_worker_of_a_machine_without_a_network(tmp_path: Path) -> None:
    told_alone(embedded_story, tmp_path, ["unshare", "--user", "--map-root-user", "--net"])


def embedded_story(folder: Path) -> None:
    with engine.embedded(folder) as client:
        assert engine.workers(client) == 1
        # What listens is for this machine alone.
        assert {address[-8:] for address in listening()} == {"0100007F"}
        assert_told(carried_out(client, folder))
        assert (folder / "1500").read_text() == str(os.getpid())
        assert_given_up_is_ended(client, folder)
        client.sync(leave_a_failure)
    gc.collect()
    assert {file.name for file in folder.iterdir()} == {"1400", "1500", "9000", "began", "ended"}


async def leave_a_failure() -> None:
    """What Dask does where one of its connections takes long to close: nobody asks for it."""
    asyncio.get_running_loop().create_future().set_exception(TimeoutError("Timeout"))


@pytest.mark.sandbox
def test_a_point_that_waits_for_another_sweep_says_so(tmp_path: Path) -> None:
    told_alone(waiting_story, tmp_path, ["unshare", "--user", "--map-root-user", "--net"])


def waiting_story(folder: Path) -> None:
    """Whoever measures goes on until that is told, and then the point is begun."""
    said = []
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as measuring:
        measuring.bind(task._TURN.format(uid=os.geteuid(), number=0))
        measuring.listen()

        def hear(text: str) -> None:
            said.append(text)
            measuring.close()

        task._in_a_process = lambda *_: {"status": "skipped", "reason": "it has its turn"}
        with engine.embedded(folder) as client:
            point = THREE.points[0]
            told = list(engine.carry_out(client, [point], waits=hear))
    assert told == [(point, Failure("skipped", "it has its turn"))]
    assert said == [f"process {os.getpid()} measures a sweep on {socket.gethostname()}"]


@pytest.mark.sandbox
@needs_root
def test_no_point_waits_for_a_stranger(tmp_path: Path) -> None:
    told_alone(strangers_story, tmp_path, ["unshare", "--net"])


def strangers_story(_: Path) -> None:
    """Names that another user has are passed over, and the next one is waited for."""
    said: list[str] = []
    with ExitStack() as held:
        taken = [held.enter_context(closing(socket.socket(socket.AF_UNIX))) for _ in range(3)]
        os.seteuid(ORDINARY)
        for number in range(2):
            taken[number].bind(task._TURN.format(uid=0, number=number))
        taken[0].listen()  # not so the other
        os.seteuid(0)
        taken[2].bind(task._TURN.format(uid=0, number=2))
        taken[2].listen()

        def hear(text: str) -> None:
            said.append(text)
            taken[2].close()

        task._in_a_process = lambda *_: {"status": "skipped", "reason": "it has its turn"}
        assert task.run({}, lambda: True, hear)["reason"] == "it has its turn"
    assert said == [f"process {os.getpid()} measures a sweep on {socket.gethostname()}"]


def listening() -> set[str]:
    """The addresses at which this process takes connections, as /proc/net/tcp has them."""
    own = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            own.add(str(descriptor.readlink()))
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/self/net", name).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and f"socket:[{columns[9]}]" in own:
                found.add(columns[1].partition(":")[0])
    return found


# -- a cluster -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_cluster_of_processes(tmp_path: Path) -> None:
    with cluster(tmp_path) as found:
        (tmp_path / "address").write_text(found.address)
        told_alone(cluster_story, tmp_path)


def cluster_story(folder: Path) -> None:
    with engine.connect((folder / "address").read_text()) as client:
        client.wait_for_workers(1, timeout=PATIENCE_S)
        assert engine.workers(client) == 1
        assert_told(carried_out(client, folder))
        assert (folder / "1500").read_text() != str(os.getpid())
        assert_given_up_is_ended(client, folder)


@pytest.mark.slow
def test_whoever_asked_is_gone_and_the_worker_ends_the_point(tmp_path: Path) -> None:
    with cluster(tmp_path) as found:
        (tmp_path / "address").write_text(found.address)
        asking = subprocess.Popen(
            _alone(asking_story, tmp_path),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        try:
            awaited(tmp_path / "began")
        finally:
            kill(asking.pid)
            asking.wait(PATIENCE_S)
        awaited(tmp_path / "ended")


def asking_story(folder: Path) -> None:
    with engine.connect((folder / "address").read_text()) as client:
        next(engine.carry_out(client, THREE.points, patient(folder)))


def test_no_scheduler_is_wrong_usage(tmp_path: Path) -> None:
    told_alone(nowhere_story, tmp_path)


def nowhere_story(_: Path) -> None:
    engine.PATIENCE_S = 1
    # Nobody listens at port 1 (tcpmux).
    for address in ("tcp://127.0.0.1:1", "nonsense://x", "tcp://127.0.0.1:port"):
        refused = pytest.raises(UsageError, match=f"--scheduler {address}: ")
        with refused, engine.connect(address):
            pytest.fail("something answered")


class Cluster(Marked):
    """A scheduler and a worker as their own programs start them, for this machine alone."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.where = folder / "scheduler.json"
        self.scratch = folder / "temporary"
        self.scratch.mkdir()
        self.started: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        return str(json.loads(self.where.read_text())["address"])

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "TMPDIR": str(self.scratch)}


@contextmanager
def cluster(folder: Path, *, workers: int = 1) -> Iterator[Cluster]:
    """All of it is there when this begins."""
    made = Cluster(folder)
    where, processes = made.where, made.started
    common = ["--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    worker = [
        *("--scheduler-file", str(where), "--no-nanny", "--nthreads", "1"),
        *("--local-directory", str(folder / "scratch")),
    ]
    programs = [("dask_scheduler", ["--port", "0", "--scheduler-file", str(where)])]
    programs += [("dask_worker", worker)] * workers
    try:
        for number, (name, arguments) in enumerate(programs):
            said = folder / f"{number}-{name}.log"
            with said.open("wb") as log:
                processes.append(
                    subprocess.Popen(
                        [
                            *(sys.executable, "-m", f"distributed.cli.{name}"),
                            *(*common, *arguments),
                        ],
                        cwd=ROOT,
                        env=made.environment(),
                        stdout=log,
                        stderr=log,
                    )
                )
            _await_ready(processes[-1], said)
        made.pid = processes[-1].pid
        yield made
    finally:
        for process in reversed(processes):
            kill(process.pid)
            process.wait(PATIENCE_S)


def _await_ready(process: subprocess.Popen[bytes], said: Path) -> None:
    """A scheduler that has written where it is, or a worker that it knows of."""
    ready = re.compile(rb"Scheduler at:|Registered to:")
    wait_until(
        lambda: bool(ready.search(said.read_bytes())) or process.poll() is not None,
        timeout_s=PATIENCE_S,
        awaited="a scheduler, or one of its workers",
    )
    assert process.poll() is None, said.read_text()


# -- real labs -------------------------------------------------------------------------------------


class Command(Marked):
    """`xlab sweep`; all its descendants bear its mark."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        super().__init__()
        self._errors = (folder / "stderr").open("w+")
        scratch = folder / "scratch"
        scratch.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-W", "error", "-m", "xlab", "sweep", "--json", *arguments],
            cwd=folder,
            env={**self.environment(), "TMPDIR": str(scratch)},
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.pid = self.process.pid

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.processes():
            kill(pid)
        self.process.communicate()
        self._errors.close()

    def finish(self) -> tuple[int, str]:
        said, _ = self.process.communicate(timeout=_PATIENCE_S)
        return self.process.returncode, said

    def stderr(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def await_lab(self) -> None:
        wait_until(
            lambda: self.first_process() is not None or self.process.poll() is not None,
            timeout_s=_PATIENCE_S,
            awaited="the first lab",
        )
        assert self.process.poll() is None, self.stderr()

    def await_end_of_all(self) -> None:
        wait_until(
            lambda: not self.processes(), timeout_s=PATIENCE_S, awaited="the end of all processes"
        )


_TWO = "methods: bridge\naxes: {flows: [1, 2]}\nquick: true\nrepeat: 3\n"
#: It would go on far longer than anyone waits for its end.
_LONG = f"{_TWO}duration: 600\n"


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_killed_while_labs_stand_it_leaves_nothing_but_what_to_go_on_with(
    tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "long.yaml").write_text(_LONG)
    with Command(tmp_path, "long.yaml") as command:
        command.await_lab()
        os.kill(command.pid, number)
        status, _ = command.finish()
        command.await_end_of_all()
        said = command.stderr()
    assert status == (-number if number == signal.SIGKILL else 128 + number)
    assert list((tmp_path / "scratch").iterdir()) == []
    (folder,) = (tmp_path / "results").iterdir()
    assert (folder / outcome.SPEC_FILE).read_text() == _LONG
    if number != signal.SIGKILL:
        assert {file.name for file in folder.iterdir()} == {outcome.SPEC_FILE, outcome.POINTS}
        assert f"0 points are kept; to go on: xlab sweep --resume results/{folder.name}" in said


@pytest.mark.sandbox
@pytest.mark.slow
def test_a_killed_process_of_a_point_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(_LONG.replace("[1, 2]", "[1]"))
    with Command(tmp_path, "long.yaml") as command:
        command.await_lab()
        assert list((tmp_path / "scratch").iterdir())
        victim = command.daemon("xlab.experiments.sweep.task")
        assert victim is not None
        kill(victim)
        status, said = command.finish()
        command.await_end_of_all()
    assert (status, json.loads(said)["points"][0]["status"]) == (1, "failed")
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.sandbox
@pytest.mark.slow
@pytest.mark.parametrize("dies", ["who asked", "the worker"])
def test_labs_of_a_cluster_end_with_who_asked_and_with_the_worker(
    tmp_path: Path, dies: str
) -> None:
    (tmp_path / "long.yaml").write_text(_LONG)
    with cluster(tmp_path) as found:
        with Command(tmp_path, "long.yaml", "--scheduler", found.address) as command:
            wait_until(
                lambda: found.first_process() is not None or command.process.poll() is not None,
                timeout_s=_PATIENCE_S,
                awaited="the first lab",
            )
            assert command.process.poll() is None, command.stderr()
            victim = command.pid if dies == "who asked" else found.pid
            kill(victim)
            if dies == "the worker":
                found.started[-1].wait(PATIENCE_S)
            left = {process.pid for process in found.started} - {victim}
            wait_until(
                lambda: set(found.processes()) == left, timeout_s=PATIENCE_S, awaited="no more labs"
            )
        assert not list(found.scratch.glob(".partial*"))


@pytest.mark.sandbox
@pytest.mark.slow
def test_two_points_are_compared_in_real_labs(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(_TWO)
    with Command(tmp_path, "two.yaml") as command:
        status, said = command.finish()
        assert status == 0, command.stderr()
        command.await_end_of_all()
    assert_two_points_compared(tmp_path, said)
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.sandbox
@pytest.mark.slow
def test_a_cluster_compares_two_points_in_real_labs_one_at_a_time(tmp_path: Path) -> None:
    """On one machine: two points at once would measure each other."""
    (tmp_path / "two.yaml").write_text(_TWO)
    with cluster(tmp_path, workers=2) as found:
        with Command(tmp_path, "two.yaml", "--scheduler", found.address) as command:
            status, said = command.finish()
            assert status == 0, command.stderr()
            assert "2 workers" in command.stderr()
            command.await_end_of_all()
        # Nothing of the labs is left, and nothing has happened to who measured.
        assert set(found.processes()) == {process.pid for process in found.started}
        assert not list(found.scratch.glob(".partial*"))
    folder = assert_two_points_compared(tmp_path, said)
    spans = sorted(
        (comparison.started_at, comparison.ended_at)
        for comparison in map(comparisons.load, (folder / outcome.POINTS).iterdir())
    )
    assert spans[0][1] <= spans[1][0]


def assert_two_points_compared(where: Path, said: str) -> Path:
    (folder,) = (where / "results").iterdir()
    found = outcome.load(folder)
    assert found.to_dict() == record.decode(outcome.Sweep, json.loads(said), "").to_dict()
    assert [point.slug for point in found.points] == ["flows=1", "flows=2"]
    for point in found.points:
        streams = int(point.values["flows"])
        comparison = comparisons.load(folder / outcome.POINTS / point.slug)
        assert len(comparison.rounds) == 3
        (tcp,) = (
            figure
            for figure in point.figures
            if (figure.method, figure.metric, figure.streams)
            == ("bridge", "tcp_bits_per_second", streams)
        )
        assert tcp.value is not None
        assert tcp.to_baseline is not None
        # On a starved machine a second of streams may bring nothing; that is told.
        told = [p for p in comparison.points if (p.metric, p.streams) == (tcp.metric, streams)]
        assert all(p.error for p in told if p.median is None), told
        measured = [
            {p.round for p in told if (p.method, p.route) == (method, "method") and p.median}
            for method in ("baseline", "bridge")
        ]
        assert tcp.to_baseline.rounds == len(set.intersection(*measured)) > 0
    assert {file.name for file in folder.glob("flows.*")} == {"flows.svg", "flows.png"}
    return folder
