"""What may be asked for, and in which order it is measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlab.errors import UsageError
from xlab.probes.catalog import (
    ALL,
    DISTURBING,
    OF_ANOTHER_LAB,
    OF_LAB,
    ONCE_A_BUILD,
    USUAL,
    beyond_usual,
)
from xlab.scenario.request import Request


def test_probes_are_asked_for_one_by_one_or_all_at_once() -> None:
    assert beyond_usual([]) == ()
    assert beyond_usual(["memory", "rtt", "loaded-rtt", "memory"]) == ("loaded-rtt", "memory")
    assert beyond_usual(["all"]) == tuple(ALL)[len(USUAL) :]
    assert tuple(ALL)[: len(USUAL)] == USUAL == ("rtt", "rr", "tcp", "tcp-parallel", "udp")
    # What builds another lab, then what is of this one; what breaks something comes last.
    assert tuple(ALL)[-4:] == (*OF_ANOTHER_LAB, *OF_LAB)
    assert tuple(ALL)[-len(DISTURBING) :] == DISTURBING == ("recovery",)
    assert ONCE_A_BUILD == ("first-packet", "recovery")


def test_a_wrong_name_lists_the_right_ones() -> None:
    with pytest.raises(UsageError) as caught:
        beyond_usual(["loaded-rtt", "load"])
    assert str(caught.value).startswith("--probe load: no such probe; there are rtt, rr, tcp,")
    assert all(name in str(caught.value) for name in ALL)


@given(st.lists(st.sampled_from([*ALL, "all"])))
def test_what_was_asked_for_stays_so(asked: list[str]) -> None:
    once = beyond_usual(asked)
    assert beyond_usual(once) == once
    assert Request("bridge", probes=once).for_scenario("weave", {}).probes == once
