"""Mininet's programs on xlab.mininet, seen from outside, and the CLI on a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.support import documents
from tests.support.documents import ROOT
from tests.support.labs import PATIENCE_S, all_pids, kill, names_in, why_no_open_vswitch
from tests.support.terminal import Terminal
from xlab.kernel.processes import wait_until
from xlab.kernel.programs import locate
from xlab.lab.network import FALLBACK_TUNNELS

#: Before it has said so, Ctrl-C could still meet the shell that starts it.
FOREGROUND = """sh -c 'echo rea""dy; exec sleep 1000'"""

sandbox = pytest.mark.sandbox


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}


class Script:
    """`python -m xlab.mininet` in a process of its own; all descendants inherit its mark."""

    def __init__(
        self, *arguments: str, cwd: Path, python: Sequence[str] = (), **variables: str
    ) -> None:
        self.mark = f"XLAB_TEST_SCRIPT={uuid.uuid4()}"
        name, _, value = self.mark.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, *(python or ("-m", "xlab.mininet")), *arguments],
            cwd=cwd,
            env={**environment(), name: value, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def finish(self, stdin: str = "", *, patience_s: float = PATIENCE_S) -> tuple[int, str, str]:
        out, err = self.process.communicate(stdin, timeout=patience_s)
        return self.process.returncode, out, err

    def until(self, text: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if text in line:
                return
        raise AssertionError(f"never said {text!r}: {self.finish()}")

    def alive(self) -> list[int]:
        return marked(self.mark)


def marked(mark: str) -> list[int]:
    """Processes that carry the mark."""
    found = []
    for pid in all_pids():
        with contextlib.suppress(OSError):
            if mark.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
    return found


def run(script: str, folder: Path, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    path = folder / "script.py"
    path.write_text(script)
    with Script(str(path), *arguments, cwd=folder) as started:
        return started.finish(stdin)


# -- scenarios -------------------------------------------------------------------------------------

SCENARIO = """
import json, os
import xlab.mininet

with xlab.mininet.scenario("bridge", hosts=2, containers=1, delay_ms=2) as net:
    assert all(claim.holds for claim in net.claims) and len(net.claims) > 10
    containers = net.get("h1/c1", "h2/c1")
    lost = net.ping(containers)
    net.configLinkStatus("s1", "h2", "down")
    cut = net.ping(containers, timeout=0.3)
    net.configLinkStatus("s1", "h2", "up")
    names = net.keys()
with xlab.mininet.scenario("baseline") as net:
    again = net.pingPair()
print(json.dumps([names, lost, cut, again, sorted(os.listdir("/sys/class/net"))]))
"""


@sandbox
def test_a_scenario_is_a_network_with_containers_as_hosts(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCENARIO)
    with Script(cwd=tmp_path, python=("script.py",)) as started:
        status, out, err = started.finish()
    assert status == 0, err
    names, lost, cut, again, interfaces = json.loads(out)
    assert names == ["h1", "h2", "h1/c1", "h2/c1", "s1", "gw"]
    assert (lost, cut, again) == (0, 100, 0)
    assert set(interfaces) - FALLBACK_TUNNELS == {"lo"}


@sandbox
def test_a_scenario_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    line = "import xlab.mininet as m\nwith m.scenario('weave', hosts=1): pass\n"
    (tmp_path / "script.py").write_text(line)
    with Script("script.py", cwd=tmp_path) as started:
        status, _, err = started.finish()
    assert (status, "--hosts is 1" in err) == (2, True), err


# -- scripts ---------------------------------------------------------------------------------------

STOCK = """
from mininet.net import Mininet
from mininet.topo import Topo
from mininet.node import Controller, OVSSwitch
from mininet.cli import CLI
from mininet.log import setLogLevel

class Pair(Topo):
    def build(self):
        s1 = self.addSwitch("s1")
        for name in ("h1", "h2"):
            self.addLink(self.addHost(name), s1)

setLogLevel("info")
net = Mininet(topo=Pair(), switch=OVSSwitch, controller=Controller, waitConnected=True)
net.start()
net.pingAll()
CLI(net)
net.stop()
"""


@sandbox
def test_a_script_runs_as_it_is(tmp_path: Path) -> None:
    interfaces = names_in("/sys/class/net")
    status, out, err = run(STOCK, tmp_path, stdin="nodes\nh1 ip -br -c=never address\nexit\n")
    assert status == 0, err
    assert "0% dropped (2/2 received)" in out + err
    assert "c0 h1 h2 s1" in out + err
    assert "10.0.0.1/8" in out + err
    assert names_in("/sys/class/net") == interfaces


@sandbox
@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        ("sys.exit(5)", 5, ""),
        ("sys.exit('no more')", 1, "no more"),
        ("raise KeyboardInterrupt", 130, ""),
        ("net.hosts[0].nothing", 1, "line 5, in <module>"),
        ("net.switches[0].cmd('true; ofprotocol tcp:h1 &')", 3, "script.py:5)"),
        ("net.hosts[0].setIP('1.2.3.4.5/8')", 2, "h1-eth0"),
        ("os.kill(os.getpid(), 9)", 137, ""),
    ],
)
def test_a_script_ends_as_it_ends(tmp_path: Path, end: str, status: int, said: str) -> None:
    script = (
        "import os, sys\nfrom mininet.net import Mininet\nfrom mininet.topo import MinimalTopo\n"
        f"net = Mininet(MinimalTopo()); net.start()\n{end}\n"
    )
    got, _, err = run(script, tmp_path)
    assert (got, said in err) == (status, True), err
    assert "__main__.py" not in err
    assert ("Traceback" in err) == ("nothing" in end)


@sandbox
def test_a_script_keeps_its_folder_arguments_children_and_modules(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("VALUE = 'imported'\n")
    script = """
import os, subprocess, sys
from pathlib import Path
import beside
from mininet.net import Mininet
from mininet.topo import MinimalTopo
from mininet.util import quietRun, errRun
net = Mininet(MinimalTopo()); net.start()
assert __name__ == "__main__" and beside.VALUE == "imported"
assert subprocess.run(["sh", "-c", "exit 4"]).returncode == 4
assert errRun("false")[2] == 1
assert net["h1"].pexec("sh", "-c", "exit 6")[2] == 6
assert net["h1"].cmd("pwd").strip() == os.getcwd() == net["h1"].pexec("pwd")[0].strip()
assert "s1-eth1" in quietRun("ip link show")
Path("result").write_text(" ".join(sys.argv[1:]))
net.stop()
"""
    status, _, err = run(script, tmp_path, "--some", "argument")
    assert status == 0, err
    assert (tmp_path / "result").read_text() == "--some argument"


@sandbox
def test_a_program_moves_inside_where_it_asks_for_a_network(tmp_path: Path) -> None:
    script = tmp_path / "plain.py"
    script.write_text(
        """
import os, sys
from mininet.topo import SingleSwitchTopo
import xlab.mininet
from xlab.lab.network import FALLBACK_TUNNELS as FALLBACK
print("once")
with xlab.mininet.network(SingleSwitchTopo(2)) as net:
    print(net.pingAll(), os.getcwd(), sorted({*os.listdir("/sys/class/net")} - FALLBACK)[:2])
open("written", "w").write("here")
sys.exit(3)
"""
    )
    with Script(cwd=tmp_path, python=(str(script),)) as started:
        status, out, err = started.finish()
    assert status == 3, err
    assert out.splitlines() == ["once", f"0.0 {tmp_path} ['lo', 's1']"]
    assert (tmp_path / "written").read_text() == "here"


NESTED = """
import subprocess, sys
from mininet.clean import cleanup
from mininet.net import Mininet
from mininet.topo import SingleSwitchTopo

net = Mininet(SingleSwitchTopo(2)); net.start()
if len(sys.argv) == 1:
    net.stop()
    again = [sys.executable, "-m", "xlab.mininet", __file__, "leave"]
    assert subprocess.run(again).returncode == 5
    seen = subprocess.run(["ip", "link"], capture_output=True, text=True).stdout
    assert ": s1: " in seen
    cleanup()
    Mininet(SingleSwitchTopo(2)).start()
    print("shared")
sys.exit(5)
"""


@sandbox
def test_a_program_started_inside_shares_the_root(tmp_path: Path) -> None:
    """And what it leaves there is taken away by cleanup()."""
    status, out, err = run(NESTED, tmp_path)
    assert (status, out) == (5, "shared\n"), err


@sandbox
def test_a_mark_that_has_strayed_lets_nobody_out(tmp_path: Path) -> None:
    script = "import os\nprint(os.readlink('/proc/self/ns/net'))\n"
    (tmp_path / "script.py").write_text(script)
    ours = str(Path("/proc/self/ns/net").readlink())
    for mark in ("root net:[1]", "root"):
        with Script("script.py", cwd=tmp_path, XLAB_INSIDE=mark) as started:
            status, out, err = started.finish()
        assert status == 0, err
        assert out.strip() not in ("", ours)


WAITING = """
import sys
from mininet.net import Mininet
from mininet.topo import SingleSwitchTopo
net = Mininet(SingleSwitchTopo(2)); net.start()
net["h1"].cmd("sleep 1000 &"); net["h2"].popen("sleep 1000")
print("ready", flush=True)
net["h1"].cmd("sleep 1000")
"""


@sandbox
@pytest.mark.parametrize("victim", ["caller", "inside"])
def test_nothing_is_left_of_a_script_that_is_killed(tmp_path: Path, victim: str) -> None:
    (tmp_path / "script.py").write_text(WAITING)
    with Script("script.py", cwd=tmp_path) as started:
        started.until("ready")
        alive = started.alive()
        assert len(alive) >= 6
        caller = started.process.pid
        children = Path(f"/proc/{caller}/task/{caller}/children").read_text().split()
        # Pid 1 of the sandbox was made before the process that runs the script.
        kill(caller if victim == "caller" else int(children[-1]))
        wait_until(lambda: not started.alive(), timeout_s=10, awaited="the end of all processes")
        assert started.finish()[0] == (-signal.SIGKILL if victim == "caller" else 137)


@sandbox
def test_ctrl_c_is_the_scripts(tmp_path: Path) -> None:
    script = f"""
import sys
from mininet.net import Mininet
from mininet.topo import SingleSwitchTopo
net = Mininet(SingleSwitchTopo(2)); net.start()
h1 = net["h1"]
try:
    h1.sendCmd({FOREGROUND!r})
    while h1.waiting:
        if "ready" in h1.monitor():
            print("ready", flush=True)
except KeyboardInterrupt:
    h1.sendInt()
    h1.waitOutput()
    print("interrupted", net.pingAll())
    sys.exit(9)
"""
    (tmp_path / "script.py").write_text(script)
    with Script("script.py", cwd=tmp_path) as started:
        started.until("ready")
        os.killpg(started.process.pid, signal.SIGINT)
        status, out, err = started.finish()
    assert (status, out) == (9, "interrupted 0.0\n"), err


#: Mininet's own, which come with it, and what they say when all is well.
EXAMPLES = {
    **dict.fromkeys(("bind", "linuxrouter", "nat"), "*** Results: 0% dropped ("),
    "numberedports": "s1-eth9 is actually on port 9 ... Validated.",
    # What is behind a NAT cannot be reached from outside; the other way is possible.
    "natnet": "*** Results: 50% dropped (1/2 received)",
}
SLOW_EXAMPLES = {
    **dict.fromkeys(
        ("controllers2", "controlnet", "emptynet", "multilink", "multitest"),
        EXAMPLES["nat"],
    ),
    "intfoptions": "*** Results: ['10M', ",
    "linearbandwidth": "*** Linear network results for Open vSwitch kernel datapath:",
    "multiping": "h4: 10.0.0.4 -> 10.0.0.4 1 packets transmitted, 1 received",
    "multipoll": "h3: 64 bytes from ",
    "popenpoll": " received, 0% packet loss",
    "tree1024": "*** Results: 0% dropped (2/2 received)",
    "treeping64": "*** Results: 0% dropped (4032/4032 received)",
}


@sandbox
@pytest.mark.parametrize(("example", "said"), EXAMPLES.items())
def test_mininets_own_examples_run_unchanged(tmp_path: Path, example: str, said: str) -> None:
    run_example(tmp_path, example, said)


@sandbox
@pytest.mark.slow
@pytest.mark.parametrize(("example", "said"), SLOW_EXAMPLES.items())
def test_mininets_long_examples_run_unchanged(tmp_path: Path, example: str, said: str) -> None:
    run_example(tmp_path, example, said)


@sandbox
def test_a_host_moves_from_switch_to_switch(tmp_path: Path) -> None:
    """As Mininet's example has it: by ovs-vsctl, new names of interfaces and numbers of ports."""
    require_open_vswitch()
    with Script("-m", "mininet.examples.mobility", cwd=tmp_path) as started:
        status, out, err = started.finish()
    assert status == 0, err
    assert (out + err).count("*** Results: 0% dropped (6/6 received)") == 4
    assert "WARNING" not in out + err


def require_open_vswitch() -> None:
    if why_no_open_vswitch():
        pytest.skip(why_no_open_vswitch())


def run_example(folder: Path, example: str, said: str) -> None:
    if example == "numberedports":
        require_open_vswitch()
    with Script("-m", f"mininet.examples.{example}", cwd=folder) as started:
        status, out, err = started.finish("pingpair\nexit\n", patience_s=10 * PATIENCE_S)
    if example == "intfoptions" and status == 3 and locate("iperf") is None:
        # UDP over a link that loses half: iperf3 ends well on every second try.
        assert "apt-get install iperf" in err
        return
    assert (status, said in out + err) == (0, True), (out + err)[-2000:]


REFUSED = {
    "controllers": "no controller can program",
    # It catches whatever happens, cleans up and goes on.
    "cpu": "control group",
    "scratchnet": "`controller` is not installed",
}
#: For the same reasons.
ALSO_REFUSED = {
    "cluster": "eth0: no interface of the machine's",
    **dict.fromkeys(
        ("clusterdemo", "clusterperf", "clusterSanity"), "no other machine can be reached"
    ),
    **dict.fromkeys(("consoles", "miniedit"), "no display can be reached"),
    **dict.fromkeys(("limit", "popen", "simpleperf"), REFUSED["cpu"]),
    "scratchnetuser": "is not installed",
}


@sandbox
@pytest.mark.parametrize(
    ("example", "why"),
    [
        *REFUSED.items(),
        *(pytest.param(*item, marks=pytest.mark.slow) for item in ALSO_REFUSED.items()),
    ],
)
def test_examples_that_need_more_are_refused(tmp_path: Path, example: str, why: str) -> None:
    if example == "scratchnet" and (locate("controller") or locate("ovs-testcontroller")):
        pytest.skip("there is a controller, and it runs")
    with Script("-m", f"mininet.examples.{example}", cwd=tmp_path) as started:
        status, _, err = started.finish()
    assert (status, why in err.splitlines()[-1]) == (3, True), err


@sandbox
def test_mn_takes_its_options(tmp_path: Path) -> None:
    arguments = ("mn", "--topo", "linear,3", "--link", "tc,delay=1ms", "--test", "pingall")
    with Script(*arguments, cwd=tmp_path) as started:
        status, out, err = started.finish()
    assert status == 0, err
    assert "0% dropped (6/6 received)" in out + err


@sandbox
@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--controller", "remote"), 3, "xlab: c0: switches here are learning bridges"),
        (("--link", "tc,delay=5xyz"), 2, "xlab: h1-eth0: '5xyz' is not a time"),
    ],
)
def test_what_mn_is_refused_is_its_end(
    tmp_path: Path, options: tuple[str, ...], status: int, said: str
) -> None:
    """By itself it says "Caught exception", and ends with status 0."""
    with Script("mn", *options, cwd=tmp_path) as started:
        got, _, err = started.finish()
    assert (got, err.splitlines()[-1].startswith(said)) == (status, True), err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "usage: python -m xlab.mininet"),
        (("missing.py",), "missing.py: No such file"),
        (("broken.py",), "broken.py"),
        (("-m",), "which module"),
        (("-m", "no.such.module"), "no.such"),
        (("--topo", "single"), "no option --topo"),
    ],
)
@sandbox
def test_wrong_usage_ends_with_2(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    (tmp_path / "broken.py").write_text("def (\n")
    with Script(*arguments, cwd=tmp_path) as started:
        status, _, err = started.finish()
    assert (status, said in err) == (2, True), err
    assert "Traceback" not in err


# -- docs/mininet.md -------------------------------------------------------------------------------

DOCUMENT = ROOT / "docs" / "mininet.md"


def test_the_page_tells_of_every_example() -> None:
    from mininet import examples

    _, _, section = DOCUMENT.read_text().partition("## Mininet's examples")
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", section.partition("\n## ")[0], re.MULTILINE)
    there = {file.stem for file in Path(examples.__path__[0]).glob("*.py")} - {"__init__"}
    told = {result: there & set(re.findall(r"\w+", names)) for result, names in rows}
    named = [name for names in told.values() for name in names]
    assert (len(named), set(named)) == (len(there), there)
    assert {*EXAMPLES, *SLOW_EXAMPLES} - {"numberedports"} <= told["run"]
    assert told["run on a real Open vSwitch"] == {"mobility", "numberedports", "scratchnet"}
    refused = set().union(*list(told.values())[-5:]) | {"scratchnet"}
    assert refused == {*REFUSED, *ALSO_REFUSED}


@sandbox
@pytest.mark.slow
def test_what_the_page_has_one_type_does_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = documents.workplace(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    for name, text in documents.programs(DOCUMENT).items():
        (place / name).write_text(text)
    typed = documents.commands(DOCUMENT)
    assert len(typed) == 5
    outcomes = documents.type_in(place, typed, timeout_s=5 * PATIENCE_S)
    for command, outcome in zip(typed, outcomes, strict=True):
        assert outcome.returncode == 0, f"{command.place}: {outcome.output}"
        missing = documents.first_missing(command.shown, outcome.output)
        assert missing is None, f"{command.place}: no {missing!r} in {outcome.output}"


# -- Ctrl-C, whichever thread the kernel gives it to -----------------------------------------------

THREADS = """
import os, re
from pathlib import Path
from mininet.net import Mininet
from mininet.topo import MinimalTopo

net = Mininet(MinimalTopo()); net.start()
h1 = net["h1"]
read = "grep SigBlk /proc/self/status"
print(h1.cmd(read), h1.pexec(*read.split())[0])
for task in Path("/proc/self/task").iterdir():
    print("main" if int(task.name) == os.getpid() else "other",
          re.search("SigBlk:.*", (task / "status").read_text())[0])
net.stop()
"""


@sandbox
def test_only_a_scripts_main_thread_is_given_signals(tmp_path: Path) -> None:
    """And all that it starts."""
    status, out, err = run(THREADS, tmp_path)
    assert status == 0, err
    blocked: dict[str, list[int]] = {"": [], "main": [], "other": []}
    for whose, mask in re.findall(r"^ *(main|other|) *SigBlk:\s+(\w+)", out, re.MULTILINE):
        blocked[whose].append(int(mask, 16))
    interrupt = 1 << (signal.SIGINT - 1)
    assert blocked["main"] == [0]
    assert len(blocked["other"]) >= 2
    assert all(mask & interrupt for mask in blocked["other"])
    assert len(blocked[""]) == 2
    assert not any(mask & interrupt for mask in blocked[""])


# -- the command line on a terminal ----------------------------------------------------------------


PROMPT = "mininet> "


@contextlib.contextmanager
def on_a_terminal(script: str, folder: Path) -> Iterator[Terminal]:
    (folder / "script.py").write_text(script)
    argv = [sys.executable, "-m", "xlab.mininet", "script.py"]
    home = {"HOME": str(folder)}
    with Terminal(argv, folder=folder, environment=environment() | home) as terminal:
        terminal.expect(PROMPT)
        yield terminal


@pytest.fixture
def command_line(tmp_path: Path) -> Iterator[Terminal]:
    with on_a_terminal(STOCK.replace("net.pingAll()\n", ""), tmp_path) as terminal:
        yield terminal


@sandbox
def test_the_command_line_on_a_terminal(command_line: Terminal) -> None:
    say = partial(command_line.line, prompt=PROMPT)
    assert "c0 h1 h2 s1" in say("nodes")
    assert "h1 h1-eth0:s1-eth1" in say("net")
    assert "s1: lo,s1-eth1,s1-eth2" in say("intfs")
    assert "h1-eth0<->s1-eth1 (OK OK)" in say("links")
    assert "<Host h1: h1-eth0:10.0.0.1 pid=" in say("dump")
    assert "0% dropped (2/2 received)" in say("pingall")
    assert "inet 10.0.0.1/8" in say("h1 ip -c=never a")
    assert "1 received" in say("h1 ping -c1 h2")
    say("link s1 h1 down")
    assert "h1 -> X" in say("pingall 0.2")
    say("link s1 h1 up")
    assert "0% dropped" in say("pingall")
    assert "10.0.0.2" in say("py h2.IP()")
    assert "Unknown command: nonsense" in say("nonsense")
    if not why_no_open_vswitch():
        assert " 2(s1-eth2): addr:" in say("dpctl show")
        assert "Bridge s1" in say("sh ovs-vsctl show")
        assert "0% dropped" in say("pingall")
    assert "s1-eth1" in say("sh ip link show")

    # As soon as something has come is the worst moment: it is about to wait again.
    for _ in range(50):
        command_line.type(f"h1 {FOREGROUND}\n")
        command_line.expect("ready")
        command_line.type("\x03")
        command_line.expect(PROMPT)
    assert "still here" in say("h1 echo still here")
    command_line.type("exit\n")
    assert command_line.end()[0] == 0


@sandbox
def test_what_is_typed_reaches_the_program(command_line: Terminal) -> None:
    command_line.type("h1 echo rea''dy; cat\n")
    command_line.expect("ready")
    command_line.type("typed at once\n")
    command_line.expect("typed at once")  # the terminal's own echo
    command_line.expect("typed at once")
    command_line.type("\x04")
    command_line.expect(PROMPT)
    command_line.type("\x04")
    assert command_line.end()[0] == 0


INTERRUPTED = """
import signal, threading, time
from mininet.net import Mininet
from mininet.topo import MinimalTopo
from mininet.cli import CLI

net = Mininet(MinimalTopo()); net.start()

def interrupt():
    while not net["h1"].waiting:
        time.sleep(0.01)
    time.sleep(0.5)  # until it waits for h1
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

threading.Thread(target=interrupt).start()
CLI(net)
net.stop()
"""


@sandbox
def test_an_interrupt_that_another_thread_was_given_is_seen(tmp_path: Path) -> None:
    with on_a_terminal(INTERRUPTED, tmp_path) as command_line:
        command_line.line("h1 sleep 1000", prompt=PROMPT)
        assert "still here" in command_line.line("h1 echo still here", prompt=PROMPT)
