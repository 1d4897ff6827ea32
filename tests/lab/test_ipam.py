"""The allocator against what the real dockerd did (tests/data/docker-ipam.json), case by case."""

from __future__ import annotations

import heapq
import json
import random
import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fuzzing import Refusal, attempt
from xlab.errors import DockerError
from xlab.lab import ipam
from xlab.lab.ipam import BridgePool

MEASURED: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "docker-ipam.json").read_text(encoding="utf-8")
)
NETWORK_ID = "5d" * 32
BRIDGE = IPv4Interface("10.211.55.3/24")


def name_of(case: dict[str, Any]) -> str:
    return " ".join(str(case.get(key)) for key in ("br0", "fixed", "default_gateway"))


def pool_of(case: dict[str, Any], version: ipam.Version = 26) -> BridgePool:
    return BridgePool(
        IPv4Interface(case["br0"]) if case["br0"] else None,
        fixed_cidr=case["fixed"],
        default_gateway=case.get("default_gateway"),
        version=version,
    )


def allocate(pool: BridgePool) -> str | None:
    """The next address, or None for exhausted, as the measured sequences have it."""
    try:
        return str(pool.allocate(NETWORK_ID))
    except DockerError:
        return None


def test_the_measured_cases_are_all_there() -> None:
    assert len(MEASURED["cases"]) == 19


@pytest.mark.parametrize("case", MEASURED["cases"], ids=name_of)
def test_hands_out_what_dockerd_handed_out(case: dict[str, Any]) -> None:
    pool = pool_of(case)
    assert [allocate(pool) for _ in case["seq"]] == case["seq"]
    assert str(pool.gateway) == case["gw"]
    assert pool.subnet.prefixlen == case["plen"]
    assert str(pool.bridge_address) == case.get("br0_after", case["br0"])


@pytest.mark.parametrize("case", MEASURED["cases"], ids=name_of)
def test_version_28_drops_a_range_that_does_not_fit(case: dict[str, Any]) -> None:
    pool = pool_of(case, version=28)
    dropped = case["fixed"] in ("10.211.56.64/26", "10.211.0.0/16")
    expected = ["10.211.55.1", "10.211.55.2"] if dropped else case["seq"]
    assert [allocate(pool) for _ in expected] == expected


def test_release_frees_the_lowest_first_as_the_measured_script_has_it() -> None:
    """The steps of `release.script`, in its order and with its results."""
    assert MEASURED["release"]["script"].startswith("run a1..a4=.64-.67; stop a2; run n1=.65;")
    pool = BridgePool(BRIDGE, fixed_cidr="10.211.55.64/26")
    held: dict[str, IPv4Address] = {}

    def run(name: str, last_octet: int) -> None:
        held[name] = pool.allocate(NETWORK_ID)
        assert str(held[name]) == f"10.211.55.{last_octet}", name

    def stop(name: str) -> None:
        pool.release(held.pop(name))

    for number in range(1, 5):
        run(f"a{number}", 63 + number)
    stop("a2")
    run("n1", 65)
    run("n2", 68)
    stop("a1")
    stop("a3")
    run("n3", 64)
    run("n4", 66)
    run("n5", 69)
    for _ in range(3):
        run("x3", 70)
        stop("x3")
    stop("n3")
    stop("n4")
    run("n4", 64)
    run("n3", 66)
    stop("n4")
    run("n6", 64)
    assert set(held) == {"a4", "n1", "n2", "n3", "n5", "n6"}
    assert len(pool._held) == 6


def startup_errors() -> list[tuple[str, str]]:
    return [
        (option, text.replace("<text>", option))
        for options, text in MEASURED["startup_errors"].items()
        for option in options.split("|")
    ]


@pytest.mark.parametrize(("option", "text"), startup_errors())
def test_refuses_in_the_words_of_dockerd(option: str, text: str) -> None:
    def start() -> None:
        match option.split():
            case ["--default-gateway", gateway]:
                BridgePool(BRIDGE, default_gateway=gateway)
            case ["-b", "br7", "(missing)"]:
                raise ipam.missing_bridge("br7")
            case ["-b", "with", "--bip"]:
                raise ipam.bridge_and_bip()
            case _:
                BridgePool(BRIDGE, fixed_cidr=option)

    with pytest.raises(DockerError) as refused:
        start()
    assert str(refused.value) == text


@pytest.mark.parametrize(
    "text",
    ["10.211.55.64/", "10.211.55.64/255.255.255.0", "010.0.0.0/8", "10.0.0.0/-1", "fe80::%eth0/64"],
)
def test_a_range_is_parsed_as_strictly_as_go_does(text: str) -> None:
    with pytest.raises(DockerError, match=rf"invalid CIDR address: {re.escape(text)}$"):
        BridgePool(BRIDGE, fixed_cidr=text)


@pytest.mark.parametrize("gateway", ["10.211.55.3", "10.211.55.0", "10.211.55.255"])
def test_a_gateway_already_reserved_is_refused(gateway: str) -> None:
    with pytest.raises(DockerError, match=rf"DefaultGatewayIPv4:{gateway}\): Address already in"):
        BridgePool(BRIDGE, default_gateway=gateway)


def test_bip_is_a_bridge_with_that_address() -> None:
    pool = BridgePool(ipam.parse_bip("172.18.0.9/28"))
    assert (str(pool.subnet), str(pool.gateway)) == ("172.18.0.0/28", "172.18.0.9")
    for text in ("172.18.0.9", "fd00::1/64", "x/8"):
        with pytest.raises(DockerError, match=rf"invalid CIDR address: {text}$"):
            ipam.parse_bip(text)


def test_exhaustion_reads_as_docker_run_prints_it() -> None:
    pool = BridgePool(BRIDGE, fixed_cidr="10.211.55.3/32")
    with pytest.raises(DockerError) as exhausted:
        pool.allocate(NETWORK_ID)
    assert exhausted.value.exit_code == 125
    printed = ipam.run_error(exhausted.value)
    measured = MEASURED["run_errors"]["exhausted"].partition("  (exit 125")[0]
    assert str(printed) == measured.replace("<64-hex network id>", NETWORK_ID)
    assert printed.exit_code == 125


def test_a_freed_address_comes_back_after_exhaustion() -> None:
    pool = BridgePool(BRIDGE, fixed_cidr="10.211.55.64/31")
    assert [allocate(pool) for _ in range(3)] == ["10.211.55.64", "10.211.55.65", None]
    pool.release(IPv4Address("10.211.55.65"))
    assert [allocate(pool), allocate(pool)] == ["10.211.55.65", None]


def test_only_what_was_handed_out_can_be_released() -> None:
    pool = BridgePool(BRIDGE)
    address = pool.allocate(NETWORK_ID)
    pool.release(address)
    for stranger in (address, BRIDGE.ip, IPv4Address("10.211.55.9"), IPv4Address("1.1.1.1")):
        with pytest.raises(ValueError, match="is not held"):
            pool.release(stranger)


@pytest.mark.parametrize(
    ("fixed_cidr", "bridge_address", "sequence"),
    [
        ("10.0.0.8/31", "10.0.0.8/31", ["10.0.0.9", None]),
        ("10.0.0.8/32", "10.0.0.8/32", [None]),
    ],
)
def test_subnets_too_small_for_a_broadcast_address(
    fixed_cidr: str, bridge_address: str, sequence: list[str | None]
) -> None:
    pool = BridgePool(None, fixed_cidr=fixed_cidr)
    assert str(pool.bridge_address) == bridge_address
    assert [allocate(pool) for _ in sequence] == sequence


def test_a_whole_slash_16_is_handed_out_in_order() -> None:
    pool = BridgePool(None)
    addresses = [int(pool.allocate(NETWORK_ID)) for _ in range(65533)]
    first = int(IPv4Address("172.17.0.2"))
    assert addresses == list(range(first, first + 65533))
    assert allocate(pool) is None
    for number in addresses[::7]:
        pool.release(IPv4Address(number))
    assert [int(pool.allocate(NETWORK_ID)) for _ in addresses[::7]] == addresses[::7]


def test_mac_addresses() -> None:
    assert ipam.mac_address(IPv4Address("10.211.55.64")) == "02:42:0a:d3:37:40"
    generator = random.Random(7)
    random_ones = {ipam.random_mac(generator) for _ in range(200)}
    assert len(random_ones) == 200
    assert {int(mac[:2], 16) & 0b11 for mac in random_ones} == {0b10}
    assert ipam.random_mac(random.Random(7)) in random_ones


@st.composite
def pools(draw: st.DrawFn) -> tuple[BridgePool, set[IPv4Address]]:
    """A pool of any shape, and what it must never hand out."""
    subnet = IPv4Network((draw(st.integers(0, 2**32 - 1)), draw(st.integers(24, 32))), strict=False)
    address = subnet[draw(st.integers(0, subnet.num_addresses - 1))]
    bridge = IPv4Interface((address, subnet.prefixlen))
    fixed = draw(
        st.none()
        | st.builds(
            lambda offset, length: str(
                IPv4Network((int(subnet[offset % subnet.num_addresses]), length), strict=False)
            ),
            st.integers(0, 255),
            st.integers(16, 32),
        )
    )
    ends = {subnet[0], subnet[-1]} if subnet.prefixlen < 31 else set()
    others = [a for a in subnet if a != address and a not in ends]
    gateway = draw(st.none() | st.sampled_from(others)) if others else None
    version: ipam.Version = draw(st.sampled_from([26, 28]))
    pool = BridgePool(
        bridge,
        fixed_cidr=fixed,
        default_gateway=str(gateway) if gateway else None,
        version=version,
    )
    return pool, ends | {address} | ({gateway} if gateway else set())


@given(pools(), st.lists(st.integers(0, 400), max_size=60))
def test_never_reserved_never_twice_always_the_lowest(
    made: tuple[BridgePool, set[IPv4Address]], script: list[int]
) -> None:
    """Any mix of starts and stops, against the slow and plain definition of "lowest free"."""
    pool, reserved = made
    free = [
        number
        for number in range(int(pool.first), int(pool.last) + 1)
        if IPv4Address(number) not in reserved
    ]
    held: list[int] = []
    for step in script:
        if step % 3 == 0 and held:
            number = held.pop(step % len(held))
            pool.release(IPv4Address(number))
            heapq.heappush(free, number)
            continue
        given_out = allocate(pool)
        if given_out is None:
            assert not free
            continue
        address = IPv4Address(given_out)
        assert int(address) == heapq.heappop(free)
        assert address not in reserved
        assert address in pool.subnet
        assert int(address) not in held
        held.append(int(address))
    assert len(pool._held) == len(held)


# -- options as typed ------------------------------------------------------------------------------

CIDRS = (
    st.text(max_size=20)
    | st.builds("{}/{}".format, st.ip_addresses(), st.integers(-1, 140))
    | st.builds("{}/{}".format, st.ip_addresses(v=4), st.ip_addresses(v=4))
    | st.text("0123456789./:af%", max_size=24)
)


@given(CIDRS)
@example("10.0.0.1/" + "0" * 400 + "8")
@example("10.0.0.1/0")
@example("fe80::1%eth0/64")
@example("10.0.0.01/8")
@example("10.0.0.1/\u0668")
def test_any_bip_is_what_the_library_reads_or_is_refused_in_dockers_words(text: str) -> None:
    found = attempt(lambda: ipam.parse_bip(text), DockerError)
    if isinstance(found, Refusal):
        assert found.startswith("failed to start daemon: ")
        assert "invalid CIDR address" in found
    else:
        address, _, length = text.partition("/")
        assert found == IPv4Interface(f"{address}/{int(length)}")


@given(
    st.none() | st.builds(IPv4Interface, st.tuples(st.ip_addresses(v=4), st.integers(0, 32))),
    st.none() | CIDRS,
    st.none() | st.ip_addresses().map(str) | st.text(max_size=12),
    st.sampled_from([26, 28]),
)
@example(None, "0.0.0.0/0", None, 26)
@example(IPv4Interface("255.255.255.255/32"), "255.255.255.255/32", None, 26)
@example(IPv4Interface("0.0.0.0/0"), None, "fe80::1%x", 28)
def test_any_options_make_a_pool_within_its_subnet_or_are_refused(
    bridge: IPv4Interface | None, fixed: str | None, gateway: str | None, version: ipam.Version
) -> None:
    """Whatever its size: a /0 is no larger in memory than a /30."""
    pool = attempt(
        lambda: BridgePool(bridge, fixed_cidr=fixed, default_gateway=gateway, version=version),
        DockerError,
    )
    if isinstance(pool, Refusal):
        return
    assert pool.first <= pool.last
    assert pool.first in pool.subnet
    assert pool.last in pool.subnet
    assert pool.gateway in pool.subnet
    got = [address for address in (allocate(pool) for _ in range(3)) if address]
    assert len(set(got)) == len(got)
    for address in got:
        assert pool.first <= IPv4Address(address) <= pool.last
        assert IPv4Address(address) not in {pool.bridge_address.ip, pool.gateway}
