"""Link conditions: what is written, which backend, what the tools are given."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzzing import Refusal, attempt
from xlab.errors import CapabilityError, UsageError
from xlab.kernel.capabilities import Capability, Machine, State
from xlab.lab import conditions
from xlab.lab.conditions import Backend, LinkConditions

# -- text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "delay_ms"),
    [
        ("10ms", 10), ("1s", 1000), ("500us", 0.5), ("1.5 sec", 1500), (".25ms", 0.25),
        ("250 usecs", 0.25), ("1000ns", 0.001), (" 2MS ", 2), ("0ms", 0),
    ],
)  # fmt: skip
def test_delays_as_tc_writes_them(text: str, delay_ms: float) -> None:
    assert conditions.parse_delay(text) == pytest.approx(delay_ms)


@pytest.mark.parametrize("text", ["10", "", "ms", "-1ms", "10 m", "1e3ms", "10ms 5ms", "nanms"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="is not a time: write 10ms"):
        conditions.parse_delay(text)


def test_a_delay_out_of_range_says_the_range() -> None:
    with pytest.raises(UsageError, match=r"0 to 10,000 ms"):
        conditions.parse_delay("11s")


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100mbit", 100e6), ("1gbit", 1e9), ("1.5 Gbit/s", 1.5e9), ("64kbit", 64e3),
        ("9600bit", 9600), ("10Mbitps", 10e6), ("1tbit", 1e12),
    ],
)  # fmt: skip
def test_rates(text: str, rate: float) -> None:
    assert conditions.parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["100", "10mbps", "10MB/s", "mbit", "-1mbit", "1mibit", ""])
def test_a_rate_whose_unit_could_mean_bytes_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a rate: write 10mbit"):
        conditions.parse_rate(text)


def test_a_rate_out_of_range_says_the_range() -> None:
    with pytest.raises(UsageError, match=r"8,000 to 1,000,000,000,000 bit/s"):
        conditions.parse_rate("1kbit")


@pytest.mark.parametrize(
    ("text", "ratio"), [("1%", 0.01), ("0.01", 0.01), ("0.5 %", 0.005), ("0", 0), ("99.9%", 0.999)]
)
def test_losses(text: str, ratio: float) -> None:
    assert conditions.parse_loss(text) == pytest.approx(ratio)


@pytest.mark.parametrize("text", ["1", "2", "100%", "150%"])
def test_a_loss_that_could_mean_either_or_all_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="0% to under 100%"):
        conditions.parse_loss(text)


@pytest.mark.parametrize("text", ["", "%", "-1%", "one"])
def test_what_is_no_loss_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a loss"):
        conditions.parse_loss(text)


# -- conditions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"rate_bits_per_second": 0.0},
        {"rate_bits_per_second": 1e13},
        {"delay_ms": -1.0},
        {"delay_ms": math.nan},
        {"jitter_ms": 1.0},
        {"delay_ms": 1.0, "jitter_ms": 2.0},
        {"loss_ratio": 1.01},
        {"max_queue_packets": 0},
    ],
)
def test_values_that_make_no_sense_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="the range is"):
        LinkConditions(**fields)  # type: ignore[arg-type]


def test_a_mininet_link() -> None:
    options = {
        "bw": 10, "delay": "5ms", "jitter": "1ms", "loss": 2, "max_queue_size": 500,
        "use_htb": True, "speedup": 0,
    }  # fmt: skip
    assert conditions.from_mininet(options) == LinkConditions(10e6, 5.0, 1.0, 0.02, 500)


def test_a_mininet_link_without_conditions_is_false() -> None:
    assert not conditions.from_mininet({"port1": 1, "use_htb": True})
    assert not LinkConditions(delay_ms=0.0, loss_ratio=0.0, max_queue_packets=9)
    assert LinkConditions(loss_ratio=0.01)


def test_a_bare_number_of_mininets_is_tcs_microseconds() -> None:
    assert conditions.from_mininet({"delay": 1500}).delay_ms == pytest.approx(1.5)
    assert conditions.from_mininet({"delay": "1500"}).delay_ms == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bw": "fast"}, "s1 - h1: bw is 'fast', which is not a number"),
        ({"bw": 0}, "s1 - h1: rate is 0; the range is 8,000"),
        ({"loss": 101}, "s1 - h1: loss is 1.01; the range is 0 to 1"),
        ({"delay": "10 apples"}, "s1 - h1: '10 apples' is not a time"),
        ({"jitter": "1ms"}, "s1 - h1: jitter is 1; the range is 0 to 0 ms, the delay"),
        ({"loss": [1]}, "not a number"),
    ],
)
def test_a_mininet_link_that_makes_no_sense_is_named(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        conditions.from_mininet(options, "s1 - h1")
    assert message in str(caught.value)


def test_the_command_line_overrides_the_topology_field_by_field() -> None:
    topo = LinkConditions(rate_bits_per_second=1e7, delay_ms=10.0, jitter_ms=5.0, loss_ratio=0.01)
    faster = topo.overridden_by(LinkConditions(rate_bits_per_second=1e9))
    assert faster == LinkConditions(1e9, 10.0, 5.0, 0.01)
    assert topo.overridden_by(LinkConditions()) == topo
    assert topo.overridden_by(LinkConditions(loss_ratio=0.0)).loss_ratio == 0


def test_a_delay_of_the_command_line_comes_with_its_own_jitter() -> None:
    topo = LinkConditions(delay_ms=10.0, jitter_ms=5.0)
    assert topo.overridden_by(LinkConditions(delay_ms=2.0)) == LinkConditions(delay_ms=2.0)
    given_both = LinkConditions(delay_ms=2.0, jitter_ms=1.0)
    assert topo.overridden_by(given_both) == given_both


# -- backends --------------------------------------------------------------------------------------


def machine(*, netem: State, tbf: State = State.YES, packets: State = State.YES) -> Machine:
    """As much of a Machine as the choice looks at."""

    def capability(name: str, state: State, remedy: str = "") -> Capability:
        detail = "is live" if state is State.YES else "is not loaded"
        return Capability(name, state, f"module {name} {detail}", "", remedy)

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
    ("netem", "tbf", "asked", "backend"),
    [
        (State.YES, State.YES, ALL, Backend.NETEM),
        (State.YES, State.YES, RATE, Backend.NETEM),
        (State.LOADABLE, State.YES, RATE, Backend.TBF),
        (State.NO, State.YES, RATE, Backend.TBF),
        (State.NO, State.LOADABLE, RATE, Backend.DELAY_LINE),
        (State.LOADABLE, State.YES, DELAY, Backend.DELAY_LINE),
        (State.NO, State.YES, LOSS, Backend.DELAY_LINE),
        (State.NO, State.YES, ALL, Backend.DELAY_LINE),
        (State.YES, State.YES, LinkConditions(), Backend.NONE),
        (State.NO, State.NO, LinkConditions(max_queue_packets=5), Backend.NONE),
    ],
)
def test_which_backend_imposes_what(
    netem: State, tbf: State, asked: LinkConditions, backend: Backend
) -> None:
    assert conditions.choose_backend(asked, machine(netem=netem, tbf=tbf)) is backend


def test_conditions_that_nothing_can_impose_are_never_ignored() -> None:
    bare = machine(netem=State.LOADABLE, packets=State.NO)
    with pytest.raises(CapabilityError) as caught:
        conditions.choose_backend(DELAY, bare)
    assert caught.value.exit_status == 3
    assert caught.value.remedy == "sudo modprobe sch_netem"
    assert "sch_netem is not loaded" in str(caught.value)


def test_a_fallback_is_told_with_the_way_out_of_it() -> None:
    loadable = machine(netem=State.LOADABLE)
    told = conditions.fallback(Backend.DELAY_LINE, loadable)
    assert "delay line" in told
    assert "`sudo modprobe sch_netem`" in told
    assert conditions.fallback(Backend.NETEM, machine(netem=State.YES)) == ""
    assert conditions.fallback(Backend.NONE, loadable) == ""


# -- what the tools are given ----------------------------------------------------------------------


def test_netem_takes_all_conditions_at_once() -> None:
    # Under way: 12 ms of 100 Mbit/s, 150,000 bytes.  Waiting: 50 ms, 625,000.  A frame: 1,518.
    assert conditions.netem_arguments(ALL, mtu=1500) == (
        "netem limit 511 delay 10000us 2000us loss random 1% rate 100000000bit"
    )


def test_netem_gets_a_rate_beside_jitter_because_that_keeps_the_order() -> None:
    jittery = LinkConditions(delay_ms=0.5, jitter_ms=0.1)
    assert conditions.netem_arguments(jittery, mtu=1500).endswith(
        "delay 500us 100us rate 1000000000000bit"
    )
    assert "rate" not in conditions.netem_arguments(DELAY, mtu=1500)


def test_small_losses_are_not_rounded_away() -> None:
    rare = LinkConditions(loss_ratio=0.000015)
    assert "loss random 0.0015%" in conditions.netem_arguments(rare, mtu=1500)


def test_the_token_bucket_at_both_ends_of_its_range() -> None:
    slow = conditions.tbf_arguments(LinkConditions(rate_bits_per_second=1e6), mtu=1500)
    fast = conditions.tbf_arguments(LinkConditions(rate_bits_per_second=1e10), mtu=1500)
    # Two frames; 100 frames of queue.  Then a millisecond; 50 ms of queue.
    assert slow == "tbf rate 1000000bit burst 3036b limit 154836b"
    assert fast == "tbf rate 10000000000bit burst 1250000b limit 63750000b"


@given(rate=st.floats(1e6, 1e10), mtu=st.integers(576, 65535))
def test_a_token_bucket_never_drops_for_size_what_the_link_carries(rate: float, mtu: int) -> None:
    words = conditions.tbf_arguments(LinkConditions(rate_bits_per_second=rate), mtu=mtu).split()
    burst = int(words[words.index("burst") + 1].removesuffix("b"))
    limit = int(words[words.index("limit") + 1].removesuffix("b"))
    assert burst >= mtu + 18
    assert limit >= burst + 100 * (mtu + 18)


def test_the_queue_for_a_rate() -> None:
    slow = LinkConditions(rate_bits_per_second=1e6)
    assert conditions.queue_bytes(slow, mtu=1500) == 100 * 1518
    long = LinkConditions(rate_bits_per_second=1e9, delay_ms=100.0)
    assert conditions.queue_bytes(long, mtu=1500) == pytest.approx(1e9 / 8 * 0.4)
    told = dataclasses.replace(long, max_queue_packets=10)
    assert conditions.queue_bytes(told, mtu=1500) == 10 * 1518


def test_the_delay_line_is_given_what_was_asked_for_and_nothing_else() -> None:
    def options(asked: LinkConditions) -> list[str]:
        argv = conditions.delay_line_argv("a", "b", asked, mtu=1500)
        assert argv[1:3] == ["-I", "-S"]
        assert argv[4:8] == ["a", "b", "--frame-bytes", "1518"]
        return argv[8:]

    assert options(DELAY) == ["--delay-ms", "10"]
    assert options(RATE) == ["--rate-bits-per-second", "100000000", "--queue-bytes", "625000"]
    assert options(LOSS) == ["--loss-ratio", "0.01"]


@pytest.mark.parametrize(
    ("uplink", "port"), [("s1-eth1", "s1-eth1p"), ("s10000-eth1023", "s10000-eth1023p")]
)
def test_a_joint_is_named_after_its_uplink(uplink: str, port: str) -> None:
    assert conditions._Names(uplink).port == port


def test_long_names_get_short_ones_that_differ() -> None:
    names = [conditions._Names(f"switch-eth{number}") for number in (1000, 1001, 10000)]
    interfaces = {n for joint in names for n in (joint.port, joint.inner, joint.joint)}
    assert len(interfaces) == 9
    assert all(len(name) <= 15 for name in interfaces)


# -- whatever is written ---------------------------------------------------------------------------


def digits(number: float) -> str:
    """As people write it: no exponent."""
    return f"{number:.9f}".rstrip("0").rstrip(".")


@given(st.floats(0, 10), st.sampled_from([("s", 1e3), ("ms", 1), ("us", 1e-3), ("nsecs", 1e-6)]))
def test_a_time_in_any_unit_comes_back(number: float, unit: tuple[str, float]) -> None:
    name, ms = unit
    assert conditions.parse_delay(f"{digits(number)}{name}") == pytest.approx(
        float(digits(number)) * ms
    )


@given(st.floats(1, 990), st.sampled_from([("k", 1e3), ("m", 1e6), ("g", 1e9)]))
def test_a_rate_in_any_unit_comes_back(number: float, unit: tuple[str, float]) -> None:
    name, factor = unit
    text = f" {digits(number + 8)} {name.upper()}bit/s"
    assert conditions.parse_rate(text) == pytest.approx(float(digits(number + 8)) * factor)


@given(st.floats(0, 0.999))
def test_a_loss_is_the_same_as_a_share_and_as_a_ratio(ratio: float) -> None:
    ratio = float(digits(ratio))
    assert conditions.parse_loss(digits(ratio)) == ratio
    assert conditions.parse_loss(f"{digits(ratio * 100)}%") == pytest.approx(ratio, abs=1e-10)


TEXTS = st.text(max_size=20) | st.from_regex(
    r"\s*[0-9]{0,20}\.?[0-9]*\s?(m?s|[km]bit|%)?", fullmatch=True
)


@given(
    st.sampled_from([conditions.parse_delay, conditions.parse_rate, conditions.parse_loss]), TEXTS
)
@example(conditions.parse_rate, "9" * 400 + "bit")
@example(conditions.parse_loss, "9" * 400)
@example(conditions.parse_delay, "\u0661ms")
def test_any_text_is_a_condition_in_its_range_or_refused(
    parse: Callable[[str], float], text: str
) -> None:
    value = attempt(lambda: parse(text), UsageError)
    assert isinstance(value, Refusal) or 0 <= value <= 1e12


ODD = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["5ms", "10", 5, 1e300, 10**400, "inf", b"5"])
    | st.lists(st.integers(), max_size=2)
)


@given(
    st.dictionaries(
        st.sampled_from(["bw", "delay", "jitter", "loss", "max_queue_size", "use_htb"]), ODD
    )
)
@example({"max_queue_size": math.nan})
@example({"max_queue_size": "inf"})
@example({"bw": 10**400})
def test_any_options_of_a_mininet_link_are_conditions_or_refused_with_its_name(
    options: dict[str, Any],
) -> None:
    found = attempt(lambda: conditions.from_mininet(options, "the link s1 - h1"), UsageError)
    if isinstance(found, Refusal):
        assert found.startswith("the link s1 - h1: ")
        return
    for value in dataclasses.astuple(found):
        assert value is None or 0 <= value <= 1e12
