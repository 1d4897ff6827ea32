"""`xlab.lab(…)` in other people's programs: with threads, forked, interrupted, killed."""

from __future__ import annotations

import inspect
import os
import re
import select
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path

import pytest

import xlab
from tests.support import documents
from tests.support.labs import PATIENCE_S, Marked, all_pids, kill
from xlab.errors import (
    CapabilityError,
    ClaimError,
    CommandError,
    NoAnswerError,
    SandboxError,
    UsageError,
    XlabError,
)
from xlab.kernel.processes import wait_until
from xlab.outside import api
from xlab.outside.api import LabHandle

pytestmark = pytest.mark.sandbox


@pytest.fixture(scope="module")
def bridge() -> Iterator[LabHandle]:
    with xlab.lab("bridge") as lab:
        yield lab


@pytest.fixture(scope="module")
def bare() -> Iterator[LabHandle]:
    """Hosts on a switch."""
    with xlab.lab("baseline", empty=True) as lab:
        yield lab


class Program(Marked):
    """Somebody's Python program."""

    def __init__(self, text: str, python: Sequence[str] = (sys.executable, "-P")) -> None:
        super().__init__()
        self.process = subprocess.Popen(
            [*python, "-W", "error", "-c", textwrap.dedent(text)],
            env=self.environment(), cwd="/", text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.pid = self.process.pid

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def finish(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err

    def await_nothing_left(self, *but: int) -> None:
        wait_until(
            lambda: set(self.processes()) <= {*but},
            timeout_s=PATIENCE_S,
            awaited="the end of all processes",
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.processes():
            kill(pid)
        self.finish()


# -- a lab -----------------------------------------------------------------------------------------


def test_a_lab_is_built_and_checked(bridge: LabHandle) -> None:
    assert list(bridge) == ["h1", "h1/c1", "h1/c2", "h2", "h2/c1", "h2/c2", "gw"]
    assert "h2/c1" in bridge
    assert "h3" not in bridge
    assert [host.name for host in bridge.hosts] == ["h1", "h2"]
    assert [c.name for c in bridge.containers] == ["h1/c1", "h1/c2", "h2/c1", "h2/c2"]
    assert bridge["h2/c1"].address == IPv4Address("10.211.55.128")
    assert bridge["gw"].kind == "gateway"
    assert bridge.datapath == "linux bridge"
    assert len(bridge.claims) > 10
    assert all(claim.holds for claim in bridge.claims)
    assert bridge.path is not None
    assert bridge.path.proved
    assert bridge.path.negative_control


def test_programs_run_in_its_nodes(bridge: LabHandle) -> None:
    done = bridge["h1/c1"].run("ping", "-n", "-c1", bridge["h2/c1"].address)
    assert "1 received" in done.stdout
    said = bridge["h1"].run("sh", "-c", 'cat; echo "$WHO"', stdin="in ", env={"WHO": "me"})
    assert (said.stdout, said.returncode) == ("in me\n", 0)
    assert bridge["h1"].run("sh", "-c", "exit 3", check=False).returncode == 3


def test_a_program_that_fails_says_all_of_it(bridge: LabHandle) -> None:
    with pytest.raises(CommandError, match=r"^h1: `sh -c 'echo no >&2; exit 3'` ended with"):
        bridge["h1"].run("sh", "-c", "echo no >&2; exit 3")
    with pytest.raises(CommandError) as late:
        bridge["h1"].run("sleep", "1000", timeout_s=0.05)
    assert (late.value.node, late.value.argv) == ("h1", ("sleep", "1000"))
    assert late.value.returncode is None
    with pytest.raises(CapabilityError, match="`no-such-program` is not installed"):
        bridge["h1"].run("no-such-program")
    with pytest.raises(UsageError, match=r"no node is called 'h1/c3': .*; did you mean h1/c"):
        bridge["h1/c3"]
    with pytest.raises(UsageError, match="no node is called '3': there are h1"):
        bridge[3]  # type: ignore[index]
    with pytest.raises(UsageError, match="which program"):
        bridge["h1"].run()


def test_faults_and_what_still_holds(bridge: LabHandle) -> None:
    broken = bridge.fault("link h1 down", wait=True)
    assert broken.in_force == ("link h1 down",)
    assert ("h1/c1", "h2/c1") in broken.cut
    assert broken.waited_s is not None
    assert bridge["h1"].run("ping", "-c1", "-W0.1", "10.211.55.4", check=False).returncode == 1
    mended = bridge.fault("link h1 up", wait=True)
    assert (mended.in_force, mended.cut) == ((), ())
    status = bridge.status()
    assert status.holds
    assert status.claims[-1].stage == "path"
    with pytest.raises(UsageError):
        bridge.fault("link h9 down")


#: A scenario of somebody's own.
_WRONG = """
from xlab.scenario.scenario import Scenario

def build(lab, plan, size, settings, check):
    check.stage("now")
    check.equal("one", "one is one", expected=1, observed=1)
    check.equal("two", "two is three", expected=3, observed=2)
    check.stage("later")

SCENARIO = Scenario("wrong", "never right", (), lambda *_: None, build)
"""


def test_claims_that_do_not_hold_are_raised_and_carried(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(_WRONG)
    with pytest.raises(ClaimError) as met, xlab.lab(file, until="later"):
        pytest.fail("the block begins")
    assert str(met.value) == f"{file}: 1 of 2 claims hold\n  two is three: expected 3, observed 2"
    assert [claim.holds for claim in met.value.claims] == [True, False]
    with xlab.lab(file, until="later", check=False) as lab:
        assert lab.claims == met.value.claims


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="--hosts is 1"):
        xlab.lab("bridge", hosts=1)
    with pytest.raises(UsageError, match="leave hosts out"):
        xlab.lab("bridge", hosts=2, topo="single,2")
    with pytest.raises(UsageError, match="leave until out"):
        xlab.lab("bridge", until="hosts", empty=True)
    with pytest.raises(UsageError, match="brigde"), xlab.lab("brigde"):
        pytest.fail("the block begins")
    never = xlab.lab("bridge", until="never")
    with pytest.raises(UsageError, match="'never' is no stage of bridge"), never:
        pytest.fail("the block begins")


def test_a_lab_lives_within_its_block() -> None:
    lab = xlab.lab("baseline", empty=True)
    with pytest.raises(UsageError, match="within its `with` block"):
        lab["h1"]
    with lab:
        h1, waiting = lab["h1"], lab["h1"].popen("sleep", "1000")
        with pytest.raises(XlabError, match="h1 has no address yet"):
            _ = h1.address
    assert waiting.returncode == -signal.SIGKILL
    with pytest.raises(UsageError, match="within its `with` block"):
        h1.run("true")
    with pytest.raises(UsageError, match="a lab is used once"), lab:
        pytest.fail("the block begins")


def test_a_stopped_lab_is_not_waited_for_and_may_go_on() -> None:
    with xlab.lab("baseline", empty=True) as lab:
        pid = lab._connected()._pulse.pid
        os.kill(pid, signal.SIGSTOP)
        for ask in (lab.status, lambda: lab["h1"].run("true"), lambda: lab["h1"].popen("true")):
            with pytest.raises(NoAnswerError, match=rf"^the lab does not answer \(pid {pid}\)$"):
                ask()
        os.kill(pid, signal.SIGCONT)
        assert lab["h1"].run("echo", "back").stdout == "back\n"
        os.kill(pid, signal.SIGSTOP)
    assert pid not in all_pids()


def test_two_labs_at_once_never_meet(bare: LabHandle, below_tmp: Path) -> None:
    (below_tmp / "seen").write_text("outside")
    with xlab.lab("baseline", topo="single,3", empty=True, keep=[below_tmp]) as other:
        assert (len(other.hosts), len(bare.hosts)) == (3, 2)
        for lab, address in ((bare, "10.0.0.1/24"), (other, "10.0.0.2/24")):
            lab["h1"].run("ip", "link", "set", "eth0", "up")
            lab["h1"].run("ip", "address", "add", address, "dev", "eth0")
        away = other["h1"].run("ping", "-c1", "-W0.1", "10.0.0.1", check=False)
        assert "1 packets transmitted, 0 received" in away.stdout
        other["h1"].run("ping", "-c1", "10.0.0.2")
        assert other["h1"].run("cat", below_tmp / "seen").stdout == "outside"
        assert bare["h1"].run("cat", below_tmp / "seen", check=False).returncode == 1
    assert "10.0.0.1/24" in bare["h1"].run("ip", "address").stdout


# -- processes that go on by themselves ------------------------------------------------------------


def test_a_started_program_has_its_own_streams_and_status(bare: LabHandle, below_tmp: Path) -> None:
    told = bare["h2"].popen(
        "sh", "-c", 'hostname; cat; pwd; echo "$A" >&2; exit 7',
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={"A": "\udcff é"}, cwd=below_tmp,
    )  # fmt: skip
    # The lab has no such folder, and so it starts in "/".
    out, err = told.communicate(b"given\n", timeout=PATIENCE_S)
    assert (out, err) == (b"h2\ngiven\n/\n", "\udcff é\n".encode(errors="surrogateescape"))
    assert told.returncode == 7


def test_a_program_that_can_not_be_started_is_refused_as_by_run(bare: LabHandle) -> None:
    for start in (bare["h2"].popen, bare["h2"].run):
        with pytest.raises(CapabilityError, match=r"^`no-such-program` is not installed"):
            start("no-such-program")
        with pytest.raises(CommandError) as met:
            start("/etc/passwd")
        assert (met.value.node, met.value.returncode) == ("h2", 126)


def test_a_stream_ends_when_the_program_closes_it(bare: LabHandle) -> None:
    started = bare["h1"].popen(
        "sh", "-c", "exec >&-; read line; exit 4", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert started.stdout is not None
    assert started.stdin is not None
    assert select.select([started.stdout], [], [], PATIENCE_S)[0]
    assert started.stdout.read() == b""
    assert started.poll() is None
    started.communicate(b"line\n", timeout=PATIENCE_S)
    assert started.returncode == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
def test_signals_reach_it_and_its_end_is_seen(bare: LabHandle, number: signal.Signals) -> None:
    stubborn = "trap '' HUP; echo $$; exec sleep 1000"
    started = bare["h1"].popen("sh", "-c", stubborn, stdout=subprocess.PIPE)
    assert started.stdout is not None
    pid = started.stdout.readline().strip().decode()
    assert bare["h1"].run("kill", "-0", pid).returncode == 0
    started.send_signal(number)
    assert started.wait(PATIENCE_S) == -number
    # Its output hangs up when the program itself has ended, not only who stands in for it.
    assert started.communicate(timeout=PATIENCE_S)[0] == b""
    # Killed, who stands in is gone at once, and the program reaped a moment later.
    wait_until(
        lambda: bare["h1"].run("kill", "-0", pid, check=False).returncode != 0,
        timeout_s=PATIENCE_S,
        awaited=f"the end of {pid}",
    )


def test_the_wire_shows_what_passes_between_hosts(bridge: LabHandle) -> None:
    seen = bridge.wire.popen(
        "tcpdump", "-c1", "-nl", "-i", "s1-eth1", "icmp[icmptype] == icmp-echo",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert seen.stderr is not None
    while "listening on s1-eth1" not in (line := seen.stderr.readline()):
        assert line
    bridge["h1/c1"].run("ping", "-c1", bridge["h2/c1"].address)
    out, _ = seen.communicate(timeout=PATIENCE_S)
    assert "IP 10.211.55.64 > 10.211.55.128: ICMP echo request" in out


# -- in programs with threads ----------------------------------------------------------------------


def test_what_one_thread_waits_for_holds_no_other_up(bare: LabHandle) -> None:
    h1, errors = bare["h1"], []

    def wait() -> None:
        try:
            h1.run("sh", "-c", "until [ -e /tmp/go ]; do sleep 0.01; done", timeout_s=PATIENCE_S)
        except XlabError as error:
            errors.append(error)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    h1.run("touch", "/tmp/go")
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []


def test_a_lab_outlives_the_thread_that_made_it() -> None:
    made: list[LabHandle] = []
    thread = threading.Thread(
        target=lambda: made.append(xlab.lab("baseline", empty=True).__enter__())
    )
    thread.start()
    thread.join(PATIENCE_S)
    try:
        assert made[0]["h1"].run("hostname").stdout == "h1\n"
    finally:
        made[0].close()


# -- and its end -----------------------------------------------------------------------------------

#: A fork that goes on has copies of whatever the program has open.
_USES_A_LAB = """
    import os, signal, time
    import xlab
    with xlab.lab("bridge", until="drawbacks") as lab:
        waiting = lab["h1/c1"].popen("sleep", "1000")
        forked = os.fork()
        if forked == 0:
            signal.pause()
        print(forked, flush=True)
        signal.pause()
"""


def test_kill_9_leaves_nothing() -> None:
    with Program(_USES_A_LAB) as program:
        forked = int(program.line())
        assert len(program.processes()) > 5
        kill(program.pid)
        program.await_nothing_left(forked)
        assert forked in all_pids()
        kill(forked)


def test_a_fork_neither_ends_a_lab_nor_keeps_it() -> None:
    with Program("""
        import os, signal
        import xlab
        with xlab.lab("baseline", empty=True) as lab:
            closer = os.fork()
            if closer == 0:
                lab.close()
                os._exit(0)
            assert os.waitpid(closer, 0)[1] == 0
            lab["h1"].run("true")
            holder = os.fork()
            if holder == 0:
                signal.pause()
        os.kill(holder, 0)
        print(holder, flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
    """) as program:
        holder = int(program.line())
        program.await_nothing_left(program.pid, holder)
        assert holder in all_pids()


def test_kill_9_during_the_build_leaves_nothing() -> None:
    with Program(_USES_A_LAB) as program:
        wait_until(
            lambda: program.first_process() is not None,
            timeout_s=PATIENCE_S,
            awaited="pid 1 of the lab",
        )
        kill(program.pid)
        program.await_nothing_left()


def test_a_lab_whose_lab_process_is_killed_is_gone() -> None:
    with Program("""
        import os, signal
        import xlab
        try:
            with xlab.lab("baseline", empty=True) as lab:
                started = lab["h1"].popen("sleep", "1000")
                os.kill(lab._process._process.pid, signal.SIGKILL)
                assert started.wait() == -signal.SIGKILL
                lab["h1"].run("true")
        except xlab.errors.SandboxError as error:
            print(error)
    """) as program:
        status, out, err = program.finish()
        assert (status, err) == (0, "")
        assert out.startswith("the lab's controller is gone")
        program.await_nothing_left()


def test_ctrl_c_takes_the_lab_down() -> None:
    with Program(_USES_A_LAB.replace("forked = os.fork()", "forked = os.getpid()")) as program:
        assert program.line() == str(program.pid)
        os.kill(program.pid, signal.SIGINT)
        status, _, err = program.finish()
        assert status == -signal.SIGINT
        assert err.splitlines()[-1] == "KeyboardInterrupt"
        program.await_nothing_left()


def test_without_root(ordinary: tuple[list[str], Path]) -> None:
    python, _ = ordinary
    text = """
        import xlab, subprocess
        with xlab.lab("bridge", until="drawbacks") as lab:
            lab["h1/c1"].run("ping", "-c1", lab["h2/c1"].address)
            told = lab["h1/c1"].popen("sh", "-c", "id -u; pwd", stdout=subprocess.PIPE)
            print(told.communicate()[0].split(), lab.status().holds)
    """
    with Program(text, python) as program:
        status, out, err = program.finish()
        assert (status, err) == (0, "")
        assert out == "[b'0', b'/'] True\n"
        program.await_nothing_left()


def test_errors_of_a_lab_process_that_cannot_start_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])
    lab = xlab.lab("baseline", empty=True)
    with pytest.raises(SandboxError, match="ModuleNotFoundError"), lab:
        pytest.fail("the block begins")


# -- docs/python.md --------------------------------------------------------------------------------

DOCUMENT = documents.ROOT / "docs" / "python.md"


@pytest.mark.slow
@pytest.mark.usefixtures("open_vswitch")
def test_what_the_page_has_one_type_does_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = documents.workplace(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(documents.ROOT))
    programs = documents.programs(DOCUMENT)
    assert set(programs) == {"reach.py", "test_mine.py"}
    for name, text in programs.items():
        (place / name).write_text(text)
    typed = documents.commands(DOCUMENT)
    assert len(typed) == 4
    outcomes = documents.type_in(place, typed, timeout_s=3 * PATIENCE_S)
    for command, outcome in zip(typed, outcomes, strict=True):
        assert outcome.returncode == 0, f"{command.place}: {outcome.output}"
        missing = documents.first_missing(command.shown, outcome.output)
        assert missing is None, f"{command.place}: no {missing!r} in {outcome.output}"


def test_the_page_tells_of_every_option_and_attribute() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    options = [*inspect.signature(api.lab).parameters]
    public = [
        name
        for of in (api.LabHandle, api.NodeHandle)
        for name in vars(of)
        if not name.startswith("_")
    ]
    words = set(re.findall(r"\w+", text))
    assert {*options, *public} - {"close", "kind"} <= words
