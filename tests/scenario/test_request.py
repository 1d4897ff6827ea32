from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fuzzing import Refusal, attempt
from xlab.errors import UsageError
from xlab.scenario.request import Request, named_values, shared_out


def test_defaults_are_two_hosts_with_two_containers_and_no_conditions() -> None:
    request = Request("bridge")
    assert (request.hosts, request.containers, request.mtu) == (2, 2, 1500)
    assert (request.duration_s, request.repeat, request.quick) == (3.0, 3, False)
    assert request.rate_bits_per_second is None
    assert request.delay_ms is None
    assert request.loss_ratio is None
    assert request.settings == {}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("hosts", 1, "--hosts is 1; the range is 2 to 1,000"),
        ("hosts", 1001, "2 to 1,000"),
        ("containers", 0, "--containers is 0; the range is 1 to 1,000"),
        ("mtu", 575, "576 to 65,535"),
        ("mtu", 65536, "576 to 65,535"),
        ("rate_bits_per_second", 0.0, "8,000 to 1,000,000,000,000 bit/s"),
        ("rate_bits_per_second", math.nan, "--rate is nan"),
        ("delay_ms", -1.0, "0 to 10,000 ms"),
        ("delay_ms", math.inf, "--delay is inf"),
        ("loss_ratio", 1.0, "under 100 %"),
        ("loss_ratio", -0.1, "0 to under 1"),
        ("loss_ratio", math.nan, "--loss is nan"),
        ("duration_s", 0.5, "1 to 3,600 seconds"),
        ("repeat", 0, "1 to 1,000 rounds"),
    ],
)
def test_a_value_out_of_range_is_refused_and_the_range_is_said(
    field: str, value: Any, said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        Request("bridge", **{field: value})
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hosts", 2),
        ("hosts", 1000),
        ("mtu", 576),
        ("mtu", 65535),
        ("loss_ratio", 0.0),
        ("delay_ms", 0.0),
        ("duration_s", 1.0),
        ("repeat", 1),
    ],
)
def test_both_ends_of_a_range_belong_to_it(field: str, value: Any) -> None:
    assert getattr(Request("bridge", **{field: value}), field) == value


def test_jitter_cannot_exceed_the_delay_it_varies() -> None:
    assert Request("bridge", delay_ms=10.0, jitter_ms=10.0).jitter_ms == 10.0
    with pytest.raises(UsageError, match="the range is 0 to 10 ms, the delay"):
        Request("bridge", delay_ms=10.0, jitter_ms=10.5)
    with pytest.raises(UsageError, match="give --delay too"):
        Request("bridge", jitter_ms=1.0)


def test_names_are_needed() -> None:
    with pytest.raises(UsageError, match="no name"):
        Request("")
    with pytest.raises(UsageError, match="--topo is empty"):
        Request("bridge", topo="")
    with pytest.raises(UsageError, match="name is missing"):
        Request("bridge", settings={"": "underlay"})


def test_the_same_run_of_another_scenario_changes_nothing_else() -> None:
    request = Request("all", hosts=4, delay_ms=5.0, settings={"routes": "underlay", "x": "1"})
    other = request.for_scenario("ovs-gre", {"routes": "underlay"})
    assert other == Request("ovs-gre", hosts=4, delay_ms=5.0, settings={"routes": "underlay"})


def test_settings_go_to_those_that_have_them_and_each_must_have_a_taker() -> None:
    known = {"bridge": ["docker"], "weave": ["datapath", "docker"], "baseline": []}
    assert shared_out({"docker": "28", "datapath": "fastdp"}, known) == {
        "bridge": {"docker": "28"},
        "weave": {"docker": "28", "datapath": "fastdp"},
        "baseline": {},
    }
    with pytest.raises(UsageError, match="--set colour: no scenario has an option"):
        shared_out({"colour": "red"}, known)


@pytest.mark.parametrize(
    ("said", "refusal"),
    [
        (["a"], "--set: 'a' is no NAME=VALUE"),
        (["=a"], "--set: '=a' is no NAME=VALUE"),
        (["a=1", "a=1"], "--set: a is given twice"),
    ],
)
def test_what_is_no_named_value(said: list[str], refusal: str) -> None:
    with pytest.raises(UsageError, match=refusal):
        named_values(said, "--set")
    assert named_values(["a=1=2", "b="], "--set") == {"a": "1=2", "b": ""}


NUMBERS = st.floats() | st.integers() | st.sampled_from([10**400, -(10**400), 0, 2, 1e-320])
FIELDS = {
    "hosts": NUMBERS,
    "containers": NUMBERS,
    "mtu": NUMBERS,
    "rate_bits_per_second": NUMBERS,
    "delay_ms": NUMBERS,
    "jitter_ms": NUMBERS,
    "loss_ratio": NUMBERS,
    "duration_s": NUMBERS,
    "repeat": NUMBERS,
    "topo": st.text(max_size=5),
    "settings": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
}


@given(st.fixed_dictionaries({"scenario": st.text(max_size=5)}, optional=FIELDS))
@example({"scenario": "bridge", "hosts": 10**400})
@example({"scenario": "bridge", "loss_ratio": -(10**400)})
def test_any_values_make_a_request_that_makes_sense_or_are_refused(fields: dict[str, Any]) -> None:
    request = attempt(lambda: Request(**fields), UsageError)
    if isinstance(request, Refusal):
        return
    assert 2 <= request.hosts <= 1000
    assert 576 <= request.mtu <= 65535
    for ratio in (request.delay_ms, request.jitter_ms, request.loss_ratio):
        assert ratio is None or (ratio >= 0 and math.isfinite(ratio))
    assert (request.jitter_ms or 0) <= (request.delay_ms or 0)
    assert (request.loss_ratio or 0) < 1
    assert request.scenario
    assert "" not in request.settings
