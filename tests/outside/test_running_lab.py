"""Labs that stay, as a person meets them: up, ps, status, shell, exec, cli, down.

Every story has a network namespace of its own to start labs from.  That is where their names are
bound, so whatever else runs on this machine, only the labs of the story are there.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from tests.support.labs import (
    PATIENCE_S,
    ROOT,
    all_pids,
    kill,
    link_target,
    names_in,
)
from tests.support.world import Said, World, ordinary_world, usual_signals, world
from xlab.kernel.processes import wait_until

pytestmark = pytest.mark.sandbox

_FIXTURES = (world, ordinary_world, usual_signals)


@pytest.fixture
def bridge(world: World) -> World:
    """A world in which `bridge` stands, to be broken; its claims have not been checked."""
    up = world.say("up", "bridge", "--until", "Docker on br0")
    assert (up.status, up.stderr) == (0, "")
    return world


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The same for all who leave it as it was."""
    made = World(None, tmp_path_factory.mktemp("standing"))
    try:
        up = made.say("up", "bridge", "--until", "drawbacks")
        assert (up.status, up.stderr) == (0, "")
        yield made
        down = made.say("down")
        assert (down.status, down.stderr) == (0, "")
    finally:
        made.close()


# -- from up to down -------------------------------------------------------------------------------


@pytest.mark.slow
def test_claims_hold_beside_traffic_at_full_speed(bridge: World) -> None:
    """What TCP hands over in one piece, a capture could not follow."""
    assert bridge.say("exec", "h2/c1", "--", "iperf3", "-s", "-D").status == 0
    client = bridge.start("exec", "h1/c1", "--", "iperf3", "-c", "10.211.55.128", "-t", "1000")
    sent = ["exec", "h1/c1", "--", "cat", "/sys/class/net/eth0/statistics/tx_bytes"]
    try:
        wait_until(
            lambda: int(bridge.say(*sent).stdout) > 1e9, timeout_s=PATIENCE_S, awaited="traffic"
        )
        said = bridge.say("status")
        # On a machine that has no processor left the segments that are acknowledged may be enough.
        assert said.status == 0 or "frames were lost: the link is too busy" in said.stdout
    finally:
        client.kill()
        client.communicate()


#: tcpdump as a person types it, where something passes all the time.
_SEE_ONE = """
while ping -n -c1 127.0.0.1 >/dev/null; do :; done &
tcpdump -n -c1 -i lo icmp
status=$?
kill $!
exit $status
"""


def whole_life(world: World, sandbox: str) -> None:
    up = world.say("up", "bridge")
    assert (up.status, up.stderr) == (0, "")
    assert re.search(r"✓ bridge stands   (\d\d) of \1 claims hold", up.stdout)
    assert "xlab shell h1/c1\n" in up.stdout
    (lab,) = world.labs()
    assert (lab["name"], lab["state"], lab["sandbox"]) == ("bridge", "up", sandbox)
    nodes = {node["name"]: node for node in lab["nodes"]}
    assert list(nodes) == ["h1", "h1/c1", "h1/c2", "h2", "h2/c1", "h2/c2", "gw"]
    assert nodes["h1"]["addresses"] == {"br0": "10.211.55.3/24"}
    assert nodes["h1/c1"]["addresses"] == {"eth0": "10.211.55.64/24"}
    assert "h1/c1  eth0 10.211.55.64/24" in world.say("ps").stdout

    status = world.say("status")
    assert (status.status, status.stderr) == (0, "")
    assert "✓ what h1/c1 sends to h2/c1 crosses the physical link as it is" in status.stdout

    ping = world.say("exec", "h1/c1", "--", "ping", "-n", "-c1", "10.211.55.128")
    assert (ping.status, ping.stderr) == (0, "")
    assert "1 received" in ping.stdout

    for node, shell in (("h1", ["sh", "-c"]), ("h1/c1", ["sh", "-c"]), ("h1/c1", ["bash", "-lc"])):
        seen = world.say("exec", node, "--", *shell, _SEE_ONE)
        assert (seen.status, "1 packet captured" in seen.stderr) == (0, True), seen

    down = world.say("down")
    assert (down.status, down.stderr) == (0, "")
    # Not in a moment: `down` returns when the last process has ended.
    assert world.processes() == [world.pid]
    assert world.labs() == []
    assert "no lab is running" in world.say("ps").stdout


@pytest.mark.slow
def test_from_up_to_down(world: World) -> None:
    whole_life(world, "root" if os.geteuid() == 0 else "rootless")


def test_from_up_to_down_without_root(ordinary_world: World) -> None:
    whole_life(ordinary_world, "rootless")


@pytest.mark.usefixtures("open_vswitch")
def test_daemons_are_shown(world: World) -> None:
    up = world.say("up", "ovs-gre", "--until", "hosts", "--json")
    (lab,) = world.labs()
    daemons = {node["name"]: node.get("daemons") for node in lab["nodes"]}
    alive = {"ovsdb-server": True, "ovs-vswitchd": True}
    assert daemons == {"h1": alive, "h2": alive, "gw": None}
    told = json.loads(up.stdout)
    assert (told["holds"], told["until"], told["claims"]) == (True, "hosts", [])


def test_a_second_up_of_the_same_name_says_so(standing: World) -> None:
    (before,) = standing.labs()
    again = standing.say("up", "bridge")
    assert again.status == 2
    assert "a lab named 'bridge' is already running: `xlab down bridge` ends it" in again.stderr
    (after,) = standing.labs()
    assert before["pid"] == after["pid"]


@pytest.mark.slow
def test_with_several_labs_the_name_is_wanted(bridge: World) -> None:
    plain = ["up", "baseline", "--name", "plain", "--hosts", "3", "--until", "hosts"]
    assert bridge.say(*plain).status == 0
    for command in (["status"], ["down"], ["exec", "h1", "--", "true"], ["cli"], ["shell", "h1"]):
        said = bridge.say(*command)
        which = "--name NAME says it, to status and down the name alone"
        told = f"xlab: which lab? There are bridge, plain; {which}\n"
        assert (said.status, said.stderr) == (2, told)
    third = bridge.say("exec", "--name", "plain", "h3", "--", "hostname")
    assert (third.status, third.stdout) == (0, "h3\n")
    assert "no node is called 'h3': there are h1," in bridge.say(
        "exec", "--name", "bridge", "h3", "--", "hostname"
    ).stderr  # fmt: skip
    wrong = bridge.say("down", "plain", "other")
    assert "no lab named 'other' is running; there are bridge, plain" in wrong.stderr
    assert len(bridge.labs()) == 2
    assert bridge.say("down", "--all").status == 0
    assert bridge.processes() == [bridge.pid]


def test_senseless_orders_are_refused(world: World) -> None:
    for arguments, said in (
        (["status"], "no lab is running; `xlab up SCENARIO` starts one"),
        (["down", "nobody"], "no lab named 'nobody' is running"),
        (["up", "bridge", "--name", "a/b"], "no lab can be called 'a/b'"),
        (["up", "all"], "one scenario at a time"),
        (["up", "bridge", "--empty", "--until", "hosts"], "--empty builds nothing"),
        (["exec", "h1"], "which command?"),
        (["exec", "h1", "--"], "which command?"),
        (["down", "--all", "bridge"], "--all ends every lab"),
    ):
        refused = world.say(*arguments)
        assert (refused.status, said in refused.stderr) == (2, True), refused
    assert world.processes() == [world.pid]


# -- stages ----------------------------------------------------------------------------------------


def test_a_build_stops_at_a_stage(world: World) -> None:
    up = world.say("up", "bridge", "--until", "br0 has")
    assert up.status == 0
    said = " ".join(up.stdout.split())
    assert "stopped at 'br0 has taken over eth0', whose claims are not checked" in said
    (lab,) = world.labs()
    assert lab["until"] == "br0 has taken over eth0"
    assert [node["name"] for node in lab["nodes"]] == ["h1", "h2", "gw"]
    assert lab["nodes"][0]["addresses"] == {"br0": "10.211.55.3/24"}


@pytest.mark.parametrize(
    ("until", "said"),
    [
        ("nowhere", "'nowhere' is no stage of bridge: 'hosts', 'br0 has taken over eth0',"),
        (
            "br0",
            "'br0' is more than one stage of bridge: 'br0 has taken over eth0', 'Docker on br0'",
        ),
    ],
)
def test_a_wrong_stage_is_refused_before_anything_is_built(
    world: World, until: str, said: str
) -> None:
    refused = world.say("up", "bridge", "--until", until)
    assert (refused.status, refused.stdout) == (2, "")
    assert said in refused.stderr
    assert world.processes() == [world.pid]


@pytest.mark.usefixtures("open_vswitch")
def test_a_stage_that_these_settings_skip_is_an_error(world: World) -> None:
    refused = world.say("up", "ovs-gre", "--until", "FORWARD")
    assert refused.status == 2
    assert "the build has no stage 'FORWARD policy DROP'; it went through: hosts," in refused.stderr
    assert world.processes() == [world.pid]


@pytest.mark.usefixtures("open_vswitch")
def test_at_a_stage_the_lab_is_as_that_stage_says(world: World) -> None:
    """Before the route, the other host answers and its containers do not."""
    assert world.say("up", "ovs-gre", "--until", "before the route").status == 0
    ping = ["exec", "h1/c1", "--", "ping", "-n", "-c1", "-W2"]
    assert "1 received" in world.say(*ping, "192.168.59.104").stdout
    assert "0 received" in world.say(*ping, "192.168.2.2").stdout


def test_empty_is_bare_machines_on_their_switch(world: World) -> None:
    """As they come: eth0 with its address, Docker with its own bridge."""
    up = world.say("up", "bridge", "--empty", "--hosts", "3")
    assert (up.status, "3 hosts, no containers" in up.stdout) == (0, True)
    (lab,) = world.labs()
    own = {
        f"h{n}": {"eth0": f"10.211.55.{2 + n}/24", "docker0": "172.17.0.1/16"} for n in (1, 2, 3)
    }
    found = {node["name"]: node["addresses"] for node in lab["nodes"]}
    assert found == own | {"gw": {"eth0": "10.211.55.1/24"}}
    links = world.say("exec", "h3", "--", "ls", "/sys/class/net")
    assert links.stdout.split() == ["docker0", "eth0", "lo"]
    status = world.say("status")
    begun = "· not yet: h1: eth0 is a port of no bridge" not in status.stdout
    assert (status.status, begun) == (1, False)


# -- claims, again ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_status_sees_what_has_been_broken_and_mended(world: World) -> None:
    assert world.say("up", "bridge").status == 0

    def claims() -> dict[str, bool]:
        said = world.say("status", "--json")
        told = json.loads(said.stdout)
        found = {claim["id"]: claim["holds"] for claim in told["claims"]}
        assert len(found) == len(told["claims"]) == 12
        assert "✗" in said.stderr or all(found.values())
        assert (said.status, told["holds"]) == ((0, True) if all(found.values()) else (1, False))
        return found

    assert all(claims().values())
    assert world.say("exec", "h2", "--", "ip", "link", "set", "eth0", "nomaster").status == 0
    found = claims()
    assert not found["h1-c1-reaches-h2-c1"]
    assert not found["h1-c1-to-h2-c1-takes-none"]
    assert found["h1-c1-reaches-outside"]
    assert world.say("exec", "h2", "--", "ip", "link", "set", "eth0", "master", "br0").status == 0
    assert all(claims().values())


@pytest.mark.slow
@pytest.mark.usefixtures("open_vswitch")
def test_status_asks_what_lasts_and_proves_when_asked(world: World) -> None:
    assert world.say("up", "ovs-gre").status == 0
    told = json.loads(world.say("status", "--prove", "--json").stdout)
    stages = {claim["stage"] for claim in told["claims"]}
    assert stages == {"hosts", "with the route through the tunnel"}
    assert (told["holds"], told["path"]["encapsulation"]) == (True, "gre")
    # Looking alone does not mend: the tunnel stays away.
    assert world.say("exec", "h1", "--", "ovs-vsctl", "del-port", "obr0", "gre0").status == 0
    assert world.say("status").status == 1
    ports = world.say("exec", "h1", "--", "ovs-vsctl", "list-ports", "obr0")
    assert (ports.status, ports.stdout) == (0, "")


@pytest.mark.usefixtures("open_vswitch")
def test_a_dead_daemon_is_named(world: World) -> None:
    assert world.say("up", "ovs-gre", "--until", "hosts").status == 0
    assert "has ended" not in world.say("status").stdout
    pid = world.say("exec", "h1", "--", "pidof", "ovs-vswitchd").stdout.strip()
    assert world.say("exec", "h1", "--", "kill", "-9", pid).status == 0
    said = world.say("status")
    assert said.status == 1
    assert "✗ h1: ovs-vswitchd has ended" in said.stdout
    assert "ovs-vswitchd (dead)" in world.say("ps").stdout


@pytest.mark.slow
def test_a_failed_claim_leaves_the_lab_and_says_so(world: World) -> None:
    up = world.say("up", "bridge", "--set", "fixed-cidr=none")
    assert up.status == 1
    assert "✗ bridge stands" in up.stdout
    assert "” (Docker on br0) does not hold: expected" in " ".join(up.stdout.split())
    assert [lab["name"] for lab in world.labs()] == ["bridge"]


# -- how it may end --------------------------------------------------------------------------------


def test_it_survives_the_terminal_it_was_started_from(world: World) -> None:
    argv = [*world.xlab, "up", "bridge", "--until", "Docker on"]
    with world.terminal(["sh", "-c", '"$@" && echo do""ne && exec cat', "sh", *argv]) as terminal:
        terminal.expect("done")
        terminal.hang_up()
        os.waitpid(terminal.pid, 0)
    (lab,) = world.labs()
    assert world.say("exec", "h1/c1", "--", "true").status == 0
    assert link_target(f"/proc/{lab['pid']}/cwd") == "/"
    opened = [
        link_target(f"/proc/{lab['pid']}/fd/{fd}") for fd in names_in(f"/proc/{lab['pid']}/fd")
    ]
    assert [path for path in opened if path.startswith(("/dev/pts", str(world.folder)))] == []


def test_kill_9_of_its_first_process_ends_everything(bridge: World) -> None:
    sleeper = bridge.start("exec", "h1/c1", "--", "sleep", "1000")
    within = ["exec", "h1/c1", "--", "ps", "-C", "sleep", "-o", "args="]
    wait_until(
        lambda: bridge.say(*within).stdout == "sleep 1000\n", timeout_s=PATIENCE_S, awaited="sleep"
    )
    (lab,) = bridge.labs()
    kill(lab["pid"])
    _, error = sleeper.communicate(timeout=PATIENCE_S)
    assert (sleeper.returncode, error) == (137, "xlab: lab bridge has ended\n")
    bridge.await_alone()
    assert bridge.labs() == []
    assert bridge.say("up", "bridge", "--until", "hosts").status == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGHUP])
def test_an_up_that_is_broken_off_leaves_nothing(world: World, number: signal.Signals) -> None:
    up = world.start("up", "bridge", "--hosts", "40", "--containers", "10")
    assert up.stdout is not None
    # The headline comes when the sandbox is there.
    assert up.stdout.readline().startswith("bridge")
    assert world.first_process() is not None
    up.send_signal(number)
    up.communicate(timeout=PATIENCE_S)
    assert up.returncode in (-number, 128 + number)
    world.await_alone()


def test_what_runs_inside_ends_with_who_waits_for_it(standing: World) -> None:
    """As with a terminal that goes: SIGHUP."""
    sleeper = standing.start("exec", "h1", "--", "sleep", "1000")
    within = ["exec", "h1", "--", "ps", "-C", "sleep", "-o", "args="]
    wait_until(lambda: standing.say(*within).stdout != "", timeout_s=PATIENCE_S, awaited="sleep")
    sleeper.kill()
    sleeper.communicate(timeout=PATIENCE_S)
    wait_until(lambda: standing.say(*within).stdout == "", timeout_s=PATIENCE_S, awaited="its end")


_BESIDE_ONE_THAT_IS_STOPPED = """
import os, signal, subprocess, sys
os.setsid()
stopped = subprocess.Popen(["sleep", "1000"])
stopped.send_signal(signal.SIGSTOP)
os.waitid(os.P_PID, stopped.pid, os.WSTOPPED | os.WNOWAIT)
done = subprocess.run(sys.argv[sys.argv.index("--do") + 1:])
print("status", done.returncode, flush=True)
stopped.kill()
"""


def test_what_runs_in_a_lab_ends_without_a_word_to_its_callers_group(standing: World) -> None:
    """Which the kernel has when a group, one of them stopped, becomes an orphaned one."""
    argv = [sys.executable, "-P", "-c", _BESIDE_ONE_THAT_IS_STOPPED]
    for command in (["exec", "h1", "--", "true"], ["cli"]):
        done = subprocess.run(
            [*argv, "--do", *standing.xlab, *command],
            cwd=standing.folder, env=standing.environment(), input="exit\n",
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done
        assert done.stdout.endswith("status 0\n"), done


@pytest.mark.slow
def test_who_has_been_stopped_keeps_nothing_from_ending(world: World) -> None:
    """Ctrl-Z: a stopped parent does not see that its child has ended."""
    assert world.say("up", "baseline", "--empty").status == 0
    with world.terminal([*world.xlab, "cli"]) as cli:
        cli.expect("mininet> ")
        sleeper = world.start("exec", "h1", "--", "sleep", "1000")
        within = ["exec", "h1", "--", "ps", "-C", "sleep", "-o", "args="]
        wait_until(lambda: world.say(*within).stdout != "", timeout_s=PATIENCE_S, awaited="sleep")
        for pid in (cli.pid, sleeper.pid):
            os.kill(pid, signal.SIGSTOP)
        crash, down = world.say("fault", "crash", "h1"), world.say("down")
        for pid in (cli.pid, sleeper.pid):
            os.kill(pid, signal.SIGCONT)
        assert (crash.status, down.status) == (0, 0), (crash, down)
        assert "baseline has ended" in sleeper.communicate(timeout=PATIENCE_S)[1]
    world.await_alone()


@pytest.mark.parametrize(
    ("done", "conditions"),
    [
        ("del eth0", ["--delay", "1ms"]),
        pytest.param("set eth0 down name spare", [], marks=pytest.mark.slow),
    ],
)
def test_a_host_whose_cable_somebody_has_done_away_with(
    world: World, done: str, conditions: list[str]
) -> None:
    assert world.say("up", "baseline", "--until", "hosts", *conditions).status == 0
    ping = ["exec", "h1", "--", "ping", "-n", "-q", "-c1", "-W5", "h2"]
    assert world.say(*ping).status == 0
    assert world.say("exec", "h1", "--", "sh", "-c", f"ip link {done}").status == 0
    assert world.say(*ping).status != 0
    for order in ("crash", "reboot"):
        fault = world.say("fault", "--wait", order, "h1")
        assert (fault.status, fault.stderr) == (0, "")
    assert world.say(*ping).status == 0
    assert world.say("down").status == 0


# -- what does not answer --------------------------------------------------------------------------

#: Somebody else, who has names of ours: one that accepts and says nothing, one that talks nonsense,
#: and many behind whose full queues whoever connects would wait for good.
_STRANGER = """
import os, resource, socket, sys, threading
from contextlib import suppress
prefix = f"\\0xlab/{os.geteuid()}/"
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
os.setgroups([])
os.setresgid(12345, 12345, 12345)
os.setresuid(12345, 12345, 12345)
def bound(name, backlog):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(prefix + name)
    listener.listen(backlog)
    return listener
def accept(listener, said):
    while True:
        talks.append(listener.accept()[0])
        with suppress(OSError):
            talks[-1].sendall(said)
talks, full = [], []
for name, said in (("silent", b""), ("nonsense", b"x" * 1000)):
    threading.Thread(target=accept, args=(bound(name, 5), said), daemon=True).start()
for number in range(int(sys.argv[sys.argv.index("--many") + 1])):
    full.append(bound(f"full{number}", 0))
    full.append(socket.socket(socket.AF_UNIX))
    full[-1].connect(prefix + f"full{number}")
deaf = socket.socket(socket.AF_UNIX)
deaf.bind(prefix + "deaf")
print("bound", flush=True)
sys.stdin.read()
"""


@contextmanager
def stranger(world: World, many: int) -> Iterator[None]:
    with subprocess.Popen(
        [*world.python, "-c", _STRANGER, "--many", str(many)],
        env=world.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "bound\n"
        try:
            yield
        finally:
            process.kill()


def test_somebody_elses_sockets_hold_nobody_up(world: World) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    assert world.say("up", "baseline", "--until", "hosts").status == 0
    with stranger(world, 1000):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert [lab["name"] for lab in world.labs()] == ["baseline"]
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # It waits for nothing, so a quiet machine shows this time.
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
        assert world.say("exec", "h1", "--", "true") == Said(0, "", "")
        for name, whose in (
            ("silent", " (uid 12345)"),
            ("nonsense", " (uid 12345)"),
            ("full7", ""),
        ):
            taken = f"the name '{name}' is taken by somebody else's socket{whose}"
            none = f"xlab: no lab named '{name}' is running: {taken}; there is baseline\n"
            assert world.say("down", name) == Said(2, "", none)
        up = world.say("up", "baseline", "--name", name)
        assert up == Said(2, "", f"xlab: {taken}: --name gives this lab another name\n")
        up = world.say("up", "baseline", "--name", "deaf")
        assert (up.status, "'deaf' is taken by a socket that is no lab's" in up.stderr) == (2, True)
        assert world.say("down").status == 0


def stop(world: World, pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    wait_until(
        lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "T",
        timeout_s=PATIENCE_S, awaited="its being stopped",
    )  # fmt: skip


#: In the world's namespace, with the name of a lab: as many connections as nobody accepts.
_FILL = """
import sys
from xlab.sandbox import registry
try:
    while True:
        registry.connect(sys.argv[-1]).close()
except BlockingIOError:
    pass
"""


def fill(world: World, name: str) -> None:
    subprocess.run(
        [*world.python, "-c", _FILL, name],
        env=world.environment(), cwd=world.folder, timeout=PATIENCE_S, check=True,
    )  # fmt: skip


def silent(pid: int) -> Said:
    return Said(1, "", f"xlab: lab ill does not answer (pid {pid}); `xlab down ill` ends it\n")


def test_a_stopped_lab_is_seen_and_ended(world: World) -> None:
    for name in ("sound", "ill"):
        assert world.say("up", "baseline", "--name", name, "--until", "hosts").status == 0
    pid = next(lab["pid"] for lab in world.labs() if lab["name"] == "ill")
    stop(world, pid)
    for asked in ("exec", "trace", "cli"):
        nodes = {"exec": ["h1", "true"], "trace": ["h1", "h2"]}.get(asked, [])
        assert world.say(asked, "--name", "ill", *nodes) == silent(pid)
    fill(world, "ill")
    for asked in ("capture", "top", "fault"):
        nodes = ["h1"] if asked == "capture" else []
        assert world.say(asked, "--name", "ill", *nodes) == silent(pid)
    ill, sound = world.labs()
    assert ill == {"name": "ill", "state": "does not answer", "pid": pid, "nodes": []}
    assert sound["state"] == "up"
    assert world.say("exec", "--name", "sound", "h1", "--", "true") == Said(0, "", "")
    down = world.say("down", "ill")
    assert (down.status, down.stderr) == (0, "")
    assert pid not in all_pids()
    # One whose queue has room, too.
    stop(world, sound["pid"])
    assert f"sound      does not answer, pid {sound['pid']} " in world.say("ps").stdout
    assert world.say("down").status == 0
    world.await_alone()


def test_a_lab_that_can_open_no_more_files_is_seen_and_ended(world: World) -> None:
    assert world.say("up", "baseline", "--until", "hosts").status == 0
    (lab,) = world.labs()
    pid = lab["pid"]
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]

    def seen() -> bool:
        lowest_free = next(n for n in count() if not Path(f"/proc/{pid}/fd/{n}").is_symlink())
        # One more, which is the connection.
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free + 1, hard))
        ps = world.say("ps")
        assert (ps.status, ps.stderr) == (0, "")
        return "baseline   at most" in ps.stdout

    # The connection that asked last may have had a number, too, and is let go meanwhile.
    wait_until(seen, timeout_s=PATIENCE_S, awaited="what ps says of a lab without room")
    down = world.say("down")
    assert (down.status, down.stderr) == (0, "")
    world.await_alone()


@pytest.mark.slow
def test_a_stopped_lab_is_ended_without_root(ordinary_world: World) -> None:
    up = ["up", "baseline", "--name", "ill", "--until", "hosts"]
    assert ordinary_world.say(*up).status == 0
    (lab,) = ordinary_world.labs()
    stop(ordinary_world, lab["pid"])
    fill(ordinary_world, "ill")
    assert ordinary_world.say("exec", "h1", "true") == silent(lab["pid"])
    assert ordinary_world.say("down").status == 0
    ordinary_world.await_alone()


@pytest.mark.slow
def test_a_lab_stopped_meanwhile_ends_the_wait(bridge: World) -> None:
    sleeper = bridge.start("exec", "--all", "--", "sleep", "1000")
    within = ["exec", "h1", "--", "ps", "-C", "sleep", "-o", "args="]
    wait_until(
        lambda: bridge.say(*within).stdout == "sleep 1000\n", timeout_s=PATIENCE_S, awaited="sleep"
    )
    (lab,) = bridge.labs()
    stop(bridge, lab["pid"])
    _, error = sleeper.communicate(timeout=PATIENCE_S)
    assert (sleeper.returncode, "lab bridge does not answer" in error) == (1, True)
    # What was refused is not done after all when it goes on.
    assert bridge.say("fault", "link", "h1", "down").status == 1
    os.kill(lab["pid"], signal.SIGCONT)
    told = json.loads(bridge.say("fault", "--json").stdout)
    assert told["in_force"] == []


_ODD = """
from xlab.sandbox import registry
listener = registry.listen("odd")
print(input("on\\n"))
"""


def test_what_is_no_lab_of_ours_is_not_killed(world: World) -> None:
    """A socket of ours under a lab's name, held by another program, that is stopped."""
    with subprocess.Popen(
        [*world.python, "-c", _ODD],
        env=world.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        stop(world, process.pid)
        try:
            refused = world.say("down", "odd")
        finally:
            process.send_signal(signal.SIGCONT)
        assert refused.status == 1
        assert "the socket of lab 'odd' is held by no process known to be a lab's" in refused.stderr
        assert process.communicate("alive\n")[0] == "alive\n"


#: A lab whose pid 1 belongs to somebody who says yes to everything, and goes on.
_LIAR = """
from pathlib import Path
from xlab.sandbox import sandbox
def serve(channel, listener):
    talks = []
    while True:
        talks.append(listener.accept()[0])
        for _ in talks[-1].makefile("rb"):
            talks[-1].sendall(b'{"result": null}\\n')
lab = sandbox.launch(serve, name="liar", keep=[Path.cwd()])
print(lab.pid)
lab.leave()
"""


def test_a_lab_that_only_says_that_it_ends_is_ended(world: World) -> None:
    """Root of a lab can get hold of its pid 1 where /proc has been unmounted."""
    launched = subprocess.run(
        [*world.python, "-c", _LIAR],
        env=world.environment(), cwd=world.folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    pid = int(launched.stdout)
    assert pid in all_pids()
    down = world.say("down", "liar")
    assert (down.status, down.stderr) == (0, "")
    assert pid not in all_pids()


# -- exec ------------------------------------------------------------------------------------------


def test_exec_is_as_if_the_command_ran_here(standing: World) -> None:
    for command, stdin, expected in (
        (["sh", "-c", "exit 7"], "", Said(7, "", "")),
        (["sh", "-c", "kill -TERM $$"], "", Said(128 + 15, "", "")),
        (["cat"], "through\n", Said(0, "through\n", "")),
        (["sh", "-c", "echo out; echo err >&2"], "", Said(0, "out\n", "err\n")),
        (["no-such-program"], "", Said(127, "", "xlab: h1: no-such-program: not found\n")),
        (["/etc/passwd"], "", Said(126, "", "xlab: h1: /etc/passwd: Permission denied\n")),
        (["printf", "%s|", "a b", "", "--all"], "", Said(0, "a b||--all|", "")),
    ):
        assert standing.say("exec", "h1", "--", *command, stdin=stdin) == expected
    assert standing.say("exec", "h1", "printf", "%s|", "--all", "--") == Said(0, "--all|--|", "")


def test_exec_from_a_folder_that_is_gone_begins_at_the_top(standing: World) -> None:
    gone = ["sh", "-c", 'mkdir gone && cd gone && rmdir ../gone && exec "$@" exec h1 -- pwd', "sh"]
    done = subprocess.run(
        [*gone, *standing.xlab], cwd=standing.folder, env=standing.environment(),
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "/\n", "")


def test_up_without_standard_streams(world: World) -> None:
    closed = ["sh", "-c", 'exec "$@" up bridge --until hosts <&- >&- 2>&-', "sh", *world.xlab]
    done = subprocess.run(
        closed, cwd=world.folder, env=world.environment(), timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0
    assert world.say("exec", "h1", "--", "sh", "-c", "echo there").stdout == "there\n"
    assert world.say("down").status == 0


def test_exec_is_in_the_nodes_own_namespaces(standing: World) -> None:
    shown = standing.say(
        "exec", "h1", "--", "sh", "-c", "hostname; ls /sys/class/net; ps -e -o comm="
    )
    lines = shown.stdout.split()
    assert (lines[0], "br0" in lines) == ("h1", True)
    # What runs in the host, and nothing of other hosts, of containers or of the machine.
    assert lines[-3:] == ["catatonit", "sh", "ps"]
    bounding = standing.say("exec", "h1", "--", "grep", "CapBnd", "/proc/self/status").stdout
    if os.geteuid() == 0:
        sys_module, sys_boot, sys_time = 16, 22, 25
        mask = int(bounding.split()[1], 16)
        assert [number for number in (sys_module, sys_boot, sys_time) if mask >> number & 1] == []


def test_exec_all_goes_through_every_host_and_container(standing: World) -> None:
    said = standing.say(
        "exec", "--all", "--", "sh", "-c", "ip -4 -o addr show scope global | wc -l"
    )
    assert said == Said(0, "h1:\n1\nh1/c1:\n1\nh1/c2:\n1\nh2:\n1\nh2/c1:\n1\nh2/c2:\n1\n", "")
    assert standing.say("exec", "--all", "ls", "/sys/class/net/br0").status == 2


def test_a_wrong_node_comes_with_the_nearest(standing: World) -> None:
    said = standing.say("exec", "h1/c3", "--", "true")
    assert said.status == 2
    assert "no node is called 'h1/c3': there are h1, h1/c1, h1/c2, h2" in said.stderr
    assert "did you mean h1/c" in said.stderr


def test_the_gateway_is_a_node(standing: World) -> None:
    said = standing.say("exec", "gw", "--", "ip", "-o", "-4", "addr", "show", "eth0")
    assert (said.status, "10.211.55.1/24" in said.stdout) == (0, True)


# -- on a terminal ---------------------------------------------------------------------------------


def test_a_shell_on_a_terminal(standing: World) -> None:
    prompt = "h1:~# "
    with standing.terminal([*standing.xlab, "shell", "h1"], size=(40, 132)) as shell:
        shell.expect(prompt)
        assert shell.line("stty size", prompt) == "40 132"
        assert "10.211.55.3/24" in shell.line("ip -br -c=never a show br0", prompt)
        shell.type("sleep 1000; echo said $?\n")
        shell.expect("echo said $?")
        wait_until(
            lambda: standing.say("exec", "h1", "--", "pidof", "sleep").status == 0,
            timeout_s=PATIENCE_S, awaited="sleep",
        )  # fmt: skip
        shell.type("\x03")
        shell.expect("^C")
        shell.expect(prompt)
        shell.type("sleep 1000\n")
        wait_until(
            lambda: standing.say("exec", "h1", "--", "pidof", "sleep").status == 0,
            timeout_s=PATIENCE_S, awaited="sleep",
        )  # fmt: skip
        shell.type("\x1a")
        shell.expect("Stopped")
        shell.expect(prompt)
        assert "sleep 1000" in shell.line("jobs", prompt)
        told = [shell.line("kill -9 %1", prompt)]
        wait_until(
            lambda: standing.say("exec", "h1", "--", "pidof", "sleep").status != 0,
            timeout_s=PATIENCE_S, awaited="the end of sleep",
        )  # fmt: skip

        def heard_of() -> bool:
            """Once, by the shell; a zombie, which it has yet to wait for, pidof does not show.

            The SIGCHLD of a stopped job that is killed bash 5.2 loses in one case of ten (in any
            terminal, no lab needed), and then lists the job as stopped for good; waiting for
            another program, it waits for that one too.
            """
            if "Killed" not in told[-1]:
                told.append(shell.line("/bin/true; jobs", prompt))
            return "Killed" in told[-1]

        wait_until(heard_of, timeout_s=PATIENCE_S, awaited="the shell to hear of it")
        # Completion, by bash itself.
        shell.type("ls /sys/class/net/br0/bridg\t")
        shell.expect("bridge/")
        shell.type("\x15exit 3\n")
        status, _ = shell.end()
    assert status == 3


def test_a_shell_in_a_container_says_where_it_is(standing: World) -> None:
    with standing.terminal([*standing.xlab, "shell", "--name", "bridge", "h2/c1"]) as shell:
        shell.expect("bridge:h2/c1:")
        shell.expect("# ")
        assert "10.211.55.128/24" in shell.line("ip -br -c=never a show eth0", "# ")
        shell.type("exit\n")
        assert shell.end()[0] == 0


def test_exec_is_a_job_of_the_callers_shell(standing: World) -> None:
    """Ctrl-Z stops it as any job, and `fg` goes on with it."""
    program = standing.folder / "xlab"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(standing.xlab)} "$@"\n')
    program.chmod(0o755)
    with standing.terminal(["bash", "--norc", "--noprofile", "-i"]) as shell:
        shell.type("PS1='@ '\n")
        shell.expect("@ ")
        shell.expect("@ ")
        shell.type("./xlab exec h1 -- sh -c 'echo rea\"\"dy; exec cat'\n")
        shell.expect("\r\nready")
        shell.type("\x1a")
        shell.expect("Stopped")
        shell.expect("@ ")
        shell.type("fg\n")
        shell.expect("\r\n./xlab exec")
        shell.type("back again\n")
        shell.expect("back again")  # the terminal's own echo
        shell.expect("back again")
        shell.type("\x04")
        shell.expect("@ ")
        # The terminal is the shell's again, and Ctrl-C is for what runs inside.
        shell.type("./xlab exec h1 -- sh -c 'echo rea\"\"dy; exec sleep 1000'\n")
        shell.expect("\r\nready")
        shell.type("\x03")
        shell.expect("@ ")
        assert shell.line("echo $?", "@ ") == "130"
        shell.type("exit\n")
        assert shell.end()[0] == 0


def test_mininets_command_line(standing: World) -> None:
    prompt = "mininet> "
    with standing.terminal([*standing.xlab, "cli"]) as cli:
        cli.expect(prompt)
        assert "gw h1 h1/c1 h1/c2 h2 h2/c1 h2/c2 s1" in cli.line("nodes", prompt)
        assert "h1-eth0:s1-eth1" in cli.line("net", prompt)
        assert "0% dropped (30/30 received)" in cli.line("pingall", prompt)
        assert "inet 10.211.55.3/24" in cli.line("h1 ip -c=never a", prompt)
        cli.line("link s1 h1 down", prompt)
        assert standing.say("exec", "h1/c1", "ping", "-c1", "-W1", "10.211.55.128").status == 1
        assert "h1 -> X" in cli.line("pingall 0.2", prompt)
        # A fault like any other: known to all, and mended from here or from there.
        assert "fault: link h1 down" in standing.say("ps").stdout
        assert "`link h1 down` is in force already" in cli.line("link h1 s1 down", prompt)
        mended = standing.say("fault", "--json", "--wait", "link", "h1", "up")
        assert (mended.status, json.loads(mended.stdout)["in_force"]) == (0, [])
        cli.line("link s1 h1 down", prompt)
        assert "link h1 down" in standing.say("fault").stdout
        cli.line("link s1 h1 up", prompt)
        assert json.loads(standing.say("fault", "--json").stdout)["in_force"] == []
        assert "<Host h1: h1-eth0:" in cli.line("dump", prompt)
        for node in ("h1", "h1", "h2/c1"):
            # Before it has said so, Ctrl-C could still meet the shell that starts it.
            cli.type(f"{node} sh -c 'echo rea\"\"dy; exec sleep 1000'\n")
            cli.expect("\r\nready")
            cli.type("\x03")
            cli.expect(prompt)
        cli.type("exit\n")
        assert cli.end()[0] == 0
    assert standing.say("status").status == 0


@pytest.mark.slow
def test_mininets_command_line_measures_between_two_nodes(standing: World) -> None:
    prompt = "mininet> "
    with standing.terminal([*standing.xlab, "cli"]) as cli:
        cli.expect(prompt)
        said = cli.line("iperf h1 h2", prompt)
        rate = r"'[\d.]+ [KMG]bits/sec'"
        assert re.search(rf"Results: \[{rate}, {rate}\]", said), said
        cli.type("exit\n")
        assert cli.end()[0] == 0


@pytest.mark.slow
def test_mininets_command_line_outlives_a_host(bridge: World) -> None:
    prompt = "mininet> "
    with bridge.terminal([*bridge.xlab, "cli"], size=(24, 200)) as cli:
        cli.expect(prompt)
        assert cli.line("h1 hostname", prompt) == "h1"
        cli.type("h2 sh -c 'echo rea\"\"dy; exec sleep 1000'\n")
        cli.expect("\r\nready")
        for host in ("h2", "h1"):
            assert bridge.say("fault", "crash", host).status == 0
        assert "*** h2: its shell has ended" in cli.expect(prompt)
        down = cli.line("h1 hostname", prompt)
        assert "h1 is down: `xlab fault reboot h1` brings it back" in down
        for host in ("h2", "h1"):
            assert bridge.say("fault", "reboot", host).status == 0
            assert cli.line(f"{host} hostname", prompt) == host
        cli.line("h1 exit", prompt)
        assert cli.line("h1 hostname", prompt) == "h1"
        cli.type("exit\n")
        assert cli.end()[0] == 0


@pytest.mark.slow
def test_mininets_command_line_ends_with_the_lab(bridge: World) -> None:
    with bridge.terminal([*bridge.xlab, "cli"]) as cli:
        cli.expect("mininet> ")
        assert bridge.say("down").status == 0
        status, said = cli.end()
    assert (status, "xlab: lab bridge has ended" in said) == (137, True)


# -- completion ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("xlab shell h1/", ["h1/c1", "h1/c2"]),
        ("xlab exec g", ["gw"]),
        ("xlab down b", ["bridge"]),
        ("xlab up bridge --until Dock", ["Docker on br0"]),
        ("xlab shell --name none h", []),
    ],
)
def test_names_are_completed(standing: World, typed: str, offered: list[str]) -> None:
    words = typed.split(" ")
    done = subprocess.run(
        [*standing.xlab],
        env={
            **standing.environment(),
            "_XLAB_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert [line for line in done.stdout.split("\n") if line] == offered


def test_tab_completes_names_in_bash(standing: World) -> None:
    """As the README says it: a list where there are several, the whole word where there is one."""
    inside = standing.xlab[: standing.xlab.index("--") + 1]
    bash = ["env", "PS1=@ ", "INPUTRC=/dev/null", "bash", "--norc", "--noprofile", "-i"]
    with standing.terminal([*inside, *bash], size=(40, 200)) as shell:
        shell.expect("@ ")
        shell.line(f"cd {ROOT}", "@ ")
        shell.line("source <(bin/xlab --show-completion)", "@ ")
        # The first goes on as far as all agree, the second finds nothing more, the third lists.
        shell.type("bin/xlab exec h1/\t\t\t")
        shell.expect("h1/c1  h1/c2")
        shell.expect("@ bin/xlab exec h1/c")
        shell.type("\x15bin/xlab down br\t")  # Ctrl-U: another line
        shell.expect("bin/xlab down bridge ")
        shell.type("\x15echo $((6 * 7))\n")
        shell.expect("42")
        shell.type("exit\n")
        assert shell.end()[0] == 0


def test_the_log_is_there_while_the_lab_is(standing: World) -> None:
    (lab,) = standing.labs()
    assert standing.say("status", "--log") == Said(0, "", "")
    assert lab["pid"] in all_pids()


# -- faults ----------------------------------------------------------------------------------------


def test_faults_are_made_and_mended(world: World) -> None:
    assert world.say("up", "baseline").status == 0
    ping = ["exec", "h1", "--", "ping", "-n", "-c1", "-W1", "10.211.55.4"]
    assert world.say(*ping).status == 0
    broken = json.loads(world.say("fault", "--json", "--wait", "link", "h2", "down").stdout)
    assert broken["in_force"] == [{"fault": "link h2 down", "cure": "link h2 up"}]
    assert ["h1", "h2"] in broken["cut"]
    assert ["h1", "gw"] not in broken["cut"]
    assert world.say(*ping).status == 1
    assert "fault: link h2 down" in world.say("ps").stdout
    refused = world.say("fault", "crash", "h9")
    assert (refused.status, "no host 'h9'; there is: h1, h2" in refused.stderr) == (2, True)
    assert "--wait link h2 up\n" in world.say("fault").stdout
    assert world.say("fault", "--wait", "link", "h2", "up").status == 0
    assert world.say(*ping).status == 0
    assert world.say("fault", "crash", "h2").status == 0
    (lab,) = world.labs()
    assert {node["name"]: node["up"] for node in lab["nodes"]} == {
        "h1": True, "h1/c1": True, "h1/c2": True, "h2": False, "gw": True,
    }  # fmt: skip
    remedy = "`xlab fault reboot h2` brings it back"
    for words in (["exec", "h2", "--", "true"], ["shell", "h2"], ["capture", "h2:eth0"], ["cli"]):
        assert world.say(*words).stderr == f"xlab: h2 is down: {remedy}\n"
    inside = world.say("shell", "h2/c1").stderr
    assert inside == f"xlab: h2/c1: h2 is down, and its containers with it: {remedy}\n"
    everywhere = world.say("exec", "--all", "--", "true")
    assert (everywhere.status, everywhere.stderr) == (125, f"h2 is down: {remedy}\n")
    assert world.say("fault", "--wait", "reboot", "h2").status == 0
    assert world.say(*ping).status == 0
    assert world.say("fault", "crash", "h1").status == 0
    status = world.say("status")
    assert (status.status, "fault: crash h1" in status.stdout) == (1, True)
    # What mends it comes first; what shows that it is there is no news.
    assert status.stdout.splitlines()[1].split() == [
        "to",
        "mend",
        "xlab",
        "fault",
        "--wait",
        "reboot",
        "h1",
    ]
    assert status.stdout.endswith("claims hold; in force: crash h1\n")
    assert "evidence" not in status.stdout
    assert "observed  h1 is down, and its containers with it" in status.stdout
    assert "Error response from daemon" not in status.stdout


def test_of_what_somebody_types_faults_know_the_hosts_alone(world: World) -> None:
    assert world.say("up", "bridge", "--empty").status == 0
    assert world.say("exec", "h1", "--", "docker", "run", "-dit", "ubuntu").status == 0
    broken = json.loads(world.say("fault", "--json", "--wait", "link", "h1", "down").stdout)
    assert sorted(broken["cut"]) == [["h1", "gw"], ["h1", "h2"], ["h2", "h1"]]
    # As people type it: what to do first, and then how.
    assert world.say("fault", "link", "h1", "up", "--wait").status == 0
    assert world.say("fault", "crash", "h2").status == 0
    assert world.say("fault", "--wait", "reboot", "h2").status == 0
    # As its files have it.
    assert world.say("exec", "h2", "--", "docker", "run", "-dit", "ubuntu").status == 0
