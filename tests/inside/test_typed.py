"""The tutorial's commands typed in hosts' shells, on a terminal, as the notes have them."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator

import pytest

from tests.support.labs import PATIENCE_S, why_no_open_vswitch
from tests.support.terminal import Terminal
from tests.support.world import World, ordinary_world, usual_signals, world
from xlab.kernel.processes import search_path, wait_until

pytestmark = pytest.mark.sandbox

_FIXTURES = (world, ordinary_world, usual_signals)

#: What the notes' bridges are typed with.
_TOOLS = [tool for tool in ("brctl", "ifup", "ifconfig", "route")
          if not shutil.which(tool, path=search_path())]  # fmt: skip
typed_tools = pytest.mark.skipif(bool(_TOOLS), reason=f"{', '.join(_TOOLS)} not installed")
typed_vswitch = pytest.mark.skipif(bool(why_no_open_vswitch()), reason=why_no_open_vswitch() or "")

HOST = re.compile(r"h\d:~# ")
CONTAINER = "# "


class Shell:
    """`xlab shell HOST` on a terminal."""

    def __init__(self, world: World, node: str) -> None:
        self.prompt = f"{node}:~# "
        self.terminal = world.terminal([*world.xlab, "shell", node], size=(40, 200))
        self.terminal.expect(self.prompt)

    def type(self, line: str) -> str:
        """Type a line; what it prints."""
        return self.terminal.line(line, self.prompt)

    def see(self, line: str, wanted: str) -> None:
        """Type a line in a container, whose prompt is drawn as often as its terminal changes."""
        self.terminal.type(f"{line}\n")
        self.terminal.expect(line[-8:])
        self.terminal.expect(wanted)

    def do(self, line: str) -> str:
        """Type a line that must succeed."""
        said = self.type(line)
        assert self.type("echo status $?").endswith("status 0"), f"{line}: {said}"
        return said


@pytest.fixture
def shells(world: World) -> Iterator[Shells]:
    made = Shells(world)
    yield made
    made.close()


class Shells:
    def __init__(self, world: World) -> None:
        self.world = world
        self.terminals: list[Terminal] = []

    def up(self, scenario: str, *options: str) -> None:
        said = self.world.say("up", scenario, "--empty", *options)
        assert said.status == 0, said

    def close(self) -> None:
        for terminal in self.terminals:
            terminal.__exit__()

    def on(self, node: str) -> Shell:
        shell = Shell(self.world, node)
        self.terminals.append(shell.terminal)
        return shell


def docker_option(shell: Shell, options: str) -> None:
    """修改 /lib/systemd/system/docker.service 文件, 在Execstart 后添加参数"""
    shell.do(f"sed -i 's|^ExecStart=.*|& {options}|' /lib/systemd/system/docker.service")
    shell.do("sudo systemctl daemon-reload")
    shell.do("sudo systemctl restart docker")


# -- the notes, chapter by chapter -----------------------------------------------------------------


@typed_tools
def test_the_chapter_on_bridges(shells: Shells) -> None:
    type_the_chapter_on_bridges(shells)


@pytest.mark.slow
@typed_tools
def test_the_chapter_on_bridges_without_root(ordinary_world: World) -> None:
    shells = Shells(ordinary_world)
    type_the_chapter_on_bridges(shells)
    shells.close()


def type_the_chapter_on_bridges(shells: Shells) -> None:
    shells.up("bridge")
    ranges = ("10.211.55.64/26", "10.211.55.128/26")
    both = [shells.on("h1"), shells.on("h2")]
    for number, shell in enumerate(both):
        shell.do("ifdown eth0")
        shell.do(
            "printf 'auto br0\\niface br0 inet static\\n"
            f"address 10.211.55.{3 + number}\\nnetmask 255.255.255.0\\ngateway 10.211.55.1\\n"
            "bridge_ports eth0\\nbridge_maxwait 0\\n' > /etc/network/interfaces"
        )
        shell.do("ifup br0")
        assert f"inet 10.211.55.{3 + number}" in shell.do("ifconfig br0")
        docker_option(shell, f"-b br0 --fixed-cidr {ranges[number]}")
    h1, h2 = both
    assert "default" in h1.do("route")
    assert "eth0" in h1.do("brctl show br0")
    h2.terminal.type("docker run -it --name c1 ubuntu /bin/bash\n")
    h2.terminal.expect(CONTAINER)
    h1.terminal.type("docker run -it ubuntu /bin/bash\n")
    h1.terminal.expect(CONTAINER)
    h1.see("ip -br -c=never address show eth0", "10.211.55.64/24")
    h1.see("ping -c 2 10.211.55.128", "2 received")
    h1.see("ping -c 1 198.51.100.1", "1 received")
    h1.terminal.type("exit\n")
    h1.terminal.expect(h1.prompt)
    assert h1.do("docker ps").count("\n") == 0
    assert "Exited (0)" in h1.do("docker ps -a")


@pytest.mark.kernel
@pytest.mark.long_in_guest
@typed_tools
@typed_vswitch
def test_the_chapter_on_open_vswitch(shells: Shells) -> None:
    shells.up("ovs-gre")
    both = [shells.on("h1"), shells.on("h2")]
    for number, shell in enumerate(both, 1):
        shell.do("sudo ovs-vsctl show")
        shell.do("sudo ovs-vsctl add-br obr0")
        shell.do("sudo ovs-vsctl add-port obr0 gre0")
        peer = f"192.168.59.{105 - number}"
        shell.do(f"sudo ovs-vsctl set interface gre0 type=gre options:remote_ip={peer}")
        shell.do("sudo brctl addbr br0")
        shell.do(f"sudo ifconfig br0 192.168.{number}.1 netmask 255.255.255.0")
        shell.do("sudo brctl addif br0 obr0")
        docker_option(shell, "-b br0")
        shell.do("docker run -it -d --name c1 ubuntu /bin/bash")
    h1, h2 = both
    assert "1 received" in h1.type("docker exec c1 ping -c1 -W2 192.168.59.104")
    assert "0 received" in h1.type("docker exec c1 ping -c1 -W1 192.168.2.2")
    assert "192.168.1.0" in h1.do("route -n")
    h1.do("sudo ip route add 192.168.2.0/24 via 192.168.59.104 dev eth0")
    h2.do("sudo ip route add 192.168.1.0/24 via 192.168.59.103 dev eth0")
    assert "1 received" in h1.type("docker exec c1 ping -c1 -W2 192.168.2.2")
    # What the notes leave out: through the tunnel instead, which obr0 must be up for.
    for number, shell in enumerate(both, 1):
        there = 3 - number
        shell.do("ip link set obr0 up; ip link set br0 mtu 1462")
        shell.do(f"sudo ip route del 192.168.{there}.0/24")
        shell.do(f"ip addr add 172.31.0.{number}/30 dev br0")
        shell.do(f"ip route add 192.168.{there}.0/24 via 172.31.0.{there} dev br0")
    assert "1 received" in h1.type("docker exec c1 ping -c1 -W2 192.168.2.2")
    seen = shells.world.say("trace", "h1/c1", "h2/c1")
    assert "gre" in seen.stdout.casefold(), seen


def test_the_chapter_on_weave(shells: Shells) -> None:
    shells.up("weave")
    h1, h2 = shells.on("h1"), shells.on("h2")
    h1.do("weave launch")
    h2.do("weave launch 10.211.55.3")
    h2.do("weave run 192.168.1.2/24 -it ubuntu /bin/bash")
    h1.do("weave run 192.168.1.10/24 -it --name wc1 ubuntu /bin/bash")
    wait_until(
        lambda: "established" in h1.do("weave status connections"),
        timeout_s=PATIENCE_S, awaited="a connection",
    )  # fmt: skip
    h1.terminal.type("docker attach wc1\n")
    h1.terminal.expect(CONTAINER)
    h1.see("ip -br -c=never address show ethwe", "192.168.1.10/24")
    h1.see("ping -c 2 192.168.1.2", "2 received")
    # Ctrl-P Ctrl-Q leaves it running.
    h1.terminal.type("\x10\x11")
    h1.terminal.expect(h1.prompt)
    listed = h1.do("docker ps")
    assert "weaveworks/weave" in listed
    assert "wc1" in listed
    assert "192.168.1.10/24" in h1.do("weave ps")
    assert "Peers: 2" in h1.do("weave status")
    # With shells open, and containers that somebody has left running.
    assert shells.world.say("down", "--all").status == 0
    for terminal in shells.terminals:
        assert "lab weave has ended" in terminal.end()[1]
    shells.world.await_alone()


# -- the script of each host -----------------------------------------------------------------------


@typed_tools
@pytest.mark.parametrize(
    ("scenario", "encapsulation", "of_h1", "of_h2"),
    [
        pytest.param(
            "bridge", "none", "10.211.55.64 10.211.55.65", "10.211.55.128 10.211.55.129",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "ovs-gre", "gre", "192.168.1.2 192.168.1.3", "192.168.2.2 192.168.2.3",
            marks=[typed_vswitch, pytest.mark.kernel, pytest.mark.long_in_guest],
        ),
        pytest.param(
            "weave", "sleeve", "192.168.1.10 192.168.1.11", "192.168.1.2 192.168.1.3",
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_what_is_printed_for_each_host_makes_the_network_when_it_is_run_there(
    scenario: str, encapsulation: str, of_h1: str, of_h2: str, shells: Shells
) -> None:
    shells.up(scenario)
    world = shells.world
    h1, h2 = shells.on("h1"), shells.on("h2")
    for name, shell in ("h1", h1), ("h2", h2):
        printed = world.say("script", scenario, "--host", name)
        assert (printed.status, printed.stderr) == (0, "")
        saved = world.say("exec", name, "--", "tee", "/root/mine.sh", stdin=printed.stdout)
        assert saved.status == 0
        shell.do("sh mine.sh")
    for shell, here, there in (h1, of_h1, of_h2), (h2, of_h2, of_h1):
        for container, address in zip(("c1", "c2"), here.split(), strict=True):
            assert f" {address}/" in shell.do(f"docker exec {container} ip -4 address")
            for target in (*there.split(), "198.51.100.1"):
                reaches(shell, container, target)
    traced = json.loads(world.say("trace", "--json", "h1/c1", "h2/c1").stdout)
    for way in ("there", "back"):
        on_the_wire = {hop["encapsulation"] for hop in traced[way] if hop["node"] == "wire"}
        assert on_the_wire == {encapsulation}, traced


def reaches(shell: Shell, container: str, address: str) -> None:
    """Routers may still be looking for each other."""
    ping = f"docker exec {container} ping -c1 -W1 {address}"
    wait_until(lambda: "1 received" in shell.type(ping), timeout_s=PATIENCE_S, awaited=ping)


# -- docker ----------------------------------------------------------------------------------------


def test_docker_says_that_it_is_emulated_once_and_what_it_does_not_do(world: World) -> None:
    assert world.say("up", "baseline", "--empty").status == 0

    def docker(*words: str, stdin: str = "") -> tuple[int, str, str]:
        said = world.say("exec", "h1", "--", "docker", *words, stdin=stdin)
        return said.status, said.stdout, said.stderr

    status, _, said = docker("build", ".")
    assert status == 1
    assert "emulated: the networks" in said
    assert "'build' is not emulated" in said
    status, _, said = docker("ps", *["x"] * 10_001)
    assert (status, "more than 10,000 words" in said) == (1, True)
    status, _, said = docker("run", "--volume", "/a:/b", "ubuntu")
    assert (status, said.count("\n")) == (125, 1)
    assert "--volume is not emulated: " in said
    assert docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7") == (
        7, "out\n", "err\n",
    )  # fmt: skip
    assert docker("run", "--rm", "-i", "busybox", "tr", "a-z", "A-Z", stdin="typed\n") == (
        0, "TYPED\n", "",
    )  # fmt: skip
    status, _, said = docker("run", "--restart", "on-failure:3", "ubuntu")
    assert (status, "there are no, always, unless-stopped" in said) == (125, True)
    assert docker("run", "--restart", "always", "--rm", "ubuntu")[0] == 125
    status, _, said = docker("run", "--name", "lost", "ubuntu", "/bn/bash")
    assert (status, "stat /bn/bash: no such file or directory" in said) == (127, True)
    status, identity, _ = docker("run", "-dit", "--name", "c1", "-e", "SAID=hello", "ubuntu")
    assert (status, len(identity.strip())) == (0, 64)
    assert docker("exec", "c1", "sh", "-c", "echo $SAID; hostname; exit 3")[:2] == (
        3, f"\n{identity[:12]}\n",
    )  # fmt: skip
    assert docker("exec", "c1", "nothing-of-that-name")[0] == 127
    (told,) = json.loads(docker("inspect", "c1")[1])
    assert told["State"]["Running"]
    assert told["NetworkSettings"]["IPAddress"] == "172.17.0.2"
    (network,) = json.loads(docker("network", "inspect", "bridge")[1])
    assert network["Containers"][identity.strip()]["IPv4Address"] == "172.17.0.2/16"
    assert docker("run", "-d", "--name", "c1", "ubuntu")[0] == 125
    assert docker("rm", "c1")[0] == 1
    assert docker("stop", "c1")[:2] == (0, "c1\n")
    assert docker("start", "c1")[:2] == (0, "c1\n")
    assert docker("rm", "-f", "c1", "lost")[:2] == (0, "c1\nlost\n")
    assert docker("ps", "-aq")[1] == ""
    assert docker("run", "-d", "ubuntu", "true")[0] == 0
    (latest,) = docker("ps", "-lq")[1].split()
    assert re.fullmatch(r"/[a-z]+_[a-z]+", docker("inspect", "-f", "{{.Name}}", latest)[1].strip())
    assert docker("run", "-d", "--name", "said", "busybox", "echo", "logged")[0] == 0
    wait_until(
        lambda: docker("logs", "said")[1] == "logged\n", timeout_s=PATIENCE_S, awaited="the log"
    )
    kept = docker("run", "-d", "--restart", "always", "--name", "kept", "busybox", "sleep", "99")
    assert kept[0] == 0
    assert world.say("exec", "h1", "--", "systemctl", "restart", "docker").status == 0
    assert docker("ps", "--no-trunc")[1].count("\n") == 2  # its heading, and "kept"
    assert world.say("exec", "h1", "--", "systemctl", "stop", "docker").status == 0
    status, _, said = docker("ps")
    assert (status, "Is the docker daemon running?" in said) == (1, True)


def test_an_interrupt_is_for_the_containers_program(shells: Shells) -> None:
    shells.up("baseline")
    h1 = shells.on("h1")
    h1.terminal.type("docker run --name pings busybox ping 127.0.0.1\n")
    h1.terminal.expect("icmp_seq=2")
    h1.terminal.type("\x03")
    assert "packets transmitted" in h1.terminal.expect(h1.prompt)
    h1.terminal.type("docker run -it --rm busybox bash\n")
    h1.terminal.expect(CONTAINER)
    h1.see("stty size", "40 200")
    h1.terminal.type("sh -c 'echo rea\"\"dy; exec sleep 1000'\n")
    h1.terminal.expect("ready\r\n")
    h1.terminal.type("\x03")
    h1.see("echo bro''ken", "broken")
    h1.terminal.type("exit 5\n")
    h1.terminal.expect(h1.prompt)
    assert h1.type("echo status $?").endswith("status 5")
    # Of a program that takes no notice one is rid at the third.
    script = 'trap \'echo n""o\' INT; echo rea""dy; while :; do sleep 0.1; done'
    h1.terminal.type(f'docker run busybox sh -c "{script}"\n'.replace('""', '\\"\\"'))
    h1.terminal.expect("ready\r\n")
    for _ in range(2):
        h1.terminal.type("\x03")
        h1.terminal.expect("no\r\n")
    h1.terminal.type("\x03")
    assert "forcefully exiting" in h1.terminal.expect(h1.prompt)


# -- services --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("-b = br0", '"dockerd" accepts no argument(s).'),
        pytest.param("-b br7", "created manually", marks=pytest.mark.slow),
        pytest.param(
            "--bridg br0", "unknown flag, or one that is not emulated: --bridg",
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_a_service_that_does_not_start_says_why(world: World, options: str, said: str) -> None:
    assert world.say("up", "baseline", "--empty").status == 0
    edit = f"sed -i 's|^ExecStart=.*|& {options}|' /lib/systemd/system/docker.service"
    assert world.say("exec", "h1", "--", "sh", "-c", edit).status == 0
    again = ("exec", "h1", "--", "systemctl", "restart", "docker")
    warned = world.say(*again)
    assert (warned.status, "changed on disk" in warned.stderr) == (0, True)
    assert world.say("exec", "h1", "--", "systemctl", "daemon-reload").status == 0
    failed = world.say(*again)
    assert failed.status == 1
    assert "Job for docker.service failed" in failed.stderr
    assert said in world.say("exec", "h1", "--", "journalctl", "-xeu", "docker").stdout
    status = world.say("exec", "h1", "--", "service", "docker", "status")
    assert (status.status, "failed (Result: exit-code)" in status.stdout) == (3, True)
    # h2 has a unit file of its own.
    assert world.say("exec", "h2", "--", "systemctl", "is-active", "docker").stdout == "active\n"


@pytest.mark.slow
def test_a_unit_with_two_commands_starts_and_ends_nothing(world: World) -> None:
    assert world.say("up", "baseline", "--empty").status == 0

    def h1(command: str) -> str:
        said = world.say("exec", "h1", "--", "sh", "-c", command)
        return f"{said.stdout}{said.stderr}status {said.status}"

    folder, line = "/etc/systemd/system/docker.service.d", "ExecStart=/usr/bin/dockerd --mtu 1400"
    made = h1(f"mkdir -p {folder}; printf '[Service]\\n{line}\\n' >{folder}/override.conf")
    assert made == "status 0"
    refused = h1("systemctl daemon-reload; systemctl restart docker")
    assert "Failed to restart docker.service: Unit docker.service has a bad unit file" in refused
    assert refused.endswith("status 1")
    assert "docker.service: Service has more than one ExecStart= setting" in h1("journalctl -n 1")
    shown = h1("systemctl status docker")
    assert "bad-setting" in shown
    assert "Active: active (running)" in shown
    # Nor does a boot start it.
    h1("reboot")
    wait_until(
        lambda: "inactive" in h1("systemctl is-active docker"),
        timeout_s=PATIENCE_S, awaited="the host after the reboot",
    )  # fmt: skip
    mended = h1(
        f"sed -i 's/^ExecStart/ExecStart=\\n&/' {folder}/override.conf; systemctl daemon-reload; "
        "systemctl start docker; systemctl is-active docker"
    )
    assert mended == "active\nstatus 0"


def test_docker_says_which_network_it_is_on(shells: Shells) -> None:
    """docker0's at first; br0's when it has been told so, and started again by its old name."""
    shells.up("bridge")
    h1 = shells.on("h1")
    subnet = "docker network inspect bridge --format '{{json .IPAM.Config}} {{json .Options}}'"
    assert '"172.17.0.0/16"' in h1.do(subnet)
    h1.do("ip link add br0 type bridge && ip link set br0 up")
    h1.do("ip address add 192.168.7.1/24 dev br0")
    h1.do("sed -i 's|^ExecStart=.*|& -b br0|' /lib/systemd/system/docker.service")
    h1.do("systemctl daemon-reload")
    h1.do("service docker restart")
    assert h1.do("service docker status").count("active (running)") == 1
    said = h1.do(subnet)
    assert '"Subnet": "192.168.7.0/24"' in said
    assert '"Gateway": "192.168.7.1"' in said
    assert '"com.docker.network.bridge.name": "br0"' in said
    h1.do("docker run -d --name c1 ubuntu sleep 600")
    address = h1.do("docker inspect --format '{{.NetworkSettings.IPAddress}}' c1")
    assert address.endswith("192.168.7.2")
    assert "c1" in h1.do("docker network inspect bridge --format '{{json .Containers}}'")


@typed_tools
def test_a_host_that_reboots_is_what_its_files_say(shells: Shells) -> None:
    shells.up("bridge")
    h1 = shells.on("h1")
    h1.do(
        "printf 'auto br0\\niface br0 inet static\\naddress 10.211.55.3/24\\n"
        "gateway 10.211.55.1\\nbridge_ports eth0\\nbridge_maxwait 0\\n' > /etc/network/interfaces"
    )
    h1.do("sed -i 's|^ExecStart=.*|& -b br0|' /lib/systemd/system/docker.service")
    h1.terminal.type("reboot\n")
    status, said = h1.terminal.end()
    assert (status, "killed, with all of h1 perhaps" in said) == (137, True)
    world = shells.world
    wait_until(
        lambda: world.say("exec", "h1", "--", "systemctl", "is-active", "docker").status == 0,
        timeout_s=PATIENCE_S, awaited="Docker after the reboot",
    )  # fmt: skip
    addresses = world.say("exec", "h1", "--", "ip", "-br", "-c=never", "-4", "address").stdout
    assert re.search(r"^br0 .*10\.211\.55\.3/24", addresses, re.MULTILINE)
    assert "eth0" not in addresses
    ping = ("exec", "h1", "--", "ping", "-c1", "-W2", "10.211.55.4")
    assert "1 received" in world.say(*ping).stdout


def test_a_unit_file_says_what_the_scenario_did(world: World) -> None:
    assert world.say("up", "bridge").status == 0
    shown = world.say("exec", "h1", "--", "systemctl", "cat", "docker").stdout
    assert re.search(r"^ExecStart=.* -b br0 --fixed-cidr 10.211.55.64/26$", shown, re.MULTILINE)
    assert world.say("exec", "h1", "--", "systemctl", "restart", "docker").status == 0
    assert world.say("exec", "h1", "--", "docker", "start", "c1", "c2").status == 0
    assert world.say("status").status == 0


def test_a_terminal_is_as_it_was_when_its_shell_is_killed(world: World) -> None:
    assert world.say("up", "baseline", "--empty").status == 0
    program = ["sh", "-c", 'stty -a >before; "$@"; stty -a >after', "sh", *world.xlab]
    with world.terminal([*program, "shell", "h1"]) as terminal:
        terminal.expect("h1:~# ")
        terminal.type("docker run -it --name c1 ubuntu\n")
        terminal.expect("/# ")
        assert world.say("fault", "crash", "h1").status == 0
        assert "killed, with all of h1 perhaps" in terminal.end()[1]
    before, after = ((world.folder / name).read_text() for name in ("before", "after"))
    assert before == after


def test_status_says_of_a_container_that_was_removed_that_it_is(world: World) -> None:
    assert world.say("up", "bridge").status == 0
    assert world.say("exec", "h1", "--", "docker", "rm", "-f", "c1").status == 0
    told = json.loads((said := world.say("status", "--json")).stdout)
    assert (said.status, told["holds"], said.stderr.count("xlab:")) == (1, False, 0)
    lost = [claim for claim in told["claims"] if not claim["holds"]]
    assert {"path", "h1-c1-reaches-h2"} <= {claim["id"] for claim in lost}
    assert [c["evidence"] for c in lost if "is not running" in c["observed"]].count("") >= 2


def test_what_is_the_machines_own_cannot_be_written_to(world: World) -> None:
    assert world.say("up", "baseline", "--empty").status == 0
    # All who can be entered, the gateway and the switches among them.
    for node in ("h1", "gw", "wire"):
        places = ["/", "/opt", "/srv", "/var", "/boot", "/sys", "/sys/fs/cgroup"]
        look = world.say("exec", node, "--", "find", *places, "-maxdepth", "0", "-writable")
        assert (look.status, look.stdout) == (0, ""), node
        # An ordinary user does not own /usr/bin: only a layer of ours above it makes it writable.
        locked = ["/usr/bin/xlab-is"] if os.geteuid() and node != "h1" else []
        for file in ("/etc/xlab-is", "/root/xlab-is", "/usr/bin/xlab-is"):
            touched = world.say("exec", node, "--", "touch", file)
            assert (touched.status == 0) == (file not in locked), touched
            assert not os.path.exists(file)  # noqa: PTH110 - an ordinary user may not look at /root
    assert "\th2\n" in world.say("exec", "gw", "--", "cat", "/etc/hosts").stdout
    assert world.say("exec", "gw", "--", "weave", "help").status == 127
    assert world.say("exec", "h1", "--", "touch", "/usr/bin/xlab-was-here").status == 0
    assert shutil.which("xlab-was-here") is None
    assert world.say("exec", "h2", "--", "ls", "/usr/bin/xlab-was-here").status == 2


def test_files_of_a_host_may_be_anything(world: World) -> None:
    """What pid 1 reads there has an end, and what it writes goes nowhere else."""
    assert world.say("up", "baseline", "--empty").status == 0

    def h1(script: str) -> str:
        said = world.say("exec", "h1", "--", "timeout", "20", "sh", "-c", script)
        return f"{said.stdout}{said.stderr}status {said.status}"

    file = "/etc/docker/daemon.json"
    restart = "systemctl restart docker; echo $?; journalctl -u docker -n 2"
    for change in ("mkfifo", "ln -s /dev/zero", "truncate -s 20G"):
        failed = h1(f"rm -f {file}; {change} {file}; {restart}")
        assert failed.startswith("1\n")
        assert "Job for docker.service failed" in failed
        why = "longer than 65,536 bytes" if "truncate" in change else "not a regular file"
        assert f"{file}: {why}" in failed
    script = f"""
        rm {file}
        cd /etc/network && truncate -s 20G interfaces
        cd /usr/lib/systemd/system && mv docker.service old && mkfifo docker.service
        mkdir docker.service.d && truncate -s 20G docker.service.d/a.conf
        reboot
    """
    assert h1(script).endswith(f"status {128 + 9}")
    undo = "cd /usr/lib/systemd/system && mv old docker.service && rm -r docker.service.d"
    told = h1(f"journalctl -u networking; {undo}; systemctl daemon-reload; systemctl start docker")
    assert "interfaces: longer than" in told
    assert told.endswith("status 0")


def test_a_unit_is_edited_by_a_drop_in(shells: Shells) -> None:
    shells.up("baseline")
    h1 = shells.on("h1")
    # An editor that asks for what is to be in the file.
    h1.do('printf \'#!/bin/sh\\nread -r line; printf "$line" >"$1"\\n\' > /usr/bin/editor')
    h1.do("chmod a+x /usr/bin/editor")
    h1.terminal.type("systemctl edit docker\n")
    said = h1.type("[Service]\\nExecStart=\\nExecStart=/usr/bin/dockerd --bip 10.0.0.1/24\\n")
    assert "Traceback" not in said
    h1.do("systemctl restart docker")
    assert "override.conf" in h1.do("systemctl status docker")
    assert "10.0.0.1/24" in h1.do("ip -br -c=never address show docker0")
