"""Labs of the same names and addresses at the same time, by root and by an ordinary user."""

from __future__ import annotations

import itertools
import json
import os
import signal
import struct
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.labs import (
    PATIENCE_S,
    Run,
    link_target,
    machine,
    names_in,
    namespaces_of,
    why_no_open_vswitch,
)
from tests.support.ordinary import ORDINARY
from xlab.record import record
from xlab.scenario.request import Request

pytestmark = pytest.mark.sandbox

_ROOT = Path(__file__).parents[2]

SCENARIOS = ("ovs-gre", "weave", "bridge", "baseline")


@pytest.mark.slow
@pytest.mark.usefixtures("open_vswitch")
def test_four_labs_at_once_see_nothing_of_each_other(tmp_path: Path) -> None:
    """Two of the same kind among them, with the same results folder."""
    side_by_side(["ovs-gre", "weave", "ovs-gre", "bridge"], tmp_path / "results", measure=False)


@pytest.mark.slow
@pytest.mark.usefixtures("open_vswitch")
def test_sixteen_labs_at_once_see_nothing_of_each_other(tmp_path: Path) -> None:
    side_by_side([*SCENARIOS] * 4, tmp_path / "results", measure=True)


def side_by_side(scenarios: list[str], results: Path, *, measure: bool) -> None:
    """Runs that are all held when their paths have been proved, looked at, and then go on."""
    options: dict[str, Any] = {"measure": measure, "stop_at": "path", "patience_s": 900}
    with ExitStack() as stack, ThreadPoolExecutor(len(scenarios)) as pool:
        runs = [
            stack.enter_context(Run(Request(name, quick=True), results, **options))
            for name in scenarios
        ]
        labs = list(pool.map(hold, runs))
        assert_apart(labs)
        for run in runs:
            os.kill(run.pid, signal.SIGCONT)
        ends = list(pool.map(Run.finish, runs))
    assert [(end["status"], end["reason"]) for end in ends] == [("passed", "")] * len(runs)
    assert len({end["folder"] for end in ends}) == len(runs)
    for lab, end in zip(labs, ends, strict=True):
        folder = Path(end["folder"])
        found = record.load(folder)
        assert found.scenario == lab.scenario
        assert found.path is not None
        assert found.path.proved
        heard = addresses_in((folder / "raw" / "path.pcap").read_bytes())
        assert heard
        assert stations(heard) <= lab.own_macs


@dataclass(frozen=True, slots=True)
class Seen:
    """A lab, looked at from outside while it lives."""

    scenario: str
    namespaces: frozenset[str]
    #: Addresses of its own interfaces, and of all that its bridges and hosts have learnt.
    own_macs: frozenset[str]
    learnt_macs: frozenset[str]
    ips: frozenset[str]
    #: Entries in the one table of neighbours that all labs share; permanent ones do not count.
    neighbours: int


def hold(run: Run) -> Seen:
    """Wait until the path is proved, where the caller stops; look at the lab, which does not."""
    events = {}
    for event in run:
        events[event["kind"]] = event
        if event["kind"] == "path":
            break
    assert "path" in events, run.stderr() or run.events[-1:]
    first = run.first_process()
    assert first is not None
    inside = [pid for pid in run.processes() if pid != run.pid]
    held = set().union(*map(namespaces_of, inside)) - namespaces_of(os.getpid())
    looks = [look(first, handle) for handle in network_handles(inside) if handle]
    return Seen(
        scenario=events["started"]["scenario"],
        namespaces=frozenset(held),
        own_macs=frozenset().union(*(own for own, _, _, _ in looks)),
        learnt_macs=frozenset().union(*(learnt for _, learnt, _, _ in looks)),
        ips=frozenset().union(*(ips for _, _, ips, _ in looks)),
        neighbours=sum(count for _, _, _, count in looks),
    )


def network_handles(processes: list[int]) -> list[str]:
    """Paths of all network namespaces that some processes are in or hold open, but our own."""
    handles = {link_target("/proc/self/ns/net"): ""}
    for pid in processes:
        for path in (
            f"/proc/{pid}/ns/net",
            *(f"/proc/{pid}/fd/{n}" for n in names_in(f"/proc/{pid}/fd")),
        ):
            target = link_target(path)
            if target.startswith("net:"):
                handles.setdefault(target, path)
    return list(handles.values())


def look(first: int, handle: str) -> tuple[set[str], set[str], set[str], int]:
    """A network namespace: its own MACs, those learnt, its addresses, how many neighbours."""
    user = [] if os.geteuid() == 0 else [f"--user=/proc/{first}/ns/user", "--preserve-credentials"]
    shown = subprocess.run(
        ["nsenter", *user, f"--net={handle}", "sh", "-ec",
         "ip -json addr; echo; ip -json neigh; echo; bridge -json fdb"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    links, neighbours, entries = (json.loads(part or "[]") for part in shown.split("\n\n"))
    own = {link["address"] for link in links if "address" in link}
    learnt = {entry["lladdr"] for entry in neighbours if "lladdr" in entry}
    learnt |= {entry["mac"] for entry in entries}
    ips = {address["local"] for link in links for address in link.get("addr_info", ())}
    shared = [entry for entry in neighbours if "PERMANENT" not in entry["state"]]
    return own, learnt, ips, len(shared)


def assert_apart(labs: list[Seen]) -> None:
    # Sixteen of them leave half of the table to the machine and to others.
    assert sum(lab.neighbours for lab in labs) <= len(labs) * 1024 // 2 // 16
    for lab in labs:
        assert stations(lab.learnt_macs) <= lab.own_macs
        assert len(stations(lab.learnt_macs)) >= 2, "the search finds what is there"
    for one, other in itertools.combinations(labs, 2):
        assert not one.namespaces & other.namespaces
        if one.scenario == other.scenario:
            assert one.ips == other.ips
            # The kernel's are random; Docker's are made of the address.
            assert len(one.own_macs - other.own_macs) >= 2


def stations(macs: Iterable[str]) -> set[str]:
    """Without groups (the lowest bit of the first byte) and all-zero entries, which name nobody."""
    return {mac for mac in macs if not int(mac[:2], 16) & 1 and mac != "00:00:00:00:00:00"}


def addresses_in(capture: bytes) -> set[str]:
    """Ethernet addresses of a capture's frames, pcap-savefile(5)."""
    found = set()
    offset = 24
    while offset < len(capture):
        (length,) = struct.unpack_from("<I", capture, offset + 8)
        frame = capture[offset + 16 : offset + 16 + length]
        found |= {frame[0:6].hex(":"), frame[6:12].hex(":")}
        offset += 16 + length
    return found


# -- without root ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scenario",
    [
        "ovs-gre",
        pytest.param("baseline", marks=pytest.mark.slow),
        pytest.param("bridge", marks=pytest.mark.slow),
    ],
)
def test_an_ordinary_user_needs_no_root(scenario: str, ordinary: tuple[list[str], Path]) -> None:
    argv, folder = ordinary
    if scenario == "ovs-gre" and not (machine().tun.usable and not why_no_open_vswitch()):
        pytest.skip(why_no_open_vswitch() or machine().tun.detail)
    with Run(Request(scenario, quick=True), folder / "results", argv=argv) as run:
        ended = run.finish()
        assert run.stderr() == ""
        found = record.load(Path(ended["folder"]))
    assert (found.status, found.reason) == ("passed", "")
    assert found.environment.sandbox == "rootless"
    assert all(claim.holds for claim in found.claims)
    if os.geteuid() == 0:
        assert Path(ended["folder"]).stat().st_uid == ORDINARY


def test_inside_a_rootless_sandbox_it_is_known_to_be_rootless(
    ordinary: tuple[list[str], Path],
) -> None:
    """Pid 1 is root there, in a user namespace that has no rights over the machine."""
    argv, _ = ordinary
    asked = subprocess.run(
        [*argv, "-c", _ASK_INSIDE],
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        cwd="/", capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (asked.stdout, asked.stderr) == ("0 rootless\nrootless\n", "")


_ASK_INSIDE = """
import os
from xlab.sandbox import sandbox
from xlab.sandbox.launching import run_inside

def ask():
    return f"{os.geteuid()} {sandbox.kind()}"

print(run_inside(ask).result)
print(sandbox.kind())
"""


def test_without_a_usable_tun_ovs_gre_is_skipped_and_says_what_to_do(
    ordinary: tuple[list[str], Path],
) -> None:
    """The datapath of last resort needs /dev/net/tun: the message names it and the remedy."""
    if machine().ovs_datapath.live or why_no_open_vswitch() or os.geteuid() != 0:
        pytest.skip("needs root, Open vSwitch, and a kernel without its datapath")
    argv, folder = ordinary
    hidden = [part.replace("0o666", "0o600").replace("0o20666", "0o20600") for part in argv]
    with Run(Request("ovs-gre", quick=True), folder / "results", argv=hidden) as run:
        ended = run.finish()
        assert run.wait() == 3
    assert ended["status"] == "skipped"
    assert "/dev/net/tun" in ended["reason"]
    assert "chmod" in ended["reason"]
