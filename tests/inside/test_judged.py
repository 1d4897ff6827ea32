"""A lab that was typed is judged by what is there: whoever typed it, by whatever names, how far.

Each story types one network, as the tutorial has it or as a stranger might, and asks on the way.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.labs import why_no_open_vswitch
from tests.support.world import World, usual_signals, world
from xlab.kernel.processes import search_path

pytestmark = pytest.mark.sandbox

_FIXTURES = (world, usual_signals)

_TOOLS = [tool for tool in ("brctl", "ifup", "ifconfig")
          if not shutil.which(tool, path=search_path())]  # fmt: skip
typed_tools = pytest.mark.skipif(bool(_TOOLS), reason=f"{', '.join(_TOOLS)} not installed")
vswitch = pytest.mark.skipif(bool(why_no_open_vswitch()), reason=why_no_open_vswitch() or "")


@dataclass
class Judged:
    """What `xlab status` says."""

    status: int
    told: Mapping[str, Any]
    screen: str

    @property
    def states(self) -> list[str]:
        return [stage["state"] for stage in self.told["stages"]]

    @property
    def broken(self) -> dict[str, str]:
        """What was observed of claims that do not hold, by their ids."""
        return {c["id"]: c["observed"] for c in self.told["claims"] if not c["holds"]}

    @property
    def missing(self) -> list[str]:
        return [said for s in self.told["stages"] if s["state"] == "not yet" for said in s["said"]]

    @property
    def carried(self) -> dict[str, int]:
        carries = self.told["carries"] or {"packets": {}}
        return {kind: n for kind, n in carries["packets"].items() if n and kind != "stray"}


class Typed:
    def __init__(self, world: World, scenario: str, *options: str) -> None:
        self.world = world
        said = world.say("up", scenario, "--empty", *options)
        assert said.status == 0, said

    def type(self, host: str, script: str) -> str:
        """Lines that must succeed, in a shell of the host."""
        said = self.world.say("exec", host, "--", "sh", "-ec", script)
        assert said.status == 0, said
        return said.stdout

    def both(self, script: str) -> None:
        """The same on both: {n} is the host's number, {o} the other's, {peer} where that is."""
        for n in (1, 2):
            self.type(f"h{n}", script.replace("{n}", str(n)).replace("{o}", str(3 - n)))

    def status(self, *options: str) -> Judged:
        said = self.world.say("status", "--json", *options)
        judged = Judged(said.status, json.loads(said.stdout), said.stderr)
        whole = set(judged.states) <= {"holds", "passed over"}
        assert said.status == (0 if whole and judged.told["holds"] else 1)
        assert judged.told["next"] is None or not whole
        # What does not hold says where to look, and what is not begun is no claim.
        assert all(bool(c["look"]) != c["holds"] for c in judged.told["claims"])
        return judged

    def holds(self, *options: str, packets: Mapping[str, int]) -> Judged:
        judged = self.status(*options)
        assert (judged.status, judged.broken, judged.missing) == (0, {}, []), judged.screen
        assert judged.carried == packets
        return judged

    def fails(self, claim: str, observed: str) -> Judged:
        judged = self.status()
        assert judged.status == 1
        assert re.search(observed, judged.broken.get(claim, "")), judged.broken
        return judged


def docker(options: str) -> str:
    return f"""
        sed -i 's|^ExecStart=.*|ExecStart=/usr/bin/dockerd {options}|' \
            /lib/systemd/system/docker.service
        systemctl daemon-reload
        systemctl restart docker
    """


# -- a bridge --------------------------------------------------------------------------------------

BRIDGE = """
    ifdown eth0
    printf 'auto br0\\niface br0 inet static\\naddress 10.211.55.%s\\nnetmask 255.255.255.0\\n' \
        $((2 + {n})) > /etc/network/interfaces
    printf 'gateway 10.211.55.1\\nbridge_ports eth0\\nbridge_maxwait 0\\n' \
        >> /etc/network/interfaces
    ifup br0
"""


@typed_tools
def test_bridge_as_the_tutorial_types_it_and_with_its_mistakes(world: World) -> None:
    lab = Typed(world, "bridge")
    empty = lab.status()
    assert empty.states == ["holds", "not yet", "after that"]
    assert empty.missing == ["h1: eth0 is a port of no bridge", "h2: eth0 is a port of no bridge"]
    assert "docs/tutorial.md 1.1" in empty.told["next"]
    assert "· not yet: h1: eth0 is a port of no bridge" in empty.screen

    lab.type("h1", BRIDGE.replace("{n}", "1"))
    half = lab.status()
    assert (half.states, half.missing) == (
        ["holds", "not yet", "after that"], ["h2: eth0 is a port of no bridge"]
    )  # fmt: skip
    lab.type("h2", BRIDGE.replace("{n}", "2"))
    lab.both("range=10.211.55.$((64 * {n}))/26" + docker("-b br0 --fixed-cidr '$range'"))
    lab.type("h1", "docker run -d --name c1 busybox sleep infinity")
    assert lab.status().missing == ["h2: no container runs"]
    lab.type("h2", "docker run -d --name c1 busybox sleep infinity")
    lab.holds(packets={"none": 20})

    # Each mistake has its own words, and nothing is left of it once it is mended.
    lab.type("h2", docker("-b br0 --fixed-cidr 10.211.55.64/26") + "docker start c1")
    same = lab.fails("ranges-are-apart", "h2's containers get addresses from h1's range: "
                     "10.211.55.64 lies in 10.211.55.64/26")  # fmt: skip
    assert same.broken["addresses-never-collide"].endswith("shared: 10.211.55.64: h1/c1, h2/c1")
    assert "have one address" in same.broken["containers-reach-each-other"]
    assert same.told["next"].endswith("`systemctl cat docker` on h2")
    lab.type("h2", docker("-b br0 --fixed-cidr 10.211.55.0/26"))
    lab.type("h1", "ip address add 10.211.55.3/24 dev eth0; ip route del default")
    several = lab.fails("ranges-are-apart", "h2 may hand out gw's address: 10.211.55.1 lies in")
    assert several.broken["h1-nic-is-bridged"] == "h1: eth0, a port of br0, still has 10.211.55.3"
    assert "h1 gets no reply from the outside" in several.broken["hosts-reach-outside"]
    assert several.missing == []  # two stages are broken, and of the third one part is missing
    assert "h2: no container runs (c1 has exited " in several.told["stages"][2]["said"][-1]
    lab.type("h2", docker("-b br0 --fixed-cidr 10.211.55.128/26") + "docker start c1")
    lab.type("h1", "ip address del 10.211.55.3/24 dev eth0; ip route add default via 10.211.55.1")
    lab.type("h1", "ip link set eth0 nomaster")
    lost = lab.fails("h1-nic-is-bridged", "br0 has 10.211.55.3, but eth0 is a port of no bridge")
    assert "hosts-reach-each-other" in lost.broken
    assert "containers-reach-hosts" not in lost.broken  # which goes without saying
    lab.type("h1", "ip link set eth0 master br0; ip link set eth0 type bridge_slave cost 77")

    # Only --prove cuts anything, and it heals exactly.
    before = lab.type("h1", "bridge -d link show dev eth0")
    proved = lab.holds("--prove", packets={"none": 20})
    assert (
        "eth0 of h1 detached from br0: stops; healed: back"
        in (proved.told["path"]["control_detail"])
    )
    assert lab.type("h1", "bridge -d link show dev eth0") == before


@pytest.mark.slow
def test_bridge_as_a_stranger_builds_it(world: World) -> None:
    """`ip` for brctl, another name, another range; on the other host docker0 itself, by --bip."""
    lab = Typed(world, "bridge")
    lab.type("h1", """
        ip link add lan type bridge
        ip link set lan up
        ip address del 10.211.55.3/24 dev eth0
        ip link set eth0 master lan
        ip address add 10.211.55.3/24 dev lan
        ip route add default via 10.211.55.1
        echo '{"bridge": "lan", "fixed-cidr": "10.211.55.32/28"}' >/etc/docker/daemon.json
        systemctl restart docker
        docker run -d --name web busybox sleep infinity
        docker run -d busybox sleep infinity
    """)  # fmt: skip
    lab.type("h2", docker("--bip 10.211.55.4/24 --fixed-cidr 10.211.55.200/29") + """
        ip link set eth0 master docker0
        ip address del 10.211.55.4/24 dev eth0
        ip route replace default via 10.211.55.1 dev docker0
        docker run -d busybox sleep infinity
    """)  # fmt: skip
    judged = lab.holds("--prove", packets={"none": 20})
    assert judged.told["path"]["control_detail"].startswith("eth0 of h1 detached from lan: stops")
    lab.type("h1", "ip link add other type bridge; ip link set other up; systemctl stop docker")
    lab.fails("h1-docker-is-on-the-bridge", "h1: Docker does not run")
    lab.type("h1", "ip address add 172.30.0.1/24 dev other; sed -i s/lan/other/ "
             "/etc/docker/daemon.json; sed -i s/10.211.55.32/172.30.0.32/ /etc/docker/daemon.json;"
             "systemctl start docker; docker start web")  # fmt: skip
    lab.fails("h1-docker-is-on-the-bridge", "h1: Docker uses other; eth0 is a port of lan")


# -- Open vSwitch and GRE --------------------------------------------------------------------------

TUNNEL = """
    ovs-vsctl add-br obr0
    ovs-vsctl add-port obr0 gre0 -- set interface gre0 type=gre \
        options:remote_ip=192.168.59.$((105 - {n}))
    ip link set obr0 up
    brctl addbr br0
    ifconfig br0 192.168.{n}.1 netmask 255.255.255.0
    brctl addif br0 obr0
    ip link set br0 mtu 1462
    sysctl -q net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.br0.send_redirects=0
"""
RUN = "docker run -d --name c1 busybox sleep infinity"


@pytest.mark.kernel
@pytest.mark.long_in_guest
@typed_tools
@vswitch
def test_open_vswitch_as_the_tutorial_types_it_by_either_route(world: World) -> None:
    lab = Typed(world, "ovs-gre")
    empty = lab.status()
    assert empty.states == ["holds", "not yet", "after that", "after that"]
    assert "h1: Open vSwitch has no bridge" in empty.missing

    lab.type("h1", "ovs-vsctl add-br obr0")
    assert "h1: obr0 has no GRE port" in lab.status().missing
    lab.type("h1", TUNNEL.replace("{n}", "1").replace("add-br obr0", "del-br obr0", 1)
             .replace("del-br obr0", "del-br obr0 -- add-br obr0"))  # fmt: skip
    half = lab.status()
    assert "h1: Docker is not on br0" in half.missing
    assert "h1-has-gre-tunnel" in [claim["id"] for claim in half.told["claims"]]
    lab.type("h2", TUNNEL.replace("{n}", "2"))
    lab.both(docker("-b br0") + RUN)
    before = lab.status()
    assert before.states == ["holds", "holds", "not yet", "after that"]
    assert "h1/c1 does NOT reach h2/c1" in before.screen
    assert before.missing[0] == "h1 has no route to h2's containers, 192.168.2.0/24"
    assert before.carried == {}
    # What is still to come is not wrong.
    assert re.search(r"result +· (\d+) of \1 claims hold, 2 of 4", world.say("status").stdout)

    # The notes' route.
    lab.type("h1", "ip route add 192.168.2.0/24 via 192.168.59.104 dev eth0")
    assert lab.status().missing == ["h2 has no route to h1's containers, 192.168.1.0/24"]
    lab.type("h2", "ip route add 192.168.1.0/24 via 192.168.59.103 dev eth0")
    notes = lab.holds("--prove", packets={"none": 20})
    assert notes.states == ["holds", "holds", "holds", "passed over"]
    assert "does NOT reach" not in notes.screen  # it was true before this
    assert notes.told["path"]["control_detail"].startswith("GRE ports of h1 deleted: 5 of 5")

    # And the tunnel's, once on one side alone.
    lab.type("h1", "ip route replace 192.168.2.0/24 via 192.168.2.1 dev br0 onlink")
    lab.fails("h1-c1-to-h2-c1-takes-gre", "10 plain, 10 gre")
    assert re.search(r"result +✗ \d+ of", world.say("status").stdout)
    lab.type("h2", "ip route replace 192.168.1.0/24 via 192.168.1.1 dev br0 onlink")
    tunnel = lab.holds(packets={"gre": 20})
    assert tunnel.states == ["holds", "holds", "passed over", "holds"]
    assert "h1/c1 > h2/c1: 20 gre on the physical link" in world.say("status").stdout


@pytest.mark.slow
@typed_tools
@vswitch
def test_mistakes_with_open_vswitch(world: World) -> None:
    lab = Typed(world, "ovs-gre")
    lab.both(TUNNEL + docker("-b br0") + RUN)
    lab.both("ip route add 192.168.{o}.0/24 via 192.168.{o}.1 dev br0 onlink")
    lab.holds(packets={"gre": 20})

    remote = "ovs-vsctl set interface gre0 options:remote_ip=192.168.59."
    lab.type("h1", f"{remote}105")
    lab.type("h2", f"{remote}104")
    wrong = lab.fails("h1-has-gre-tunnel", "gre0 leads to 192.168.59.105, which no other host has")
    assert wrong.broken["h2-has-gre-tunnel"].endswith("192.168.59.104, which is h2's own")
    lab.type("h1", f"{remote}104 options:key=7; brctl delif br0 obr0")
    lab.type("h2", f"{remote}103; ip link set obr0 down")
    wrong = lab.fails("h1-has-gre-tunnel", "gre0 has key 7, gre0 of h2 key 0")
    assert wrong.broken["h2-docker-leads-into-the-tunnel"] == "h2: obr0 is down"
    assert wrong.broken["h1-docker-leads-into-the-tunnel"] == (
        "h1: obr0 is a port of no bridge, and has no address; Docker uses br0"
    )
    lab.type("h1", "ovs-vsctl remove interface gre0 options key; brctl addif br0 obr0")
    # TCP does not notice: h1/c1 has learnt by now how much it may ask for.
    lab.type("h2", "ip link set obr0 up; ip link set br0 mtu 1500")
    large = lab.fails("h2-c1-large-packets-to-h1-c1", "1500 bytes from h2/c1 to h1/c1 vanish")
    assert list(large.broken) == ["h2-c1-large-packets-to-h1-c1"]
    assert "`ip -br link` on h2, which MTU? docs/tutorial.md 2.3, C12" in large.told["next"]
    lab.type("h2", "ip link set br0 mtu 1462; ip route del 192.168.1.0/24; "
             "ip route add 192.168.1.0/24 via 192.168.1.99 dev br0 onlink")  # fmt: skip
    lab.type("h1", "iptables -I FORWARD -i br0 -o br0 -j DROP")
    silent = lab.fails("h2-has-routes", "192.168.1.99 dev br0: that address is nobody's")
    assert "h1/c1 gets no reply from h2/c1" in silent.broken["containers-reach-each-other"]
    assert "`xlab trace h1/c1 h2/c1`" in silent.screen
    lab.type("h1", "iptables -D FORWARD -i br0 -o br0 -j DROP")
    lab.type("h2", "ip route replace 192.168.1.0/24 via 192.168.1.1 dev br0 onlink")
    lab.holds(packets={"gre": 20})


@pytest.mark.slow
@pytest.mark.kernel
@pytest.mark.long_in_guest
@vswitch
def test_open_vswitch_as_a_stranger_builds_it(world: World) -> None:
    """Docker's own bridge by --bip, other names and ranges, `ip`, a route over the tunnel's bridge.

    On h2 the tunnel's bridge is no port of Docker's at all: it has an address, and packets are
    routed over it.
    """
    lab = Typed(world, "ovs-gre")
    lab.type("h1", docker("--bip 172.20.7.1/24 --fixed-cidr 172.20.7.128/25") + """
        ovs-vsctl add-br tunnels -- add-port tunnels to-h2 -- set interface to-h2 type=gre \
            options:remote_ip=192.168.59.104 options:key=42 external_ids:by=me \
            -- set port to-h2 other_config:stp-port-num=5
        ovs-vsctl set interface to-h2 ofport_request=23
        ip link set tunnels up mtu 1462
        ip address add 172.31.0.1/30 dev tunnels
        docker run -d --name web busybox sleep infinity
        ip route add 10.99.0.0/16 via 172.31.0.2 dev tunnels
    """)  # fmt: skip
    lab.type("h2", docker("--bip 10.99.0.1/16") + """
        ovs-vsctl add-br ovs -- add-port ovs t -- set interface t type=gre options:key=42 \
            options:remote_ip=192.168.59.103
        ip link set ovs up mtu 1462
        ip address add 172.31.0.2/30 dev ovs
        docker run -d busybox sleep infinity
        ip route add 172.20.7.0/24 via 172.31.0.1
    """)  # fmt: skip
    lab.holds(packets={"gre": 20})
    # What was deleted is as it was, whatever was set, its OpenFlow number included.
    rows = "ovs-vsctl --columns={} list {} to-h2"
    asked = "; ".join(
        rows.format(columns, table)
        for table, columns in [
            ("interface", "name,type,options,ofport,ofport_request,external_ids"),
            ("port", "name,other_config,tag,protected"),
        ]
    )
    before = lab.type("h1", asked)
    proved = lab.holds("--prove", packets={"gre": 20})
    assert proved.told["path"]["control_detail"] == ("GRE ports of h1 deleted: stops; healed: back")
    assert lab.type("h1", asked) == before
    assert "23" in before

    # Nobody's own programs are asked.
    lab.type("h1", "for tool in ip bridge ovs-vsctl ping; do printf '#!/bin/sh\\nexit 1\\n' "
             ">/usr/bin/$tool; done")  # fmt: skip
    lab.holds(packets={"gre": 20})


@pytest.mark.slow
@vswitch
def test_one_segment_needs_no_route(world: World) -> None:
    """Ranges apart in one subnet, which the tunnel joins, by a veth for the bridge's own port."""
    lab = Typed(world, "ovs-gre")
    lab.both(
        """
        ovs-vsctl add-br sw -- add-port sw g -- set interface g type=gre \
            options:remote_ip=192.168.59.$((105 - {n}))
        ip link add lan type bridge
        ip link set lan up mtu 1462
        ip address add 10.8.0.{n}/24 dev lan
        ip link add up0 type veth peer name up1
        ip link set up0 master lan up
        ip link set up1 up
        ovs-vsctl add-port sw up1
    """
        + docker("-b lan --fixed-cidr 10.8.0.1{n}0/28 --mtu 1462")
        + RUN
    )
    judged = lab.holds(packets={"gre": 20})
    assert judged.states == ["holds", "holds", "passed over", "holds"]
    lab.type("h2", docker("-b lan --fixed-cidr 10.8.0.110/28 --mtu 1462") + "docker start c1")
    lab.fails("ranges-are-apart", "h2's containers get addresses from h1's range")


# -- weave and plain hosts -------------------------------------------------------------------------


@pytest.mark.slow
def test_weave_typed_and_with_its_mistakes(world: World) -> None:
    lab = Typed(world, "weave")
    assert lab.status().states == ["holds", "not yet", "after that"]
    lab.both("weave launch")
    apart = lab.fails("routers-are-connected", "h1 has 0 of 1 connections; h2 has 0 of 1")
    assert "`weave status connections` on h1" in apart.told["next"]
    lab.type("h2", "weave stop")
    lab.fails("h2-router-runs", "h2: the router has ended")
    lab.type("h2", "weave launch 10.211.55.3")
    assert lab.status().missing == [
        "h1: no container runs with an ethwe", "h2: no container runs with an ethwe"
    ]  # fmt: skip
    lab.type("h1", "docker run -d --name plain busybox sleep infinity")
    lab.type("h1", "weave run 10.40.0.1/16 --name mine -it ubuntu")
    lab.type("h2", "docker run -d --name other busybox sleep infinity")
    lab.type("h2", "weave attach 10.41.0.2/16 other")
    lab.fails("containers-share-a-subnet", "h1/mine is in 10.40.0.0/16, h2/other in 10.41.0.0/16")
    lab.type("h2", "docker exec other ip address del 10.41.0.2/16 dev ethwe")
    lab.type("h2", "docker exec other ip address add 10.40.0.2/16 dev ethwe")
    judged = lab.holds("--prove", packets={"sleeve": 20})
    assert judged.told["path"]["control_detail"] == (
        "UDP port 6783 dropped on h1: stops; healed: back"
    )
    assert "DROP" not in lab.type("h1", "iptables -S INPUT")


@pytest.mark.slow
def test_plain_hosts(world: World) -> None:
    lab = Typed(world, "baseline")
    assert lab.status().missing == ["h1: no container runs", "h2: no container runs"]
    lab.both("docker run -d busybox sleep infinity")
    lab.holds("--prove", packets={"none": 20})
    lab.type("h2", "sysctl -q net.ipv4.ip_forward=0")
    lab.fails("containers-reach-outside", "h2/.* gets no reply from the outside")
    assert world.say("fault", "crash h2").status == 0
    assert "h2 is down" in lab.fails("hosts-reach-each-other", "h2 is down").told["next"]


def test_a_lab_that_was_built_to_a_stage_goes_on_from_there(world: World) -> None:
    assert world.say("up", "bridge", "--until", "Docker on br0").status == 0
    judged = json.loads(world.say("status", "--json").stdout)
    assert [stage["state"] for stage in judged["stages"]] == ["holds", "holds", "holds"]
    assert judged["holds"]
