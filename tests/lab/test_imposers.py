"""Which thing imposes conditions, and what the tools are given."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlab.errors import CapabilityError
from xlab.kernel.capabilities import Capability, Machine
from xlab.kernel.drivers import State
from xlab.lab.conditions import LinkConditions
from xlab.lab.imposers import delay_line, netem, tbf
from xlab.lab.imposers.chooser import choose
from xlab.lab.imposers.joint import Joint, queue_bytes

if TYPE_CHECKING:
    from xlab.lab.node import Node

# -- which of them ---------------------------------------------------------------------------------


def machine(*, netem: State, tbf: State = State.YES, packets: State = State.YES) -> Machine:
    """As much of a Machine as the choice looks at."""

    def capability(name: str, state: State, remedy: str = "") -> Capability:
        detail = "is live" if state is State.YES else "is not loaded"
        return Capability(name, state, f"module {name} {detail}", remedy)

    parts = SimpleNamespace(
        netem=capability(
            "sch_netem", netem, "sudo modprobe sch_netem" if netem is State.LOADABLE else ""
        ),
        tbf=capability("sch_tbf", tbf),
        packet_sockets=capability("af_packet", packets),
    )
    return cast(Machine, parts)


RATE = LinkConditions(rate_bits_per_second=1e8)
DELAY = LinkConditions(delay_ms=10.0)
LOSS = LinkConditions(loss_ratio=0.01)
ALL = LinkConditions(1e8, 10.0, 2.0, 0.01)


@pytest.mark.parametrize(
    ("netem", "tbf", "asked", "imposer"),
    [
        (State.YES, State.YES, ALL, "netem"),
        (State.YES, State.YES, RATE, "netem"),
        (State.LOADABLE, State.YES, RATE, "tbf"),
        (State.NO, State.YES, RATE, "tbf"),
        (State.NO, State.LOADABLE, RATE, "delay-line"),
        (State.LOADABLE, State.YES, DELAY, "delay-line"),
        (State.NO, State.YES, LOSS, "delay-line"),
        (State.NO, State.YES, ALL, "delay-line"),
    ],
)
def test_which_imposes_what(netem: State, tbf: State, asked: LinkConditions, imposer: str) -> None:
    assert str(choose(asked, machine(netem=netem, tbf=tbf))) == imposer


def test_conditions_that_nothing_can_impose_are_never_ignored() -> None:
    bare = machine(netem=State.LOADABLE, packets=State.NO)
    with pytest.raises(CapabilityError) as caught:
        choose(DELAY, bare)
    assert caught.value.exit_status == 3
    assert caught.value.remedy == "sudo modprobe sch_netem"
    assert "sch_netem is not loaded" in str(caught.value)


def test_a_fallback_is_told_with_the_way_out_of_it() -> None:
    loadable = machine(netem=State.LOADABLE)
    told = delay_line.IMPOSER.fallback(loadable)
    assert "delay line" in told
    assert "`sudo modprobe sch_netem`" in told
    assert netem.IMPOSER.fallback(machine(netem=State.YES)) == ""


# -- what the tools are given ----------------------------------------------------------------------


def test_netem_takes_all_conditions_at_once() -> None:
    # Under way: 12 ms of 100 Mbit/s, 150,000 bytes.  Waiting: 50 ms, 625,000.  A frame: 1,518.
    assert netem.IMPOSER.arguments(ALL, mtu=1500) == (
        "netem limit 511 delay 10000us 2000us loss random 1% rate 100000000bit"
    )


def test_netem_gets_a_rate_beside_jitter_because_that_keeps_the_order() -> None:
    jittery = LinkConditions(delay_ms=0.5, jitter_ms=0.1)
    assert netem.IMPOSER.arguments(jittery, mtu=1500).endswith(
        "delay 500us 100us rate 1000000000000bit"
    )
    assert "rate" not in netem.IMPOSER.arguments(DELAY, mtu=1500)


def test_small_losses_are_not_rounded_away() -> None:
    rare = LinkConditions(loss_ratio=0.000015)
    assert "loss random 0.0015%" in netem.IMPOSER.arguments(rare, mtu=1500)


def test_the_token_bucket_at_both_ends_of_its_range() -> None:
    slow = tbf.IMPOSER.arguments(LinkConditions(rate_bits_per_second=1e6), mtu=1500)
    fast = tbf.IMPOSER.arguments(LinkConditions(rate_bits_per_second=1e10), mtu=1500)
    # Two frames; 100 frames of queue.  Then a millisecond; 50 ms of queue.
    assert slow == "tbf rate 1000000bit burst 3036b limit 154836b"
    assert fast == "tbf rate 10000000000bit burst 1250000b limit 63750000b"


@given(rate=st.floats(1e6, 1e10), mtu=st.integers(576, 65535))
def test_a_token_bucket_never_drops_for_size_what_the_link_carries(rate: float, mtu: int) -> None:
    words = tbf.IMPOSER.arguments(LinkConditions(rate_bits_per_second=rate), mtu=mtu).split()
    burst = int(words[words.index("burst") + 1].removesuffix("b"))
    limit = int(words[words.index("limit") + 1].removesuffix("b"))
    assert burst >= mtu + 18
    assert limit >= burst + 100 * (mtu + 18)


def test_the_queue_for_a_rate() -> None:
    slow = LinkConditions(rate_bits_per_second=1e6)
    assert queue_bytes(slow, mtu=1500) == 100 * 1518
    long = LinkConditions(rate_bits_per_second=1e9, delay_ms=100.0)
    assert queue_bytes(long, mtu=1500) == pytest.approx(1e9 / 8 * 0.4)
    told = dataclasses.replace(long, max_queue_packets=10)
    assert queue_bytes(told, mtu=1500) == 10 * 1518


def test_the_delay_line_is_given_what_was_asked_for_and_nothing_else() -> None:
    def options(asked: LinkConditions) -> list[str]:
        argv = delay_line.argv_of("a", "b", asked, mtu=1500)
        assert argv[1:3] == ["-I", "-S"]
        assert argv[4:8] == ["a", "b", "--frame-bytes", "1518"]
        return argv[8:]

    assert options(DELAY) == ["--delay-ms", "10"]
    assert options(RATE) == ["--rate-bits-per-second", "100000000", "--queue-bytes", "625000"]
    assert options(LOSS) == ["--loss-ratio", "0.01"]


def joint(uplink: str) -> Joint:
    return Joint(cast("Node", None), uplink, DELAY, DELAY)


@pytest.mark.parametrize(
    ("uplink", "port"), [("s1-eth1", "s1-eth1p"), ("s10000-eth1023", "s10000-eth1023p")]
)
def test_a_joint_is_named_after_its_uplink(uplink: str, port: str) -> None:
    assert joint(uplink).port == port


def test_long_names_get_short_ones_that_differ() -> None:
    names = [joint(f"switch-eth{number}") for number in (1000, 1001, 10000)]
    interfaces = {n for each in names for n in (each.port, each.inner, each.bridge)}
    assert len(interfaces) == 9
    assert all(len(name) <= 15 for name in interfaces)
