"""machines: hosts as they come, each with an address, Docker on docker0, and nothing built.

What an exercise begins with; a scenario's file, of which only the addresses are wanted.
"""

from __future__ import annotations

from ipaddress import IPv4Network

from xlab.errors import UsageError
from xlab.lab.lab import Lab
from xlab.scenario.claims import Checks
from xlab.scenario.scenario import Flow, Option, Scenario, Settings, Size


def plan(size: Size, settings: Settings) -> tuple[IPv4Network, int]:
    """The hosts' network, and which address of it the first host has."""
    try:
        underlay, first = IPv4Network(settings["underlay"]), int(settings["first"])
    except ValueError as error:
        raise UsageError(f"machines: {error}") from error
    if first < 2 or first + size.hosts >= underlay.num_addresses:
        raise UsageError(f"{underlay} has no room for {size.hosts} hosts from number {first} on")
    return underlay, first


def build(
    lab: Lab, plan: tuple[IPv4Network, int], size: Size, settings: Settings, check: Checks
) -> Flow:
    """The rest is somebody's to type: a build of this never goes beyond its first stage."""
    underlay, first = plan
    lab.give_addresses(underlay, first=first, gateway=1)
    check.stage("machines")
    raise UsageError("machines have nothing to be built")


SCENARIO = Scenario(
    name="machines",
    summary="hosts as they come",
    options=(
        Option(
            "underlay", "10.211.55.0/24", "the hosts' network; its first address is the gateway"
        ),
        Option("first", "3", "which address of it the first host has"),
    ),
    plan=plan,
    build=build,
    stages=("machines",),
    fewest_hosts=1,
)
