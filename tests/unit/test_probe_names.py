"""The names of probes: what may be asked for, and that each does something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlab import probes
from xlab.errors import UsageError
from xlab.scenario import probe_names
from xlab.scenario.probe_names import (
    ALL,
    BETWEEN_TWO,
    DISTURBING,
    OF_ANOTHER_LAB,
    OF_LAB,
    USUAL,
    beyond_usual,
)
from xlab.scenario.request import Request


def test_probes_are_asked_for_one_by_one_or_all_at_once() -> None:
    assert beyond_usual([]) == ()
    assert beyond_usual(["memory", "rtt", "loaded-rtt", "memory"]) == ("loaded-rtt", "memory")
    # What breaks something comes last.
    assert beyond_usual(["all"]) == (*BETWEEN_TWO, *OF_ANOTHER_LAB, *OF_LAB)
    assert tuple(ALL)[-len(DISTURBING) :] == DISTURBING
    assert set(beyond_usual(["all"])) | set(USUAL) == set(ALL)


def test_a_wrong_name_lists_the_right_ones() -> None:
    with pytest.raises(UsageError) as caught:
        Request("bridge", probes=("loaded-rtt", "load"))
    assert str(caught.value).startswith("--probe load: no such probe; there are rtt, rr, tcp,")
    assert all(name in str(caught.value) for name in ALL)


@given(st.lists(st.sampled_from([*ALL, "all"])))
def test_what_was_asked_for_stays_so(asked: list[str]) -> None:
    request = Request("bridge", probes=tuple(asked))
    assert request.for_scenario("weave", {}).probes == request.probes == beyond_usual(asked)
    assert beyond_usual(request.probes) == request.probes


def test_every_name_is_a_probe_and_every_probe_has_a_name() -> None:
    assert {"tcp", "udp", *probes._BETWEEN_TWO} == {*USUAL, *BETWEEN_TWO}
    assert tuple(USUAL) == probes.PROBES
    assert all(probe_names.ALL.values())
