"""What `--topo` and `--hosts` mean: Mininet's own specs and files, and what is refused."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fuzzing import Refusal, attempt, memory_below, one_in
from tests.support.labs import machine
from xlab.errors import CapabilityError, UsageError
from xlab.lab import underlay
from xlab.lab.underlay import Link, Underlay
from xlab.scenario import blueprint
from xlab.scenario.request import Request


def ends(links: tuple[Link, ...]) -> list[tuple[str, str]]:
    return [(link.a.interface, f"{link.b.node} {link.b.interface}") for link in links]


def described(spec: str) -> Underlay:
    return underlay.describe(spec, hosts=2)


def refusal(spec: str | None, hosts: int = 2) -> str:
    with pytest.raises(UsageError) as met:
        underlay.describe(spec, hosts=hosts)
    return str(met.value)


# -- Mininet's own ---------------------------------------------------------------------------------


def test_by_default_one_switch_and_a_gateway() -> None:
    found = underlay.describe(None, hosts=3)
    assert (found.switches, found.hosts, found.trunks) == (("s1",), ("h1", "h2", "h3"), ())
    assert ends(found.uplinks) == [
        ("s1-eth1", "h1 eth0"),
        ("s1-eth2", "h2 eth0"),
        ("s1-eth3", "h3 eth0"),
        ("s1-eth4", "gw eth0"),
    ]


def test_hosts_are_counted_as_people_count() -> None:
    assert underlay.describe(None, hosts=12).hosts == tuple(f"h{n}" for n in range(1, 13))


def test_more_hosts_than_a_broadcast_reaches_at_once_are_at_several_switches() -> None:
    """The kernel queues 1,000 packets a processor, and loses the rest."""
    found = underlay.describe(None, hosts=1000, containers=2)
    at = [len([link for link in found.uplinks if link.a.node == name]) for name in found.switches]
    assert sum(at) == 1001  # the gateway's
    # It goes both ways at a time, to hosts and to the containers of those before them.
    assert (max(at) - 1) * (1 + 2) * 2 <= underlay.QUEUE_PACKETS // 4
    assert found.copies_at_once(2) <= underlay.QUEUE_PACKETS // 4
    # In a row: a tree would bring it to all hosts at once.
    row = [(link.a.node, link.b.node) for link in found.trunks]
    assert row == list(pairwise(found.switches))
    assert [link.b.node for link in found.uplinks[:1000]] == [f"h{n}" for n in range(1, 1001)]


@given(hosts=st.integers(2, 1000), containers=st.integers(1, 300))
@one_in(4)
def test_a_broadcast_fits_into_the_queue_several_times(hosts: int, containers: int) -> None:
    found = underlay.describe(None, hosts=hosts, containers=containers)
    assert found.hosts == tuple(f"h{n}" for n in range(1, hosts + 1))
    # Two hosts, or one in the middle of a row with those of its neighbours, can't be torn apart.
    least = 3 * (1 + containers) + 1
    assert found.copies_at_once(containers) <= max(400, least)


@pytest.mark.parametrize(
    ("spec", "copies"),
    [
        # Two hosts, then their containers; a host, then its containers and the next host.
        ("single,2", 6), ("linear,4,1", 4),
        # All at once, though no switch has more than 32.
        ("tree,depth=2,fanout=32", 1024 * 3),
    ],
)  # fmt: skip
def test_copies_of_a_broadcast_that_wait_together(spec: str, copies: int) -> None:
    assert described(spec).copies_at_once(3) == copies


def test_single() -> None:
    assert described("single,4") == underlay.describe(None, hosts=4)


def test_linear() -> None:
    found = described("linear,3")
    assert found.switches == ("s1", "s2", "s3")
    assert ends(found.uplinks) == [
        ("s1-eth1", "h1 eth0"),
        ("s2-eth1", "h2 eth0"),
        ("s3-eth1", "h3 eth0"),
        ("s1-eth3", "gw eth0"),
    ]
    assert sorted(sorted([t.a.interface, t.b.interface]) for t in found.trunks) == [
        ["s1-eth2", "s2-eth2"],
        ["s2-eth3", "s3-eth2"],
    ]


def test_linear_with_several_hosts_a_switch() -> None:
    # Mininet calls these h1s1, h2s1, h1s2 …
    found = described("linear,2,2")
    assert len(found.hosts) == 4
    assert {link.a.node for link in found.uplinks} == {"s1", "s2"}


def test_tree() -> None:
    found = described("tree,depth=2,fanout=3")
    assert (len(found.switches), len(found.hosts), len(found.trunks)) == (4, 9, 3)
    assert described("tree,2,3") == found


@pytest.mark.parametrize("spec", ["minimal", "reversed,2", "linear,k=2", "tree,1"])
def test_other_specs_mininet_takes(spec: str) -> None:
    assert len(described(spec).hosts) == 2


@given(st.integers(1, 4), st.integers(2, 4))
def test_every_interface_is_unique_and_every_host_has_one_uplink(depth: int, fanout: int) -> None:
    found = described(f"tree,depth={depth},fanout={fanout}")
    assert len(found.hosts) == fanout**depth
    assert [link.b.node for link in found.uplinks] == [*found.hosts, "gw"]
    links = (*found.uplinks, *found.trunks)
    at_switches = [link.a.interface for link in links] + [t.b.interface for t in found.trunks]
    assert len(set(at_switches)) == len(at_switches)
    assert len(found.trunks) == len(found.switches) - 1
    for host in found.hosts:
        assert found.uplink_of(host).b.interface == "eth0"


# -- what is refused -------------------------------------------------------------------------------


def test_an_unknown_name_lists_the_known_ones() -> None:
    message = refusal("ring,3")
    assert "ring: not one of minimal, single, reversed, linear, tree, torus" in message


def test_wrong_arguments_are_mininets_to_judge() -> None:
    assert refusal("tree,1,2,3").startswith("--topo tree,1,2,3: TypeError: ")
    assert refusal("torus,2,2").startswith("--topo torus,2,2: Exception: ")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("tree,depth=2,width=3", "tree takes depth, fanout, no width; conditions"),
        ("linear,3,bw=10", "linear takes k, n, no bw; conditions of all links are --rate, "),
        ("minimal,stp=1", "minimal takes nothing, no stp; "),
    ],
)
def test_what_mininets_topologies_would_ignore_is_refused(spec: str, said: str) -> None:
    """Most take any named argument."""
    assert refusal(spec).startswith(f"--topo {spec}: {said}")


def test_too_few_hosts() -> None:
    assert refusal("single,1") == "the topology has 1 host(s); a lab needs at least 2"


def test_a_loop_is_a_storm() -> None:
    message = refusal("torus,3,3")
    assert "has a loop through" in message
    assert "run without STP, whatever stp= says: leave that link out" in message


def test_a_bridge_has_a_limit_of_ports() -> None:
    """1,023 (BR_MAX_PORTS), the gateway's and a yardstick's among them."""
    message = refusal("single,1023")
    assert "switch s1 needs 1,024 ports, a Linux bridge holds 1,023" in message
    assert "such as linear,25,40" in message
    assert len(underlay.describe(None, hosts=1000).hosts) == 1000


SPECS = st.text(max_size=20) | st.builds(
    lambda name, arguments: ",".join([name, *arguments]),
    st.sampled_from(["minimal", "single", "reversed", "linear", "tree", "torus", "no.py:X", ""]),
    st.lists(
        st.integers(-3, 40).map(str)
        | st.sampled_from(["1e3", "nan", "inf", "1_0", "", "k=2", "n=3", "depth=9", "fanout=9"])
        | st.integers().map(str)
        | st.text(max_size=4),
        max_size=3,
    ),
)


@one_in(4)
@given(SPECS)
@example("single,1000000000")
@example("linear,2,1000000000")
@example("tree,depth=9,fanout=9")
@example("tree,depth=1000000,fanout=1")
@example("torus,100000,100000")
@example("tree,11")
@example("x" * 5000 + ".py:X")
@example("\0.py:X")
def test_any_spec_is_an_underlay_or_refused_before_it_fills_the_memory(spec: str) -> None:
    with memory_below(64 << 20):
        found = attempt(lambda: described(spec), UsageError)
    if not isinstance(found, Refusal):
        check_can_be_built(found)


def check_can_be_built(found: Underlay) -> None:
    """Every host is attached, and no two ends of links have the same name in the same place."""
    links = (*found.uplinks, *found.trunks)
    at_switches = [
        port.interface for link in links for port in (link.a, link.b) if port.node in found.switches
    ]
    assert len(set(at_switches)) == len(at_switches)
    assert all(1 <= len(name) <= 15 for name in at_switches)
    at_hosts = [link.b for link in found.uplinks]
    assert len(set(at_hosts)) == len(at_hosts)
    assert {port.node for port in at_hosts} == {*found.hosts, "gw"}
    # To find a path takes as long as there are links: of thousands of hosts some fifty will do.
    for host in found.hosts[1 :: 1 + len(found.hosts) // 50]:
        path = found.path(found.hosts[0], host)
        assert path[0].b.node == found.hosts[0]
        assert path[-1].b.node == host
        for link, following in pairwise(path):
            assert {link.a.node, link.b.node} & {following.a.node, following.b.node}


NODES = st.sampled_from(["h1", "h2", "h3", "s1", "s2", "s3", "gw"])
NAMES = st.sampled_from(["h1", "h2", "h3", "h10", "gw"]) | st.text(max_size=4)


@given(
    st.lists(st.tuples(NODES, NODES, st.none() | st.integers(0, 9)), max_size=9),
    st.fixed_dictionaries({}, optional=dict.fromkeys(("h1", "h2", "h3"), NAMES)),
)
@example([("h1", "s1", 3), ("h2", "s1", None)], {})
@example([("h1", "s1", 1), ("h2", "s1", 1)], {})
@example([("h1", "s1", None), ("h2", "s1", None)], {"h1": "../x"})
@example([("h1", "s1", None), ("h2", "s1", None)], {"h1": "9" * 5000})
def test_any_topo_is_an_underlay_that_can_be_built_or_refused(
    links: list[tuple[str, str, int | None]], renamed: dict[str, str]
) -> None:
    """Joined at random, ports numbered as somebody liked, hosts called what somebody liked."""
    from mininet.topo import Topo

    topo = Topo()
    nodes = {name: renamed.get(name, name) for pair in links for name in pair[:2]}
    for role, name in nodes.items():
        (topo.addSwitch if role.startswith("s") else topo.addHost)(name)
    for first, second, port in links:
        if nodes[first] != nodes[second]:
            topo.addLink(nodes[first], nodes[second], port2=port)
    found = attempt(lambda: underlay.from_topo(topo), UsageError)
    if not isinstance(found, Refusal):
        check_can_be_built(found)


# -- files -----------------------------------------------------------------------------------------


def topo_file(folder: Path, body: str, name: str = "mine.py") -> str:
    path = folder / name
    path.write_text("from mininet.topo import Topo\n" + body)
    return str(path)


TWO = """
class Mine(Topo):
    def build(self, left="h1", right="h2", switch="s1"):
        self.addLink(self.addHost(left), self.addSwitch(switch))
        self.addLink(self.addHost(right), switch, bw=10, delay="5ms", loss=1, jitter="1ms")
"""


def test_a_class_in_a_file(tmp_path: Path) -> None:
    found = described(topo_file(tmp_path, TWO) + ":Mine")
    assert ends(found.uplinks) == [
        ("s1-eth1", "h1 eth0"),
        ("s1-eth2", "h2 eth0"),
        ("s1-eth3", "gw eth0"),
    ]


def test_a_class_takes_arguments(tmp_path: Path) -> None:
    found = described(topo_file(tmp_path, TWO) + ":Mine,a,right=b")
    assert found.hosts == ("a", "b")


def test_links_keep_their_conditions(tmp_path: Path) -> None:
    plain, limited = described(topo_file(tmp_path, TWO) + ":Mine").uplinks[:2]
    assert plain.options == {}
    assert limited.options == {"bw": 10, "delay": "5ms", "jitter": "1ms", "loss": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ('params1={"bw": 10}', "h1 - s1 has conditions in one direction only .params1: bw"),
        ('params2={"loss": 1, "ip": "10.0.0.1/8"}', "params2: loss"),
        ("bw=10, enable_red=True", "h1 - s1 asks for enable_red"),
    ],
)
def test_conditions_no_link_of_a_lab_can_have(tmp_path: Path, options: str, message: str) -> None:
    body = TWO.replace("self.addSwitch(switch))", f"self.addSwitch(switch), {options})")
    with pytest.raises(CapabilityError, match=message):
        underlay.describe(f"{topo_file(tmp_path, body)}:Mine", hosts=2)


def described_with(folder: Path, host: str = "", link: str = "") -> Underlay:
    """Of `TWO`, with options of the first host and its link."""
    body = TWO.replace("self.addHost(left)", f"self.addHost(left, {host})")
    body = body.replace("self.addSwitch(switch))", f"self.addSwitch(switch), {link})")
    return described(topo_file(folder, body) + ":Mine")


@pytest.mark.parametrize(
    ("host", "link", "said"),
    [
        ("ip='10.0.0.300/8'", "", "host h1: ip is '10.0.0.300/8', an IPv4 address such as"),
        ("ip='fe80::1/64'", "", "host h1: ip is 'fe80::1/64', an IPv4"),
        ("ip=''", "", "host h1: ip is '', an IPv4"),
        ("mac='00:00:00:00:01'", "", "host h1: mac is '00:00:00:00:01', a station's"),
        ("mac='01:00:5e:00:00:01'", "", "host h1: mac is '01:00:5e:00:00:01', a station's"),
        ("mac='00:00:00:00:00:00'", "", "host h1: mac is '00:00:00:00:00:00', a station's"),
        ("", "addr1='h1'", "the link h1 - s1: addr1 is 'h1', a station's"),
        ("", "params1={'ip': '10.0.0.1/33'}", "the link h1 - s1: ip is '10.0.0.1/33'"),
        (
            "",
            "bandwith=10",
            "the link h1 - s1 has an option bandwith, which links do not have; did you mean bw?",
        ),
        ("", "dely='5ms'", "did you mean delay? (bw, delay, jitter, loss, max_queue_size)"),
        ("", "params2={'los': 1}", "did you mean loss?"),
        ("", "params1='bw'", "the link h1 - s1: params1 is 'bw', a dictionary is wanted"),
    ],
)
def test_options_that_make_no_sense_are_named(
    tmp_path: Path, host: str, link: str, said: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        described_with(tmp_path, host, link)


@pytest.mark.parametrize(
    ("host", "link", "said"),
    [
        ("cpu=0.5", "", "host h1: cpu=0.5: hosts of a lab share the processors"),
        ("", "txo=False", "the link h1 - s1 has txo=False"),
    ],
)
def test_what_a_lab_has_not_is_refused(tmp_path: Path, host: str, link: str, said: str) -> None:
    with pytest.raises(CapabilityError, match=said):
        described_with(tmp_path, host, link)


def test_options_that_have_no_place_in_a_lab_are_told(tmp_path: Path) -> None:
    """Addresses are the scenario's; what makes a link is no matter."""
    found = described_with(
        tmp_path,
        "ip='10.0.0.1/8', mac='00:00:00:00:00:0a', defaultRoute='via 10.0.0.9'",
        "intfName1='up0', cls=object, use_htb=True, params1={'ip': '10.0.0.1'}, "
        "params2={'ip': None}",
    )
    of_hosts, of_links = (note.partition("; names, addresses and")[0] for note in found.notes)
    options = "these options are not used: "
    assert of_hosts.endswith(f"hosts {options}ip (h1), mac (h1), defaultRoute (h1)")
    assert of_links.endswith(f"links {options}ip (h1 - s1), intfName1 (h1 - s1)")
    assert described(topo_file(tmp_path, TWO) + ":Mine").notes == ()
    request = Request("baseline", topo=topo_file(tmp_path, MANY) + ":Mine")
    notes = list(blueprint._notes(blueprint.design(request), machine(), None, {}))
    assert "ip (h1, h2, h3, 2 more)" in notes[0]


MANY = """
class Mine(Topo):
    def build(self):
        self.addSwitch("s1")
        for number in range(1, 6):
            self.addLink(self.addHost(f"h{number}", ip=f"10.0.0.{number}/8"), "s1")
"""


def test_mininets_dictionary_of_names(tmp_path: Path) -> None:
    body = TWO + "topos = {'short': lambda: Mine(left='x')}\n"
    assert described(topo_file(tmp_path, body) + ":short").hosts == ("h2", "x")


def test_a_host_named_gw_is_the_gateway(tmp_path: Path) -> None:
    body = """
class Mine(Topo):
    def build(self):
        a, b = self.addSwitch("s1"), self.addSwitch("s2")
        self.addLink(a, b)
        for host, switch in (("h1", a), ("gw", b), ("h2", b)):
            self.addLink(switch, self.addHost(host))
"""
    found = described(topo_file(tmp_path, body) + ":Mine")
    assert found.hosts == ("h1", "h2")
    assert found.uplink_of("gw").a.interface == "s2-eth2"
    assert len(found.uplinks) == 3


def test_a_host_with_two_uplinks_has_eth0_and_eth1(tmp_path: Path) -> None:
    body = """
class Mine(Topo):
    def build(self):
        for name in ("h1", "h2"):
            self.addHost(name)
        for name in ("s1", "s2"):
            self.addSwitch(name)
            for host in ("h1", "h2"):
                self.addLink(host, name)
        self.addLink("s1", "s2")
"""
    found = described(topo_file(tmp_path, body) + ":Mine")
    assert sorted(ends(found.uplinks))[:2] == [("s1-eth1", "h1 eth0"), ("s1-eth2", "h2 eth0")]
    assert {link.b.interface for link in found.uplinks} == {"eth0", "eth1"}
    assert found.uplink_of("h1").a.node == "s1"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("class Mine(Topo:\n    pass\n", "{path}:2: SyntaxError: "),
        ("\nimport no_such_module\n", "{path}:3: ModuleNotFoundError: No module named"),
        ("class Other(Topo): pass\n", "--topo {path}:Mine: {path} defines no Mine"),
        ("Mine = dict\n", "--topo {path}:Mine: {path}:Mine is not a Mininet Topo"),
    ],
    ids=["syntax", "import", "no such class", "no Topo"],
)
def test_a_file_that_is_wrong_is_told_where(tmp_path: Path, body: str, message: str) -> None:
    path = topo_file(tmp_path, body)
    assert refusal(f"{path}:Mine").startswith(message.format(path=path))


@pytest.mark.parametrize("name", ["{}", "mine.py", "./mine.py", "../here/mine.py"])
def test_a_class_whose_build_breaks_is_told_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (folder := tmp_path / "here").mkdir()
    monkeypatch.chdir(folder)
    body = "\nclass Mine(Topo):\n    def build(self):\n        self.addLink('h1', 1 // 0)\n"
    path = name.format(topo_file(folder, body))
    assert refusal(f"{path}:Mine").startswith(f"{path}:5: ZeroDivisionError")


def test_a_file_that_is_not_there() -> None:
    assert refusal("no/such.py:Mine") == "--topo no/such.py:Mine: no file no/such.py"


def test_a_file_that_is_not_python(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    assert refusal(f"{path}:Mine") == f"--topo {path}:Mine: {path} is not a Python file"


def build(*lines: str) -> str:
    return "class Mine(Topo):\n    def build(self):\n" + "".join(f"        {x}\n" for x in lines)


TWO_HOSTS = "a, b, s = self.addHost('h1'), self.addHost('h2'), self.addSwitch('s1')"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([TWO_HOSTS, "self.addLink(a, b)"], "the link h1 - h2 joins two hosts"),
        ([TWO_HOSTS, "self.addLink(a, s)"], "host h2 is joined to no switch"),
        (["self.addLink(self.addHost('h1'), self.addHost('h2'))"], "the topology has no switch"),
        (
            [TWO_HOSTS, "t = self.addSwitch('s2')", "self.addLink(a, s)", "self.addLink(b, t)"],
            "s1 and s2 are not joined",
        ),
        (
            [TWO_HOSTS, "t = self.addSwitch('s2')", "self.addLink(a, s)", "self.addLink(b, t)",
             "self.addLink(s, t)", "self.addLink(s, t)"],
            "the topology has a loop through s1 - s2",
        ),
        (
            ["s = self.addSwitch('a-switch-of-name')", "self.addLink(self.addHost('h1'), s)",
             "self.addLink(self.addHost('h2'), s)"],
            "the name 'a-switch-of-name' is longer than 15 characters",
        ),
    ],
)  # fmt: skip
def test_a_topology_that_cannot_be_built(tmp_path: Path, lines: list[str], message: str) -> None:
    assert message in refusal(topo_file(tmp_path, build(*lines)) + ":Mine")


def test_an_interfaces_name_must_fit_as_well(tmp_path: Path) -> None:
    """A switch's name may have 15 characters, but its ports add "-eth1"."""
    lines = [
        "s = self.addSwitch('long-switch')",
        "self.addLink(self.addHost('h1'), s)",
        "self.addLink(self.addHost('h2'), s)",
    ]
    message = refusal(topo_file(tmp_path, build(*lines)) + ":Mine")
    assert "'long-switch-eth1' is longer than 15 characters" in message


def test_the_description_is_plain_data() -> None:
    """Made before anything is built; equal specs give equal descriptions."""
    first: Any = described("tree,2,2")
    assert first == described("tree,2,2")
    with pytest.raises(AttributeError):
        first.switches = ()
