"""What links in a row should come to, and what is made of values that do not fit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from xlab.errors import CapabilityError
from xlab.lab.conditions import LinkConditions
from xlab.probes.link_conditions import Expected, doubts, expect, measure

LOSS = LinkConditions(loss_ratio=0.01)
ALL = LinkConditions(1e8, 10.0, 2.0, 0.01)


def test_links_in_a_row_add_their_delays_and_compound_their_losses() -> None:
    expected = expect([ALL, LinkConditions(delay_ms=5.0), LinkConditions(1e6)])
    assert expected.rtt_ms[0] == pytest.approx(2 * (15 - 2))
    assert expected.rtt_ms[1] == pytest.approx(2 * (15 + 2 + 0.784 + 0.00784))
    assert expected.loss_ratio == pytest.approx(0.01)
    assert expected.rate_bits_per_second == 1e6
    assert expect([LOSS, LOSS]).loss_ratio == pytest.approx(0.0199)


EXPECTED = Expected(rtt_ms=(36.0, 44.0), loss_ratio=0.0199, rate_bits_per_second=1e8)


def test_plausible_values_raise_no_doubt() -> None:
    values = {"rtt_ms": 40.6, "loss_ratio": 0.025, "rate_bits_per_second": 9.8e7}
    assert doubts(values, EXPECTED, pings=250) == ()


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ({"rtt_ms": 0.05}, "round trip takes 0.05 ms"),
        ({"rtt_ms": 90.0}, "round trip takes 90.00 ms"),
        ({"loss_ratio": 0.0}, "0.00% of packets are lost one way, not 1.99%"),
        ({"loss_ratio": 0.2}, "20.00% of packets"),
        ({"rate_bits_per_second": 9.4e8}, "above 100"),
        ({"rate_bits_per_second": 3e7}, "reaches 30 of 100 Mbit/s"),
    ],
)
def test_values_that_do_not_fit_are_doubted(value: dict[str, float], word: str) -> None:
    (doubt,) = doubts(value, EXPECTED, pings=2500)
    assert word in doubt


def test_a_tool_that_is_not_installed_is_no_doubt() -> None:
    def start(*_: object) -> None:
        raise CapabilityError("`iperf3` is not installed")

    node: Any = SimpleNamespace(name="h1", address="10.0.0.1", start=start)
    with pytest.raises(CapabilityError, match="iperf3"):
        measure(node, node, [LinkConditions(rate_bits_per_second=1e7)])
