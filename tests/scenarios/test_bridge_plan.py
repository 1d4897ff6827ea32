"""How the bridge scenario divides its subnet, for any number of hosts and containers."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xlab.errors import UsageError
from xlab.scenario import catalog
from xlab.scenario.scenario import Size, load

BRIDGE = load(catalog.find("bridge"))
DEFAULTS = BRIDGE.settings({})

#: What a request lets through.
hosts_counts = st.integers(2, 1000)
container_counts = st.integers(1, 1000)


def divided(hosts: int, containers: int) -> tuple[IPv4Network, list[IPv4Network]]:
    plan: Any = BRIDGE.plan(Size(hosts, containers), DEFAULTS)
    return plan.subnet, [IPv4Network(text) for text in plan.ranges]


def test_two_hosts_have_the_notes_ranges() -> None:
    subnet, ranges = divided(2, 2)
    assert subnet == IPv4Network("10.211.55.0/24")
    assert ranges == [IPv4Network("10.211.55.64/26"), IPv4Network("10.211.55.128/26")]


def test_eight_hosts_with_four_containers_fit_into_the_notes_subnet() -> None:
    subnet, ranges = divided(8, 4)
    assert subnet == IPv4Network("10.211.55.0/24")
    assert len(ranges) == 8
    assert ranges[0] == IPv4Network("10.211.55.16/28")


def test_more_take_a_larger_subnet_around_the_notes_one() -> None:
    subnet, ranges = divided(100, 4)
    assert subnet == IPv4Network("10.211.52.0/22")
    assert all(block.num_addresses >= 4 for block in ranges)


def can_fit(hosts: int, containers: int, prefix: int) -> bool:
    """Whether ranges, each a power of two of addresses, fit behind gateway and hosts."""
    size, block = 1 << (32 - prefix), 1 << max(1, (containers - 1).bit_length())
    blocks = -(-(3 + hosts) // block) + hosts
    # The very last address is the subnet's broadcast: a full range cannot end there.
    return blocks * block < size or (blocks * block == size and containers < block)


@given(hosts_counts, container_counts)
@example(2, 64)
@example(1000, 32)
@example(2, 1000)
def test_any_size_is_divided_soundly_or_refused(hosts: int, containers: int) -> None:
    try:
        subnet, ranges = divided(hosts, containers)
    except UsageError:
        assert not can_fit(hosts, containers, 16)
        return
    assert IPv4Address("10.211.55.3") in subnet
    assert len(ranges) == hosts
    # Each has room for its host's containers beside the address that is nobody's.
    for block in ranges:
        assert block.subnet_of(subnet)
        nobodys = subnet.broadcast_address in block
        assert block.num_addresses - nobodys >= containers
    # They overlap neither with each other nor with gateway and hosts.
    for first, second in pairwise(ranges):
        assert first.broadcast_address < second.network_address
    assert subnet[3 + hosts - 1] < ranges[0].network_address


@given(hosts_counts, container_counts)
def test_the_subnet_is_the_smallest_that_holds_them(hosts: int, containers: int) -> None:
    try:
        subnet, _ = divided(hosts, containers)
    except UsageError:
        return
    # One address more than there are containers is wanted, so that one can come before one goes.
    assert subnet.prefixlen == 24 or not can_fit(hosts, containers + 1, subnet.prefixlen + 1)


@pytest.mark.parametrize(("hosts", "containers"), [(1000, 65), (300, 256), (66, 1000)])
def test_what_cannot_fit_is_refused_before_anything_is_built(hosts: int, containers: int) -> None:
    with pytest.raises(UsageError) as met:
        divided(hosts, containers)
    assert f"{hosts:,} hosts with {containers:,} containers each do not fit into a /16" in str(
        met.value
    )


# -- the options -----------------------------------------------------------------------------------


def test_fixed_cidr_left_out() -> None:
    plan: Any = BRIDGE.plan(Size(3, 2), BRIDGE.settings({"fixed-cidr": "none"}))
    assert plan.ranges == (None, None, None)


def test_fixed_cidr_as_the_notes_have_it() -> None:
    plan: Any = BRIDGE.plan(Size(2, 2), BRIDGE.settings({"fixed-cidr": "notes"}))
    assert plan.ranges == ("10.211.55.64/26", "192.168.59.128/26")


@pytest.mark.parametrize("size", [Size(3, 2), Size(2, 200)])
def test_the_notes_have_ranges_for_two_hosts_only(size: Size) -> None:
    with pytest.raises(UsageError, match="the notes give ranges for two hosts"):
        BRIDGE.plan(size, BRIDGE.settings({"fixed-cidr": "notes"}))
