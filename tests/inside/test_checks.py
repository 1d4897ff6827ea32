"""Checks of exercises, in a small lab: each kind holds where it should, and says what it saw."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Any

import pytest

import xlab
from tests.support.descriptors import room_for
from tests.support.labs import sandboxed
from xlab.errors import UsageError, XlabError
from xlab.inside.checks.kinds import USUAL_WAIT_S, Kind
from xlab.inside.checks.places import AbsentError
from xlab.lab import underlay
from xlab.lab.lab import Lab
from xlab.outside.api import LabHandle

pytestmark = pytest.mark.sandbox

#: A network namespace of h2 and the way there; between two hosts, and red behind the second, one
#: of each kind of wrong is then made.
_BEHIND = """
ip netns add {name}
ip link add to-{name} type veth peer name eth0 netns {name}
ip address add {net}.1/24 dev to-{name}
ip link set to-{name} up
ip -n {name} address add {net}.2/24 dev eth0
ip -n {name} link set eth0 up
ip -n {name} route add default via {net}.1
sysctl -qw net.ipv4.ip_forward=1
"""


def behind_h2(lab: LabHandle, name: str, net: str) -> None:
    lab["h2"].run("sh", "-ec", _BEHIND.format(name=name, net=net))
    lab["h1"].run("ip", "route", "add", f"{net}.0/24", "via", str(lab["h2"].address))


@pytest.fixture(scope="module")
def lab() -> Iterator[LabHandle]:
    """Tests leave it as it was."""
    with xlab.lab("baseline", empty=True, machines=True, check=False) as made:
        behind_h2(made, "red", "10.9.0")
        made["h1"].run("docker", "run", "-d", "--name", "c1", "busybox", "sleep", "infinity")
        made["h2"].run("docker", "run", "-d", "--name", "c1", "busybox", "sleep", "infinity")
        yield made


_nets = itertools.count(1)


@pytest.fixture
def never_asked(lab: LabHandle) -> Iterator[str]:
    """The address of h2's namespace blue, which no echo was sent to yet.

    A rule of nat leaves alone what conntrack knows from before it: among 25 echoes of the last 30 s
    to red's address, one in 2,600 took an identifier that was known, and came to red all the same.
    """
    net = f"10.9.{next(_nets)}"
    behind_h2(lab, "blue", net)
    yield f"{net}.2"
    lab["h1"].run("ip", "route", "del", f"{net}.0/24")
    # With a namespace go its devices, some time later; this is at once.
    lab["h2"].run("ip", "link", "del", "to-blue")
    lab["h2"].run("ip", "netns", "del", "blue")


def check(lab: LabHandle, word: str, arguments: Any, wait_s: float = 0.0) -> tuple[bool, str]:
    asked = {"word": word, "arguments": arguments, "wait_s": wait_s}
    found = lab.call("check", asked)
    return found["holds"], found["seen"]


H1_RED = {"from": "h1", "to": "h2 netns red"}


@pytest.mark.parametrize(
    ("word", "arguments", "holds", "seen"),
    [
        ("reaches", H1_RED, True, "an answer came"),
        ("reaches", {"from": "h2 netns red", "to": "h1"}, True, ""),
        ("reaches", {"from": "h1", "to": "10.9.0.2"}, True, ""),
        ("reaches", {"all": ["h1", "h2", "h2 netns red"]}, True, "6 of 6 answer"),
        ("reaches", {"from": "h1", "to": "10.9.0.7"}, False,
         "no answer from 10.9.0.7; h1 sends it via 10.211.55.4 dev eth0"),
        ("reaches", {"from": "h2/c1", "to": "h1/c1"}, False, "have the same address, 172.17.0.2"),
        ("reaches", {"from": "h1/c9", "to": "h2"}, False, "no container c9 runs on h1"),
        ("reaches", {"from": "h1 netns red", "to": "h2"}, False,
         "there is no network namespace red in h1"),
        ("does_not_reach", {"from": "h1", "to": "10.9.0.7"}, True, "no answer"),
        ("does_not_reach", H1_RED, False, "h2 netns red (10.9.0.2) answers"),
        ("transfers", H1_RED, True, "262,144 of 262,144 bytes arrived, same SHA-256"),
        ("distinct", ["h1", "h2", "h2 netns red"], True, "3 stations, 3 addresses"),
        ("distinct", "all", False, "5 stations, 4 addresses"),
        ("address", {"of": "h2 netns red", "is": "10.9.0.2"}, True, "h2 netns red has 10.9.0.2"),
        ("address", {"of": "h1/c1", "in": "172.17.0.0/24"}, True, "h1/c1 has 172.17.0.2"),
        ("address", {"of": "h1/c1", "in": "172.18.0.0/24"}, False, "h1/c1 has 172.17.0.2"),
        ("address", {"of": "h2", "is": "10.9.0.1", "device": "to-red"}, True, "h2 has 10.9.0.1"),
        ("address", {"of": "h2", "is": "10.9.0.1", "device": "to-blue"}, False,
         "h2 has no interface to-blue"),
        ("containers", {"of": "h1", "at_least": 1, "in": "172.17.0.0/24"}, True,
         "running on h1: 1; of them with an address of 172.17.0.0/24: 1"),
        ("containers", {"of": "h1", "at_least": 2, "in": "172.17.0.0/24"}, False, "on h1: 1; "),
        ("containers", {"of": "h1", "at_least": 1, "in": "172.18.0.0/24"}, False, "0.0/24: 0"),
        ("takes", {**H1_RED, "in": "none"}, True, "20 plain"),
        ("takes", {**H1_RED, "in": "gre"}, False, "20 plain"),
        ("takes", {"from": "h2", "to": "h2 netns red", "in": "none"}, False, "h2: none"),
        ("mtu", {**H1_RED, "is": 1500}, True, "1500 bytes"),
        ("mtu", {**H1_RED, "at_most": 1400}, False, "1500 bytes"),
        ("mtu", {"from": "h2/c1", "to": "h1/c1", "is": 1500}, False, "have the same address"),
        ("quiet", {"at": "h1", "most": 200}, True, "frames a second on the physical link of h1"),
        ("survives", {"fault": "link h2 down", "then": {"reaches": H1_RED}}, False,
         "under `link h2 down`: no answer"),
        ("survives", {"fault": "link gw down", "then": {"reaches": H1_RED}}, True,
         "under `link gw down`: an answer came"),
    ],
)  # fmt: skip
def test_a_check_says_what_there_is(
    lab: LabHandle, word: str, arguments: Any, holds: bool, seen: str
) -> None:
    # One look takes 0.6 s, and a machine with other work stalls as long.
    found = check(lab, word, arguments, wait_s=USUAL_WAIT_S if holds else 0.0)
    assert found[0] is holds, found
    assert seen in found[1]
    assert lab.fault().in_force == ()


def test_an_address_is_on_its_device_alone(lab: LabHandle) -> None:
    asked = {"of": "h2", "is": "10.9.0.1", "device": "to-red"}
    lab["h2"].run("ip", "address", "add", "10.9.0.1/24", "dev", "docker0")
    lab["h2"].run("ip", "address", "del", "172.17.0.1/16", "dev", "docker0")
    try:
        holds, seen = check(lab, "address", asked)
        assert not holds
        assert seen in ("h2 has 10.9.0.1 on to-red and on docker0",
                        "h2 has 10.9.0.1 on docker0 and on to-red")  # fmt: skip
    finally:
        lab["h2"].run("ip", "address", "flush", "dev", "docker0")
        lab["h2"].run("ip", "address", "add", "172.17.0.1/16", "dev", "docker0")
    assert check(lab, "address", asked)[0]


def test_every_kind_is_tried_here() -> None:
    (marked,) = [
        mark for mark in test_a_check_says_what_there_is.pytestmark if mark.name == "parametrize"
    ]  # fmt: skip
    assert {case[0] for case in marked.args[1]} == set(Kind.known)


def test_a_program_of_the_hosts_is_not_believed(lab: LabHandle) -> None:
    """Whoever is root in a host may put anything in the place of ping and ip."""
    h1 = lab["h1"]
    first = h1.run("sh", "-c", 'echo "${PATH%%:*}"').stdout.strip()
    liars = [f"{first}/ping", f"{first}/ip"]
    for liar in liars:
        lies = f"printf '#!/bin/sh\\necho time=1\\n' >{liar}; chmod +x {liar}"
        h1.run("sh", "-ec", f"mkdir -p {first}; {lies}")
    try:
        assert "time=1" in h1.run("sh", "-c", "ping -c1 10.9.0.7").stdout
        assert check(lab, "reaches", {"from": "h1", "to": "10.9.0.7"})[0] is False
        assert check(lab, "reaches", H1_RED, wait_s=USUAL_WAIT_S)[0] is True
    finally:
        h1.run("rm", *liars)


@pytest.mark.parametrize(
    ("host", "do", "undo"),
    [
        ("h1", "ip address add {0}/32 dev lo", "ip address del {0}/32 dev lo"),
        (
            "h2",
            "iptables -t nat -A PREROUTING -d {0} -p icmp -j DNAT --to-destination 10.9.0.1",
            "iptables -t nat -F PREROUTING",
        ),
    ],
)
def test_who_answers_in_its_place_is_found_out(
    lab: LabHandle, never_asked: str, host: str, do: str, undo: str
) -> None:
    asked = {"from": "h1", "to": "h2 netns blue"}
    lab[host].run("sh", "-ec", do.format(never_asked))
    try:
        assert lab["h1"].run("ping", "-c1", "-W2", never_asked, check=False).returncode == 0
        holds, seen = check(lab, "reaches", asked)
        assert not holds
        assert "an answer came to h1, and not from h2 netns blue" in seen
    finally:
        lab[host].run("sh", "-ec", undo.format(never_asked))
    assert check(lab, "reaches", asked, wait_s=USUAL_WAIT_S)[0]


def test_nobody_takes_packets_in_the_targets_place(lab: LabHandle) -> None:
    """Whoever has its address, too, answers; it hears nothing."""
    h1, address = lab["h1"], str(lab["h2"].address)
    h1.run("ip", "address", "add", f"{address}/32", "dev", "lo")
    try:
        holds, seen = check(lab, "mtu", {"from": "h1", "to": "h2", "is": 1500})
        assert (holds, seen) == (False, "nothing crosses from h1 to h2")
    finally:
        h1.run("ip", "address", "del", f"{address}/32", "dev", "lo")
    assert check(lab, "mtu", {"from": "h1", "to": "h2", "is": 1500}, wait_s=USUAL_WAIT_S)[0]


def require_help_to_lenient_ones(lab: LabHandle, between: dict[str, str], silent: str) -> None:
    """While h2 answers no ARP request on that device, only a check that is not strict holds."""
    h2, setting = lab["h2"], f"net.ipv4.conf.{silent}.arp_ignore"
    h2.run("sysctl", "-qw", f"{setting}=8")
    try:
        assert check(lab, "reaches", between, wait_s=USUAL_WAIT_S)[0]
        asked = {"word": "reaches", "arguments": between, "wait_s": 0.0, "strict": True}
        assert not lab.call("check", asked)["holds"]
    finally:
        h2.run("sysctl", "-qw", f"{setting}=0")
    assert check(lab, "reaches", between, wait_s=USUAL_WAIT_S)[0]


@pytest.mark.parametrize("state", ["permanent", "noarp"])
def test_neighbours_made_by_hand_help_only_where_nobody_is_strict(
    lab: LabHandle, state: str
) -> None:
    between = {"from": "h1", "to": "h2"}
    h1, h2 = lab["h1"], lab["h2"]
    mac = h2.run("cat", "/sys/class/net/eth0/address").stdout.strip()
    h1.run("ip", "neigh", "replace", str(h2.address), "lladdr", mac, "nud", state,
           "dev", "eth0")  # fmt: skip
    require_help_to_lenient_ones(lab, between, silent="eth0")


def test_nor_do_they_in_a_namespace_of_ones_own(lab: LabHandle) -> None:
    between = {"from": "h2 netns red", "to": "h1"}
    h2 = lab["h2"]
    mac = h2.run("cat", "/sys/class/net/to-red/address").stdout.strip()
    entry = ["10.9.0.1", "lladdr", mac, "nud", "permanent", "dev", "eth0"]
    h2.run("ip", "-n", "red", "neigh", "replace", *entry)
    require_help_to_lenient_ones(lab, between, silent="to-red")


def test_a_mac_that_has_changed_is_found_out_at_once(lab: LabHandle) -> None:
    """By itself the kernel believes an entry for half a minute, and asks again for some seconds."""
    h2, between_hosts = lab["h2"], {"from": "h1", "to": "h2"}
    before = h2.run("cat", "/sys/class/net/eth0/address").stdout.strip()
    assert check(lab, "reaches", between_hosts, wait_s=USUAL_WAIT_S)[0] is True
    try:
        for address in ("02:00:00:00:99:99", before):
            h2.run("ip", "link", "set", "eth0", "address", address)
            assert check(lab, "reaches", between_hosts, wait_s=5)[0] is True
    finally:
        h2.run("ip", "link", "set", "eth0", "address", before)


@sandboxed
def test_a_namespace_without_an_address_costs_no_descriptors() -> None:
    lab = Lab(underlay.describe(None, hosts=2))
    lab.give_addresses(IPv4Network("10.0.0.0/24"), first=1, gateway=254)
    lab.hosts[1].run(["ip", "netns", "add", "bare"])
    bare, h1 = "h2 netns bare", "h1"
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the listing is one of them
    for source, target in ((h1, bare), (bare, h1)):
        with pytest.raises(AbsentError, match="bare has no address"):
            Kind.known["reaches"]({"from": source, "to": target}).look(lab)
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@sandboxed
def test_a_namespace_is_not_missed_for_want_of_descriptors() -> None:
    lab = Lab(underlay.describe(None, hosts=2))
    lab.give_addresses(IPv4Network("10.0.0.0/24"), first=1, gateway=254)
    lab.hosts[1].run(["ip", "netns", "add", "bare"])
    reaches = Kind.known["reaches"]({"from": "h2 netns bare", "to": "h1"})
    for more in itertools.count():
        with room_for(more), pytest.raises((OSError, AbsentError)) as met:
            reaches.look(lab)
        if met.type is AbsentError:
            break
        assert "Too many open files" in str(met.value)
    assert met.match("bare has no address")
    assert more > 1, "its own, and its netlink socket's at least"


@sandboxed
def test_a_terminal_in_the_place_of_a_namespace_becomes_nobodys() -> None:
    """Pid 1 leads a session without one, and would get the signals of what is typed there."""
    lab = Lab(underlay.describe(None, hosts=2))
    ours, theirs = os.openpty()
    odd = ["ln", "-s", os.ttyname(theirs), "/run/netns/odd"]
    for argv in (["mkdir", "-p", "/run/netns"], odd, ["test", "-c", "/run/netns/odd"]):
        lab.hosts[1].run(argv)
    with pytest.raises(AbsentError, match="is no network namespace"):
        Kind.known["reaches"]({"from": "h2 netns odd", "to": "h1"}).look(lab)
    # /dev/tty is the controlling terminal, or ENXIO, tty(4).
    with pytest.raises(OSError, match="No such device or address"):
        os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("made", ["mkfifo {}", "mkdir {}", "touch {}", "ln -s /dev/tty {}"])
def test_what_is_no_namespace_is_none(lab: LabHandle, made: str) -> None:
    path = "/run/netns/odd"
    lab["h2"].run("sh", "-ec", made.format(path))
    try:
        holds, seen = check(lab, "reaches", {"from": "h2 netns odd", "to": "h1"})
        assert (holds, "network namespace" in seen) == (False, True), seen
    finally:
        lab["h2"].run("rm", "-rf", path)


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param("exec ping -q -i 0.002 {}", marks=pytest.mark.slow),
        # A storm on a machine that stands still now and then.
        "while ping -q -i 0.002 -c 200 {}; do sleep 1.9; done",
    ],
)
def test_quiet_notices_a_busy_link(flood: str, lab: LabHandle) -> None:
    flooding = lab["h2"].popen("sh", "-c", flood.format(lab["h1"].address))
    try:
        found = check(lab, "quiet", {"at": "h2", "most": 50}, wait_s=4)
        assert found[0] is False, found
    finally:
        flooding.terminate()
        flooding.wait()


def test_what_comes_true_meanwhile_is_waited_for(lab: LabHandle) -> None:
    red = lab["h2"]
    red.run("ip", "link", "set", "to-red", "down")
    begun = time.monotonic()
    back = red.popen("sh", "-c", "sleep 1; ip link set to-red up")
    found = check(lab, "reaches", H1_RED, wait_s=30)
    back.wait()
    assert found[0] is True, found
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    ("word", "arguments"),
    [
        ("reaches", {"from": "h9", "to": "h1"}),
        ("takes", {"from": "h1", "to": "h2", "in": "none", "at": "gw"}),
        ("survives", {"fault": "melt h1", "then": {"reaches": H1_RED}}),
    ],
)
def test_what_no_lab_could_have_is_an_error_and_no_answer(
    lab: LabHandle, word: str, arguments: Any
) -> None:
    with pytest.raises((XlabError, UsageError)):
        check(lab, word, arguments)


def test_what_crashed_is_back_after_a_check_of_that(lab: LabHandle) -> None:
    asked = {"fault": "crash h2", "mended": "yes", "then": {"reaches": {"from": "h1", "to": "h2"}}}
    found = check(lab, "survives", asked, wait_s=30)
    assert found[0] is True, found
    lost = {"fault": "crash h2", "mended": "yes", "then": {"reaches": H1_RED}}
    found = check(lab, "survives", lost)
    assert found == (False, "after `crash h2`: there is no network namespace red in h2")
