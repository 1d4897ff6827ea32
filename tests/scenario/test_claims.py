"""Claims that hold, and the same claims failing: each check must be able to say no.

h1 10.0.0.1 ── s1 ── 10.0.0.2 h2, and gw 10.0.0.254 ── outside
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from tests.support.labs import sandboxed
from xlab.errors import XlabError
from xlab.kernel.processes import Completed
from xlab.lab import underlay
from xlab.lab.lab import OUTSIDE, Host, Lab
from xlab.lab.reachability import sample_pairs, unreachable
from xlab.record.record import Claim
from xlab.scenario import claims
from xlab.scenario.claims import Checks


class Story:
    def __init__(self, hosts: int = 2) -> None:
        self.lab = Lab(underlay.describe(None, hosts=hosts))
        self.lab.give_addresses(IPv4Network("10.0.0.0/24"), first=1, gateway=254)
        self.h1, self.h2 = self.lab.hosts[0], self.lab.hosts[1]
        # A fresh link may drop its first packets; the tests below have no patience for that.
        assert unreachable(sample_pairs(self.lab.hosts), timeout_s=20) == []
        self.told: list[Claim] = []
        self.check = Checks(self.lab, self.told.append)

    def unplug(self, host: Host) -> None:
        self.lab.wire.set_down(self.lab.physical_link(host))

    def claim(self) -> Claim:
        """The last one; what was told and what is kept are the same."""
        assert self.check.claims == self.told
        return self.told[-1]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What will not come true need not be waited for as long."""
    monkeypatch.setattr(claims, "PATIENCE_S", 1.0)


@sandboxed
def test_reaches() -> None:
    story = Story()
    story.check.stage("wired")
    story.check.reaches(story.h1, story.h2)
    claim = story.claim()
    assert (claim.id, claim.stage, claim.text, claim.holds) == (
        "h1-reaches-h2", "wired", "h1 reaches h2", True
    )  # fmt: skip
    assert claim.observed.startswith("a reply after ")
    # The command can be pasted, and its output is there to be read.
    assert claim.evidence.startswith("h1$ ping -n -c1 ")
    assert "1 received" in claim.evidence

    story.check.reaches_outside(story.h1)
    assert story.claim().holds
    assert (story.claim().id, story.claim().text) == (
        "h1-reaches-outside", "h1 reaches the outside"
    )  # fmt: skip


@sandboxed
def test_reaches_fails_in_pings_words() -> None:
    story = Story()
    story.check.reaches(story.h1, IPv4Address("203.0.113.1"))
    assert not story.claim().holds
    assert story.claim().observed == "no reply; 10.0.0.254: Destination Net Unreachable"
    story.unplug(story.h2)
    story.check.reaches(story.h1, story.h2)
    assert not story.claim().holds
    assert story.claim().observed.startswith("no reply")


@sandboxed
def test_an_error_that_is_sent_back_is_not_the_end_of_patience() -> None:
    """ping ends at the first "unreachable", -w or not; the target is there a moment later."""
    story = Story()
    nobody_yet = IPv4Address("203.0.113.1")
    ping, outputs = story.h1.run, []

    def and_then_it_appears(*arguments: Any, **named: Any) -> Completed:
        result = ping(*arguments, **named)
        outputs.append(result.stdout)
        if len(outputs) == 1:
            story.lab.gateway.add_address("lo", f"{nobody_yet}/32")
        return result

    story.h1.run = and_then_it_appears  # type: ignore[method-assign]
    story.check.reaches(story.h1, nobody_yet)
    assert "Destination Net Unreachable" in outputs[0]
    assert story.claim().holds, story.claim().observed
    assert len(outputs) == 2


@sandboxed
def test_does_not_reach() -> None:
    story = Story()
    story.check.does_not_reach(story.h1, story.h2)
    assert not story.claim().holds
    assert story.claim().observed == "3 replies"
    story.unplug(story.h2)
    story.check.does_not_reach(story.h1, story.h2, "h1 does NOT reach h2", id="cut")
    assert (story.claim().id, story.claim().holds) == ("cut", True)


@sandboxed
def test_a_ping_that_cannot_even_be_sent_proves_nothing() -> None:
    """ping ends with status 2 where it ends with 1 for want of replies."""
    story = Story()
    story.h1.delete_route("default")
    story.check.does_not_reach(story.h1, OUTSIDE)
    assert story.claim().observed != "3 replies"
    assert not story.claim().holds


@sandboxed
def test_all_reach_each_other() -> None:
    story = Story(hosts=4)
    story.check.all_reach_each_other(story.lab.hosts, "hosts")
    assert story.claim().holds
    assert story.claim().observed == "12 of 12 pairs answer"
    story.unplug(story.lab.hosts[3])
    story.check.all_reach_each_other(story.lab.hosts, "hosts")
    assert not story.claim().holds
    assert story.claim().observed.startswith("6 of 12 pairs answer; silent: h1 > h4, h2 > h4")
    assert story.claim().observed.endswith(" and 1 more")


@sandboxed
def test_nobody_is_not_everybody() -> None:
    story = Story()
    story.check.all_reach_each_other([story.h1], "hosts")
    assert not story.claim().holds


@sandboxed
def test_transfers() -> None:
    story = Story()
    story.check.transfers(story.h1, story.h2)
    assert story.claim().holds
    assert story.claim().observed == "1,048,576 bytes, same SHA-256"


@sandboxed
def test_the_mtu_trap() -> None:
    """Pings pass and full-size segments vanish: the transfer shows it."""
    story = Story()
    port = story.lab.physical_link(story.h2)
    for host in (story.h1, story.h2):
        host.run(["ethtool", "-K", "eth0", "tso", "off", "gso", "off", "gro", "off"])
    story.lab.wire.set_mtu(port, 1400)
    story.check.reaches(story.h1, story.h2)
    assert story.claim().holds
    story.check.transfers(story.h1, story.h2)
    assert not story.claim().holds
    assert "then nothing more within" in story.claim().observed


@sandboxed
def test_a_transfer_without_a_connection() -> None:
    story = Story()
    story.h2.configure(["iptables", "-A", "INPUT", "-p", "tcp", "-j", "REJECT"])
    story.check.transfers(story.h1, story.h2)
    assert not story.claim().holds
    assert story.claim().observed.startswith("0 bytes, no connection (")


@sandboxed
def test_a_transfer_whose_path_dies_while_it_connects() -> None:
    story = Story()
    # Of the handshake, SYN and SYN-ACK pass, and no ACK.
    story.h2.configure(["iptables", "-A", "INPUT", "-p", "tcp", "!", "--syn", "-j", "DROP"])
    story.check.transfers(story.h1, story.h2)
    assert not story.claim().holds
    assert story.claim().observed == "0 bytes, no connection (timed out)"


@sandboxed
def test_takes() -> None:
    story = Story()
    story.check.takes(story.h1, story.h2, "none", "plain")
    assert story.claim().holds
    assert story.claim().observed == "20 none"
    story.check.takes(story.h1, story.h2, "gre", "through GRE")
    assert not story.claim().holds


@sandboxed
def test_broadcasts_reach() -> None:
    story = Story()
    story.check.broadcasts_reach(story.h1, story.h2, "one segment")
    assert story.claim().holds
    story.unplug(story.h2)
    story.check.broadcasts_reach(story.h1, story.h2, "one segment")
    assert not story.claim().holds
    assert story.claim().observed.startswith("0 ARP requests")


@sandboxed
def test_who_the_switch_has_not_heard_is_asked_again() -> None:
    story = Story(hosts=3)
    hosts = story.lab.hosts
    port = story.lab.switch_port(hosts[1])

    def learnt() -> Claim:
        # As if the broadcasts by which the switch knows them had been lost.
        for host in hosts:
            flush = ["type", "bridge_slave", "fdb_flush"]
            story.lab.wire.configure(["ip", "link", "set", story.lab.switch_port(host), *flush])
        story.check.switch_learns(hosts[0], hosts, "a MAC for every host", id="learnt")
        return story.claim()

    assert (learnt().observed, learnt().holds) == ("3 of 3 MACs", True)
    story.lab.wire.configure(["bridge", "link", "set", "dev", port, "learning", "off"])
    assert (learnt().observed, learnt().holds) == ("2 of 3 MACs; not h2", False)
    # Who is not even reached is not waited for without end.
    story.unplug(hosts[2])
    assert (learnt().observed, learnt().holds) == ("1 of 3 MACs; not h2, h3", False)


@sandboxed
def test_addresses_are_distinct() -> None:
    story = Story()
    for host in story.lab.hosts:
        host.docker.start()
        host.docker.run("c1")
    story.check.addresses_are_distinct(story.lab.hosts)
    assert story.claim().holds
    assert story.claim().evidence == "10.0.0.1-10.0.0.2"
    story.check.addresses_are_distinct(story.lab.containers)
    assert not story.claim().holds
    assert story.claim().observed == "1 different addresses; shared: 172.17.0.2: h1/c1, h2/c1"


@sandboxed
def test_addresses_are() -> None:
    story = Story()
    first, second = story.h1.address, story.h2.address
    story.check.addresses_are("as-planned", "as planned", {story.h1: first, story.h2: second})
    assert story.claim().holds
    assert story.claim().observed == "10.0.0.1, 10.0.0.2"
    story.check.addresses_are("as-planned", "as planned", {story.h1: second, story.h2: first})
    assert not story.claim().holds


@sandboxed
def test_equal() -> None:
    story = Story()
    story.check.equal("sum", "sums", expected=2, observed=lambda: 1 + 1)
    assert story.claim().holds
    story.check.equal("sum", "sums", expected=3, observed=1 + 1)
    assert (story.claim().holds, story.claim().expected, story.claim().observed) == (
        False,
        "3",
        "2",
    )

    def broken() -> None:
        raise XlabError("cannot be told")

    story.check.equal("sum", "sums", expected=3, observed=broken)
    assert (story.claim().holds, story.claim().observed) == (False, "cannot be told")


@sandboxed
def test_shows() -> None:
    story = Story()
    show: Callable[[str], None] = lambda pattern: story.check.shows(  # noqa: E731
        "up", "eth0 is up", node=story.h1, argv=["ip", "-brief", "link", "show", "eth0"],
        expected="UP", holds=pattern,
    )  # fmt: skip
    show(r"^eth0\S* +UP ")
    assert story.claim().holds
    assert story.claim().evidence.startswith("h1$ ip -brief link show eth0\neth0")
    show(r"DOWN")
    assert not story.claim().holds


@sandboxed
def test_names_of_containers_make_ids_fit_for_file_names() -> None:
    story = Story()
    story.h1.docker.start()
    story.check.reaches(story.h1.docker.run("c1"), story.h2)
    assert story.claim().id == "h1-c1-reaches-h2"


@sandboxed
def test_the_time_spent_checking_is_kept_apart() -> None:
    story = Story()
    assert story.check.spent_s == 0
    story.check.does_not_reach(story.h1, IPv4Address("203.0.113.1"))
    spent = story.check.spent_s
    assert spent > 0
    story.check.note("fact", "a fact", observed="7")
    assert story.claim().holds
    assert story.check.spent_s == spent


# -- the physical switch ---------------------------------------------------------------------------


@sandboxed
def test_a_port_that_admits_one_mac_only() -> None:
    story = Story()
    story.lab.limit_port_to_one_mac(story.h1)
    story.check.reaches(story.h1, story.h2)
    assert story.claim().holds
    genuine = story.h1.mac_address("eth0")
    with story.h1.rtnl.batch() as batch:
        batch.set_mac("eth0", "02:00:00:00:99:99")
    story.check.does_not_reach(story.h1, story.h2)
    assert story.claim().holds
    with story.h1.rtnl.batch() as batch:
        batch.set_mac("eth0", genuine)
    story.lab.admit_all_macs(story.h1)
    with story.h1.rtnl.batch() as batch:
        batch.set_mac("eth0", "02:00:00:00:99:99")
    story.check.reaches(story.h1, story.h2)
    assert story.claim().holds


# -- again -----------------------------------------------------------------------------------------


@sandboxed
def test_what_lasts_is_asked_again_and_nothing_else() -> None:
    story = Story()
    check, h1, h2 = story.check, story.h1, story.h2
    answers = iter([1, 1, 2, 2])
    check.stage("wired")
    check.reaches(h1, h2)
    check.equal("now", "it is one now", expected=1, observed=1)
    check.equal("later", "it is one whenever asked", expected=1, observed=lambda: next(answers))
    check.stage("for a moment", lasts=False)
    check.does_not_reach(h1, IPv4Address("203.0.113.1"))
    check.stage("in the end")
    check.all_reach_each_other([h1, h2], "hosts")
    wanted = [("wired", "h1-reaches-h2"), ("wired", "later"),
              ("in the end", "all-hosts-reach-each-other")]  # fmt: skip

    def again() -> list[Claim]:
        found: list[Claim] = []
        check.again(found.append)
        assert [(claim.stage, claim.id) for claim in found] == wanted
        return found

    assert [claim.holds for claim in again()] == [True, True, True]
    story.unplug(h2)
    for host in (h1, h2):
        host.rtnl.forget_neighbours()
    broken = again()
    assert [claim.holds for claim in broken] == [False, False, False]
    assert broken[1].observed == "2"
    # What cannot even be asked does not hold, and says why.
    h2.close()
    assert [claim.holds for claim in again()] == [False, False, False]


@sandboxed
def test_a_build_ends_where_the_stage_begins() -> None:
    story = Story()
    check = Checks(story.lab, story.told.append, until="second")
    check.stage("first")
    check.reaches(story.h1, story.h2)
    with pytest.raises(claims.StageReached, match="second"):
        check.stage("second")
    assert not issubclass(claims.StageReached, Exception)
    assert check.stages == ["first", "second"]
