"""Faults as text, and what is to be expected of a network in which some are in force."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fuzzing import Refusal, attempt
from xlab.errors import UsageError
from xlab.faults.expectation import Broken, Pair, Topology, expected
from xlab.faults.kinds import DaemonKill, Fault, HostCrash, LinkDown, Partition, parse
from xlab.lab import underlay


def topology(spec: str = "single,3", **differing: object) -> Topology:
    described = underlay.describe(spec, hosts=2)
    return Topology(
        underlay=described,
        containers={host: (f"{host}/c1", f"{host}/c2") for host in described.hosts},
        daemons=dict.fromkeys(described.hosts, ("ovsdb-server", "ovs-vswitchd")),
        **differing,  # type: ignore[arg-type]
    )


THREE = topology()
#: h1 - s1 - s2 - s3 - h3, h2 at s2; the gateway is at s1.
LINEAR = topology("linear,3")


def cut(where: Topology, *faults: Fault) -> set[Pair]:
    """The pairs that must not reach each other, of those that exist."""
    broken = Broken()
    for fault in faults:
        fault.add_to(broken)
    return {pair for pair, must in expected(where, broken).items() if not must}


def of_hosts(pairs: set[Pair]) -> set[Pair]:
    return {pair for pair in pairs if "/" not in "".join(pair)}


def both_ways(*pairs: Pair) -> set[Pair]:
    return {*pairs, *((b, a) for a, b in pairs if b != "gw")}


# -- what is to be expected ------------------------------------------------------------------------


def test_where_nothing_is_broken_everybody_is_reached() -> None:
    assert cut(THREE) == set()
    # Nine nodes ask each other and the gateway.
    assert len(expected(THREE, Broken())) == 9 * 9


def test_a_cable_cuts_a_host_and_its_containers_off_and_nothing_within() -> None:
    off = cut(THREE, LinkDown("h1"))
    assert of_hosts(off) == both_ways(("h1", "h2"), ("h1", "h3"), ("h1", "gw"))
    assert ("h1/c1", "h2/c2") in off
    assert ("h1/c1", "gw") in off
    assert not any("h1" in pair[0] and "h1" in pair[1] for pair in off)
    assert not any("h1" not in pair[0] and "h1" not in pair[1] for pair in off)


def test_the_gateways_cable_cuts_only_the_gateway_off() -> None:
    off = cut(THREE, LinkDown("gw"))
    assert {target for _, target in off} == {"gw"}
    assert len(off) == 9


def test_a_trunk_divides_a_tree() -> None:
    assert of_hosts(cut(LINEAR, LinkDown("s1-s2"))) == both_ways(
        ("h1", "h2"), ("h1", "h3")
    ) | {("h2", "gw"), ("h3", "gw")}  # fmt: skip
    assert of_hosts(cut(LINEAR, LinkDown("s2-s3"))) == both_ways(
        ("h1", "h3"), ("h2", "h3"), ("h3", "gw")
    )


def test_a_host_that_is_down_asks_nobody_and_is_reached_by_nobody() -> None:
    reached = expected(THREE, Broken(hosts={"h2"}))
    assert not any(source.startswith("h2") for source, _ in reached)
    assert {target for (_, target), must in reached.items() if not must} == {
        "h2", "h2/c1", "h2/c2"
    }  # fmt: skip


def test_the_pieces_of_a_partition() -> None:
    two = Partition((("h1", "h2", "gw"), ("h3",)))
    assert of_hosts(cut(THREE, two)) == both_ways(("h1", "h3"), ("h2", "h3"), ("h3", "gw"))
    three = Partition((("h1", "gw"), ("h2",), ("h3",)))
    assert of_hosts(cut(THREE, three)) == both_ways(
        ("h1", "h2"), ("h1", "h3"), ("h2", "h3"), ("h2", "gw"), ("h3", "gw")
    )


def test_a_side_with_a_switch_of_its_own_needs_no_trunk() -> None:
    split = Partition((("h2", "gw"), ("h1", "h3")))
    assert ("h1", "h3") not in cut(LINEAR, split, LinkDown("s1-s2"))


def test_who_needs_which_daemon() -> None:
    user_space = topology(eth0_needs=("ovsdb-server", "ovs-vswitchd"))
    for daemon in ("ovsdb-server", "ovs-vswitchd"):
        assert cut(THREE, DaemonKill("h1", daemon)) == set(), "the kernel goes on"
        assert cut(user_space, DaemonKill("h1", daemon)) == cut(THREE, LinkDown("h1"))
    sleeve = topology(overlay_needs="weave", hosts_reach_containers=False)
    off = cut(sleeve, DaemonKill("h1", "weave")) - cut(sleeve)
    assert off == {
        (a, b)
        for a, b in permutations([f"h{h}/c{c}" for h in (1, 2, 3) for c in (1, 2)], 2)
        if ("h1" in a) != ("h1" in b)
    }


def test_a_network_of_the_containers_own_is_not_the_hosts() -> None:
    off = cut(topology(hosts_reach_containers=False))
    assert off == {(f"h{a}", f"h{b}/c{c}") for a in (1, 2, 3) for b in (1, 2, 3) for c in (1, 2)}


def test_a_host_that_is_exposed_is_in_that_network_as_far_as_the_router_carries() -> None:
    exposed = topology(
        overlay_needs="weave", hosts_reach_containers=False, exposed=frozenset({"h1"})
    )
    theirs = {(f"h{a}", f"h{b}/c{c}") for a in (2, 3) for b in (1, 2, 3) for c in (1, 2)}
    assert cut(exposed) == theirs
    off = cut(exposed, DaemonKill("h1", "weave"))
    assert ("h1", "h2/c1") in off
    assert ("h1", "h1/c1") not in off


def test_of_containers_with_the_same_addresses_nothing_is_said() -> None:
    said = expected(topology(containers_are_reached=False), Broken())
    assert ("h1", "h2/c1") not in said
    assert ("h1/c1", "h2/c1") not in said
    assert said["h1/c1", "h1/c2"]
    assert said["h1/c1", "h2"]


faults = st.one_of(
    st.sampled_from(["h1", "h2", "h3", "gw", "s1-s2", "s2-s3"]).map(LinkDown),
    st.sampled_from(["h1", "h2", "h3"]).map(HostCrash),
    st.builds(DaemonKill, st.sampled_from(["h1", "h3"]), st.sampled_from(["a", "b"])),
    st.sampled_from(["h1", "h3"]).map(
        lambda host: Partition((tuple({"h1", "h2", "h3", "gw"} - {host}), (host,)))
    ),
)


@given(st.lists(faults, max_size=4), faults)
def test_no_fault_brings_anybody_together_but_a_partition(some: list[Fault], one: Fault) -> None:
    where = topology("linear,3", eth0_needs=("a",), overlay_needs="b")
    before, after = Broken(), Broken()
    for fault in some:
        fault.add_to(before)
        fault.add_to(after)
    one.add_to(after)
    less, more = expected(where, after), expected(where, before)
    assert set(less) <= set(more)
    if not isinstance(one, Partition):
        assert {p for p, must in less.items() if must} <= {p for p, must in more.items() if must}
    # Between hosts it is the same both ways.
    for a, b in permutations(set(where.hosts) - after.hosts, 2):
        assert less[a, b] == less[b, a]


# -- text ------------------------------------------------------------------------------------------

WORDS = st.one_of(
    st.sampled_from(
        ["link", "down", "up", "crash", "reboot", "kill", "restart", "partition", "heal", "h1",
         "h2", "h3", "gw", "s1", "s2-s1", "s2-s3", "s3-s1", "ovs-vswitchd", "weave", "|", ",",
         "h1,h2", "h1|h2", "", "\udcff", "\x1b[2J", "x" * 5000, "9" * 5000]
    ),
    st.text(max_size=4),
)  # fmt: skip


@given(st.lists(WORDS, max_size=7).map(" ".join) | st.text())
@example("partition h1,h1 | h2")
@example("partition" + "|" * 5000)
def test_any_text_is_a_fault_that_can_be_or_refused(text: str) -> None:
    order = attempt(lambda: parse(text, LINEAR), UsageError)
    if isinstance(order, Refusal):
        return
    # It says what was asked for, and how it is mended, in words that say the same again.
    fault = order.fault
    if fault != Partition(()):
        assert parse(str(fault), LINEAR).fault == fault
        assert parse(fault.cure, LINEAR).mend
    if isinstance(fault, Partition) and fault.sides:
        assert sorted(sum(fault.sides, ())) == sorted([*LINEAR.hosts, "gw"])


@pytest.mark.parametrize(
    ("text", "fault", "cure"),
    [
        ("link h1 down", LinkDown("h1"), "link h1 up"),
        ("link gw down", LinkDown("gw"), "link gw up"),
        ("link s2-s1 down", LinkDown("s1-s2"), "link s1-s2 up"),
        ("link s1-eth1 down", LinkDown("h1"), "link h1 up"),
        ("link s2-eth2 down", LinkDown("s1-s2"), "link s1-s2 up"),
        ("  crash   h2 ", HostCrash("h2"), "reboot h2"),
        ("kill h1 ovs-vswitchd", DaemonKill("h1", "ovs-vswitchd"), "restart h1 ovs-vswitchd"),
        ("partition h1,h2 | h3", Partition((("h1", "h2", "gw"), ("h3",))), "heal"),
        ("partition h1|gw , h2", Partition((("h1", "h3"), ("gw", "h2"))), "heal"),
        ("partition gw | h3 | h1", Partition((("gw", "h2"), ("h3",), ("h1",))), "heal"),
        ("partition h1,h2 '|' h3", Partition((("h1", "h2", "gw"), ("h3",))), "heal"),
    ],
)
def test_what_a_person_types(text: str, fault: Fault, cure: str) -> None:
    order = parse(text, LINEAR)
    assert (order.fault, order.mend) == (fault, False)
    assert fault.cure == cure
    # What is shown can be typed.
    assert parse(str(fault), LINEAR).fault == fault
    mending = parse(cure, LINEAR)
    assert mending.mend
    assert mending.fault == (Partition(()) if cure == "heal" else fault)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no fault; faults are: link NAME down|up, crash HOST, reboot HOST, kill HOST "),
        ("explode h1", "'explode h1' is no fault"),
        ("link h1 sideways", "'link h1 sideways' is no fault; it is `link NAME down|up`"),
        ("link h9 down", "no link 'h9'; there is: h1, h2, h3, gw, s1-s2, s2-s3"),
        ("crsh h2", "; did you mean crash?"),
        ("link s1_s2 down", "did you mean s1-s2?"),
        ("crash gw", "no host 'gw'; there is: h1, h2, h3"),
        ("kill h1 dockerd", "no daemon of h1 'dockerd'; there is: ovsdb-server, ovs-vswitchd"),
        ("kill h7 ovs-vswitchd", "no host 'h7'"),
        ("partition", "no host ''; there is: h1, h2, h3, gw"),
        ("partition h1,h2", "a partition has two sides or more, as in h1,h2 '|' h3"),
        ("explode", "partition HOST,… '|' HOST,…, heal"),
        ("partition h1 | h2,h1", "h1 is on two sides"),
        ("partition h1 |", "no host ''"),
        ("heal h1", "'heal h1' is no fault"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as met:
        parse(text, LINEAR)
    assert message in str(met.value)


def test_a_host_without_daemons_says_so() -> None:
    bare = Topology(LINEAR.underlay, LINEAR.containers, dict.fromkeys(LINEAR.hosts, ()))
    with pytest.raises(UsageError, match="no daemon of h1 'weave'; there is: none"):
        parse("kill h1 weave", bare)
