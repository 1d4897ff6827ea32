"""Link conditions: what is written, and what makes no sense."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fuzzing import Refusal, attempt
from xlab.errors import UsageError
from xlab.lab import conditions
from xlab.lab.conditions import LinkConditions

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
