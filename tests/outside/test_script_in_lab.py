"""Scripts of `xlab script`, run by bash with xlab out of reach; what they built is looked at here.

What a script says of itself counts for nothing: addresses are read, pings sent and the wire is
listened to by commands of these tests, in the network as it stands.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.labs import (
    PATIENCE_S,
    ROOT,
    Marked,
    Run,
    but_for_waiting,
    kill,
    machine,
    why_no_open_vswitch,
    why_no_sandbox,
)
from tests.support.ordinary import ORDINARY, ordinary_user
from xlab.kernel.packets import decode, find_echoes
from xlab.kernel.processes import wait_until
from xlab.outside import script
from xlab.record import record
from xlab.record.record import RunRecord
from xlab.scenario.request import Request

pytestmark = pytest.mark.sandbox

#: Claims of a run that its script only tells, and why.
TOLD_ONLY = {
    "weave-is-a-container": "what starts a container in a script is ip, not Docker",
    "routers-are-connected": "in a script the kernel has the peers' addresses: no router is asked",
}
FASTDP = {"datapath": "fastdp"}


@dataclass(frozen=True)
class Variant:
    request: Request
    #: What carries packets between hosts, and whom the outer header is between.
    encapsulation: str
    outer: tuple[str, str]
    #: Who is asked on the wire, by node and interface with its address.
    source: tuple[str, str, str]
    target: tuple[str, str, str]
    #: What must take the method away.
    cut: str
    #: A claim of the scenario, as the script words it.
    claim: str
    #: Whom nobody reaches.
    alone: str = ""


VARIANTS = {
    "baseline": Variant(
        Request("baseline", containers=1),
        "none",
        ("10.211.55.3", "10.211.55.4"),
        ("h1:c1", "eth0", "172.17.0.2/16"),
        ("h2", "eth0", "10.211.55.4/24"),
        "ip -n wire link set s1-eth1 down",
        "h1/c1 reaches the other host h2, masqueraded as h1",
    ),
    "bridge": Variant(
        Request("bridge"),
        "none",
        ("10.211.55.64", "10.211.55.128"),
        ("h1:c1", "eth0", "10.211.55.64/24"),
        ("h2:c1", "eth0", "10.211.55.128/24"),
        "ip -n h1 link set eth0 nomaster",
        "… but h1/c1 does NOT reach h2/c1: needs control of the network",
    ),
    "bridge, slow links": Variant(
        Request("bridge", containers=1, rate_bits_per_second=20e6),
        "none",
        ("10.211.55.64", "10.211.55.128"),
        ("h1:c1", "eth0", "10.211.55.64/24"),
        ("h2:c1", "eth0", "10.211.55.128/24"),
        "ip -n h1 link set eth0 nomaster",
        "a full-size TCP transfer from h1/c1 to h2/c1 arrives whole",
    ),
    "ovs-gre": Variant(
        Request("ovs-gre", containers=1),
        "gre",
        ("192.168.59.103", "192.168.59.104"),
        ("h1:c1", "eth0", "192.168.1.2/24"),
        ("h2:c1", "eth0", "192.168.2.2/24"),
        "on h1 ovs-vsctl --timeout=30 del-port obr0 gre0",
        "h1/c1 does NOT reach h2/c1 (notes: “无法ping通该主机上的容器”)",
    ),
    "ovs-gre, underlay": Variant(
        Request("ovs-gre", containers=1, settings={"routes": "underlay"}),
        "none",
        ("192.168.59.103", "192.168.2.2"),
        ("h1:c1", "eth0", "192.168.1.2/24"),
        ("h2:c1", "eth0", "192.168.2.2/24"),
        "ip -n h1 route del 192.168.2.0/24",
        "GRE ports of h1 deleted: h1/c1 still reaches it",
    ),
    "weave": Variant(
        Request("weave", settings=FASTDP),
        "vxlan",
        ("10.211.55.3", "10.211.55.4"),
        ("h1:c1", "ethwe", "192.168.1.10/24"),
        ("h2:c1", "ethwe", "192.168.1.2/24"),
        "ip -n h1 link set vxlan-6784 down",
        "UDP port 6784 dropped on h1: h1/c1 no longer reaches it",
    ),
}
#: Nearly all of it is waiting for answers.
AT_ONCE = 6

#: Told in the network by bash: a folder, who asks, whom, and what takes the method away.
LOOK = r"""
set -eu
folder=$1 source=$2 target=$3 cut=$4
for name in /run/netns/*; do
    ip -n "${name##*/}" -o -4 addr | sed "s,^[0-9]*: ,${name##*/} ,"
done >"$folder/addresses"
nsenter --net=/run/netns/wire -- tcpdump -Z root -U --immediate-mode -i s1-eth1 -w - \
    >"$folder/wire.pcap" 2>"$folder/tcpdump" &
until grep -qs "listening on" "$folder/tcpdump"; do sleep 0.02; done
on "$source" ping -n -c5 -i0.1 -W2 -p 786c6162 "$target" >"$folder/before"
# What was sent earlier is there when this is.
on "$source" ping -n -c1 -W2 -p 656e6421 "$target" >"$folder/last"
until grep -aqs 'end!end!end!' "$folder/wire.pcap"; do sleep 0.02; done
kill $!
wait $! || true
on "$source" ping -n -c1 -W2 198.51.100.1 >"$folder/outside"
tc -n wire -s qdisc show >"$folder/qdiscs"
eval "$cut"
on "$source" ping -n -c2 -i0.1 -W0.5 "$target" >"$folder/after" || echo $? >"$folder/status"
"""
#: ping repeats what -p says; two of it are enough to know it again.
TOKEN = bytes.fromhex("786c6162") * 4


@dataclass(frozen=True)
class Told:
    text: str
    status: int
    output: str
    folder: Path

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()


class Bash(Marked):
    """A script on its own: no variable of ours but the mark, no xlab to import."""

    def __init__(
        self, text: str, folder: Path, *command: str, prefix: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "script.sh"
        file.write_text(text)
        name, _, value = self.mark.partition("=")
        self._process = subprocess.Popen(
            [*prefix, "bash", str(file), *command],
            cwd=folder,
            env={"PATH": os.environ["PATH"], name: value},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def end(self) -> tuple[int, str]:
        """Its exit status and all it printed, once no process of it is left."""
        output, _ = self._process.communicate(timeout=PATIENCE_S)
        self.await_alone()
        return self._process.returncode, output

    def await_alone(self) -> None:
        wait_until(lambda: not self.processes(), timeout_s=PATIENCE_S, awaited="the end of it all")


def look(variant: Variant, text: str, folder: Path) -> Told:
    address = variant.target[2].partition("/")[0]
    bash = Bash(text, folder, "bash", "-c", LOOK, "look", str(folder), variant.source[0], address,
                variant.cut)  # fmt: skip
    status, output = bash.end()
    return Told(text, status, output, folder)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Told]:
    """A script, what it said, and what was seen in the network that it made; all side by side."""
    if why_no_sandbox():
        pytest.skip(why_no_sandbox())
    folder = tmp_path_factory.mktemp("scripts")
    # Sandboxes are forks of this process, so these come before there are threads.
    texts = {name: script.write(VARIANTS[name].request) for name in possible()}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {
            name: pool.submit(look, VARIANTS[name], text, folder / str(number))
            for number, (name, text) in enumerate(texts.items())
        }

    def of(name: str) -> Told:
        if name not in futures:
            pytest.skip(why_no_open_vswitch())
        return futures[name].result()

    return of


@pytest.fixture(scope="module")
def ran(
    told: Callable[[str], Told], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], RunRecord]:
    """The record of a run of the same scenario; all side by side."""
    folder = tmp_path_factory.mktemp("runs")

    def run(name: str) -> RunRecord:
        with Run(VARIANTS[name].request, folder / name) as running:
            return record.load(Path(running.finish()["folder"]))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {name: pool.submit(run, name) for name in possible()}
    return lambda name: futures[name].result()


def possible() -> list[str]:
    return [name for name in VARIANTS if name.startswith("ovs") <= (not why_no_open_vswitch())]


def frames_of(pcap: bytes) -> Iterator[bytes]:
    place = 24
    while place < len(pcap):
        (size,) = struct.unpack_from("<I", pcap, place + 8)
        yield pcap[place + 16 : place + 16 + size]
        place += 16 + size


# -- the network that a script builds --------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_every_claim_holds_when_the_script_is_run(name: str, told: Callable[[str], Told]) -> None:
    found = told(name)
    assert found.status == 0, found.output
    said = found.output.splitlines()
    assert f"✓ {VARIANTS[name].claim}" in said
    assert [line for line in said if not line.startswith(("✓ ", "-- "))] == []
    assert said[-1] == "-- all claims hold"


@pytest.mark.parametrize("name", VARIANTS)
def test_a_script_checks_what_a_run_checks(
    name: str, told: Callable[[str], Told], ran: Callable[[str], RunRecord]
) -> None:
    """The same sentences, in the same order and at the same stages."""
    found, claims = told(name), ran(name).claims
    checked: list[tuple[str, str]] = []
    stage = ""
    for line in found.output.splitlines():
        mark, _, text = line.partition(" ")
        if mark == "--":
            stage = text
        else:
            checked.append((stage, text))
    of_the_proof = [claim for claim in checked if claim[0] == "the proof of the path"]
    assert len(of_the_proof) == 3
    assert checked[:-3] == [(c.stage, c.text) for c in claims if c.id not in TOLD_ONLY]
    remarks = [f"# xlab checks here, too: {c.text}" for c in claims if c.id in TOLD_ONLY]
    assert found.text.count("# xlab checks here, too: ") == len(remarks)
    assert set(remarks) <= set(found.text.splitlines())


@pytest.mark.parametrize("name", VARIANTS)
def test_addresses_are_those_of_the_scenario(name: str, told: Callable[[str], Told]) -> None:
    found, variant = told(name), VARIANTS[name]
    fields = [line.split() for line in found.read("addresses").splitlines()]
    addresses = {(node, device, address) for node, device, _, address, *_ in fields}
    assert {variant.source, variant.target} <= addresses
    devices = {device for node, device, _ in addresses if node == "h1"}
    assert ("eth0" in devices) is not name.startswith("bridge")
    if name == "baseline":
        assert ("h2:c1", "eth0", variant.source[2]) in addresses  # the very same


@pytest.mark.parametrize("name", VARIANTS)
def test_packets_take_the_path_of_the_method(name: str, told: Callable[[str], Told]) -> None:
    found, variant = told(name), VARIANTS[name]
    seen = [
        decoded
        for frame in frames_of((found.folder / "wire.pcap").read_bytes())
        if find_echoes(decoded := decode(frame), TOKEN)
    ]
    assert [decoded.encapsulation for decoded in seen] == [variant.encapsulation] * 10
    outer = [(str(d.outer.source), str(d.outer.destination)) for d in seen if d.outer]
    assert sorted(outer) == sorted([variant.outer, variant.outer[::-1]] * 5)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_target_and_the_outside_answer_and_without_the_method_nobody(
    name: str, told: Callable[[str], Told]
) -> None:
    found = told(name)
    assert (found.read("before").count("time="), found.read("outside").count("time=")) == (5, 1)
    assert (found.read("after").count("time="), found.read("status").strip()) == (0, "1")


def test_links_have_a_rate_in_both_directions(told: Callable[[str], Told]) -> None:
    shown = told("bridge, slow links").read("qdiscs")
    for device in ("s1-eth1", "s1-eth1q", "s1-eth2", "s1-eth2q"):
        own = re.search(
            rf"qdisc (?:tbf|netem) \S+ dev {device} root .* rate 20Mbit.*\n Sent (\d+) bytes", shown
        )
        assert own, shown
        assert int(own[1]) > 1_000
    assert " rate " not in told("bridge").read("qdiscs")


@pytest.mark.kernel
@pytest.mark.long_in_guest
def test_links_have_a_delay_and_lose_packets(tmp_path: Path) -> None:
    if not machine().netem.live:
        pytest.skip(machine().netem.detail)
    text = script.write(Request("bridge", containers=1, delay_ms=5, loss_ratio=0.02))
    ping = ("on", "h1:c1", "ping", "-n", "-c20", "-i0.05", "10.211.55.128")
    status, output = Bash(text, tmp_path, *ping).end()
    assert (status, "\n-- all claims hold\n" in output) == (0, True), output
    times_ms = [float(found) for found in re.findall(r"time=([\d.]+) ms", output)]
    assert len(times_ms) >= 5
    assert min(times_ms) >= 20  # two links there, two back


def test_a_script_is_the_same_each_time(told: Callable[[str], Told]) -> None:
    assert script.write(VARIANTS["bridge"].request) == told("bridge").text


# -- how a script ends -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def baseline(told: Callable[[str], Told]) -> str:
    """A script in which a claim has a second to come true, and not five."""
    return told("baseline").text.replace("SECONDS + 5", "SECONDS + 1")


def test_a_claim_that_does_not_hold_is_told_and_gives_status_1(
    baseline: str, tmp_path: Path
) -> None:
    the_outside = "ip -n gw addr add 198.51.100.1/32 dev lo\n"
    assert the_outside in baseline
    without = baseline.replace(the_outside, "")
    status, output = Bash(without, tmp_path).end()
    assert (status, "✗ h1/c1 reaches the outside" in output) == (1, True), output
    assert output.splitlines()[-1] == "-- claims that do not hold: 1"


#: By the beginning of a claim in the script of the bridge: what makes it untrue, and true again.
FAULTS = {
    "have 'h2: ": (
        "ip -n h2:c2 addr del 10.211.55.129/24 dev eth0",
        "ip -n h2:c2 addr add 10.211.55.129/24 dev eth0",
    ),
    # Pings pass, and full-size segments don't.
    "transfers ": (
        "on h2:c1 iptables -A INPUT -m length --length 1400: -j DROP",
        "on h2:c1 iptables -F INPUT",
    ),
    "broadcasts_reach ": (
        "ip -n wire link set s1-eth2 down",
        "ip -n wire link set s1-eth2 up",
    ),
    "switch_learns ": (
        (
            "bridge -n wire link set dev s1-eth1 learning off\n"
            "ip -n wire link set dev s1-eth1 type bridge_slave fdb_flush"
        ),
        "bridge -n wire link set dev s1-eth1 learning on",
    ),
}


def test_each_claim_is_looked_at_when_it_is_made(
    told: Callable[[str], Told], tmp_path: Path
) -> None:
    """Each of these is broken just before it is looked at, and mended after that."""
    text = told("bridge").text.replace(" 1048576 10 ", " 1048576 1 ")
    for claim, (breaks, mends) in FAULTS.items():
        (line,) = [line for line in text.splitlines() if line.startswith(claim)]
        text = text.replace(f"{line}\n", f"{breaks}\n{line}\n{mends}\n")
    status, output = Bash(text, tmp_path).end()
    lost = [line for line in output.splitlines() if not line.startswith(("✓ ", "-- "))]
    assert status == 1
    assert lost == [
        (
            "✗ h2: --fixed-cidr 10.211.55.128/26 gives addresses from its first on "
            "(the notes count from .65): not h2:c2=10.211.55.129"
        ),
        "✗ a full-size TCP transfer from h1/c1 to h2/c1 arrives whole: 0 of 1048576 bytes",
        "✗ one broadcast domain of 7 stations: what h1/c1 broadcasts, h2/c1 hears: nothing heard",
        "✗ the physical switch learns a MAC for every container: not h1:c1 h1:c2",
    ]


def test_a_command_that_fails_ends_the_script(baseline: str, tmp_path: Path) -> None:
    wrong = baseline.replace("ip -n h1 link set eth0 up", "ip -n h1 link set eth7 up")
    status, output = Bash(wrong, tmp_path).end()
    assert status != 0
    assert 'Cannot find device "eth7"' in output
    assert "claims" not in output


def test_nothing_outlives_a_script_that_is_killed(baseline: str, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    with_command = Bash(baseline, tmp_path, "bash", "-c", f"touch {ready}; sleep 1000; true")
    wait_until(ready.exists, timeout_s=PATIENCE_S, awaited="the command in the network")
    kill(with_command.pid)
    assert with_command.end()[0] == -signal.SIGKILL


def test_it_builds_nothing_outside_namespaces_of_its_own(baseline: str, tmp_path: Path) -> None:
    """Not even where its own mark of being inside is there already."""
    text = baseline.replace("\nset -euo", "\nreadlink /proc/self/ns/net\nset -euo")
    own_network: tuple[str, ...] = ("unshare", "--net", "--mount", "env", "XLAB_OUTSIDE=nonsense")
    if os.geteuid() != 0:
        own_network = (*own_network[:1], "--user", "--map-root-user", *own_network[1:])
    command = ("readlink", "/proc/self/ns/net")
    status, output = Bash(text, tmp_path, *command, prefix=own_network).end()
    assert status == 0, output
    outside, inside, last = (line for line in output.splitlines() if line.startswith("net:["))
    assert outside != inside == last


def test_an_ordinary_user_runs_it(baseline: str, tmp_path: Path) -> None:
    """Whose PATH has no sbin, and whose tcpdump can't become another user."""
    see = "ping -n -c9 -i0.2 10.211.55.4 >/dev/null & tcpdump -n -c1 -i any icmp; exit"
    with ordinary_user(tmp_path) as (_, folder):
        person = ("setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups")
        prefix = (*(person if os.geteuid() == 0 else ()), "env", "PATH=/usr/bin:/bin")
        command = ("bash", "-c", f"on h1 sh -c '{see}' && on h1:c1 sh -c '{see}'")
        status, output = Bash(baseline, folder, *command, prefix=prefix).end()
    assert (status, output.count("1 packet captured")) == (0, 2), output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could write what is the machine's")
def test_it_writes_nothing_of_the_machines(baseline: str, tmp_path: Path) -> None:
    """Neither anywhere, for it does its work where all but /run is read-only, nor there."""
    prefix = ("unshare", "--mount", "sh", "-ec", ON_A_DISK_THAT_STAYS_AS_IT_IS)
    status, output = Bash(baseline, tmp_path, prefix=prefix).end()
    assert status == 0, output
    assert output.splitlines()[-2:] == ["-- all claims hold", "in /run:"]


#: mount -n, which leaves no /run/mount itself.
ON_A_DISK_THAT_STAYS_AS_IT_IS = r"""
mount -n -t tmpfs tmpfs /run
mount -n -o remount,bind,ro /
"$0" "$@"
echo "in /run:"
find /run -mindepth 1
"""


def test_a_script_from_a_pipe_says_what_it_needs(baseline: str) -> None:
    done = subprocess.run(["bash"], input=baseline, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "write it to a file first" in done.stderr


# -- one real machine ------------------------------------------------------------------------------

#: As a machine is when it has been installed: eth0 has its address.  Docker's place is taken by
#: programs that write down how they are called, /etc/systemd is a folder of its own.
MACHINE = r"""
set -eu
mount -t tmpfs tmpfs /etc/systemd
mount -t sysfs sysfs /sys
ip link add eth0 address 02:00:00:00:00:77 type veth peer name far
ip link set far up
ip addr add 10.211.55.3/24 dev eth0
ip link set eth0 up
ip route add default via 10.211.55.1 dev eth0
sh "$1" 2>&1
echo ====
ip -o -4 addr show
ip -o link show master br0
ip -o link show br0
ip route
cat /etc/systemd/system/docker.service.d/xlab.conf
"""


@pytest.mark.skipif(shutil.which("brctl") is None, reason="brctl is not installed")
def test_a_hosts_own_script_sets_up_a_machine(tmp_path: Path) -> None:
    if why_no_sandbox():
        pytest.skip(why_no_sandbox())
    programs, calls = tmp_path / "programs", tmp_path / "calls"
    programs.mkdir()
    for name in ("docker", "systemctl"):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{calls}\n')
        (programs / name).chmod(0o755)
    (tmp_path / "h1.sh").write_text(script.write(VARIANTS["bridge"].request, host="h1"))
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    done = subprocess.run(
        ["unshare", *user, "--net", "--mount", "bash", "-c", MACHINE, "sh", tmp_path / "h1.sh"],
        env={"PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    typed, _, found = done.stdout.partition("====\n")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "+ brctl addif br0 eth0" in typed
    assert "inet 10.211.55.3/24" in found
    assert re.search(r"(?m)^\d+: eth0@far: .* master br0 ", found)
    assert len(re.findall("02:00:00:00:00:77", found)) == 2  # eth0's, and br0 has it from there
    assert "default via 10.211.55.1 dev br0" in found
    assert "dev eth0" not in found
    assert re.search(
        r"(?m)^ExecStart=/usr/bin/dockerd .* -b br0 --fixed-cidr 10\.211\.55\.64/26$", found
    )
    assert calls.read_text().splitlines() == [
        "systemctl daemon-reload",
        "systemctl restart docker",
        "docker run -dit --name c1 busybox",
        "docker run -dit --name c2 busybox",
    ]


#: A scenario of one's own, in which somebody types what no method of a host is for.
OWN = """
from ipaddress import IPv4Network
from xlab.scenario.scenario import Flow, Scenario

def build(lab, plan, size, settings, check):
    lab.give_addresses(IPv4Network("10.9.0.0/24"), first=2, gateway=1)
    h1, h2 = lab.hosts
    h1.run(["sh", "-c", "cat >/run/notes"], stdin=b"it's\\n")
    h2.run(["sh", "-c", "echo not this >/run/notes"])
    h1.run(["false"], check=False)
    h1.spawn(["sleep", "1000"], env={"WHY": "a b"})
    check.stage("typed")
    check.shows("notes", "the notes are there", node=h1, argv=["cat", "/run/notes"],
                expected="it's", holds="^it's$")
    port = lab.switch_port(h1)
    return Flow(source=h1, target=h2, control=(h1, h2), encapsulation="none", watched=h1,
                cut=lambda: lab.wire.set_down(port), heal=lambda: lab.wire.set_up(port),
                cut_text="port down")

SCENARIO = Scenario("own", "one's own", (), lambda size, settings: None, build)
"""


@pytest.fixture
def own_scenario(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "own_one.py"
    file.write_text(OWN)
    yield file
    sys.modules.pop(f"xlab_scenario_{file.stem}", None)


def test_whatever_a_scenario_runs_in_a_host_is_in_its_script(
    own_scenario: Path, tmp_path: Path
) -> None:
    if why_no_sandbox():
        pytest.skip(why_no_sandbox())
    text = script.write(Request(str(own_scenario)))
    assert "on h1 false" not in text
    command = ("bash", "-c", "ps ax -o args | grep -x 'sleep 1000'")
    status, output = Bash(text, tmp_path, *command).end()
    assert (status, output.splitlines()[-2:]) == (0, ["-- all claims hold", "sleep 1000"]), output
    typed = script.write(Request(str(own_scenario)), host="h1")
    assert "env 'WHY=a b' sleep 1000 &\n" in typed
    assert "sh -c 'cat >/run/notes' <<'END'\nit's\nEND\n" in typed


# -- the command -----------------------------------------------------------------------------------


def xlab_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", "-m", "xlab", "script", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        argv, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    done.stderr = but_for_waiting(done.stderr)
    return done


def test_what_takes_a_program_of_ours_is_refused_with_the_remedy(tmp_path: Path) -> None:
    if why_no_sandbox():
        pytest.skip(why_no_sandbox())
    file = tmp_path / "weave.sh"
    done = xlab_script("weave", "--output", str(file))
    assert (done.returncode, done.stdout, file.exists()) == (3, "", False)
    (line,) = done.stderr.splitlines()
    assert "a router program; `--set datapath=fastdp` builds the same network" in line


def test_a_real_machine_has_the_real_router() -> None:
    if why_no_sandbox():
        pytest.skip(why_no_sandbox())
    done = xlab_script("weave", "--host", "h2", "--containers", "1")
    assert (done.returncode, done.stderr) == (0, "")
    typed = [line for line in done.stdout.splitlines() if line and not line.startswith("#")]
    assert typed == [
        'export PATH="$PATH:/usr/sbin:/sbin"',
        "set -eux",
        "systemctl start docker",
        "WEAVE_NO_FASTDP=1 weave launch 10.211.55.3",
        "weave run 192.168.1.2/24 -it --name c1 ubuntu",
    ]
