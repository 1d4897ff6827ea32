"""weave routers as processes of their own, and what they report."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from xlab.kernel.processes import Process, wait_until
from xlab.lab import underlay
from xlab.lab.lab import Host, Lab

_ROOT = Path(__file__).resolve().parents[2]


def racked(hosts: int) -> Lab:
    lab = Lab(underlay.describe(None, hosts=hosts))
    lab.give_addresses(IPv4Network("10.211.55.0/24"), first=3, gateway=1)
    return lab


def name_of(host: Host) -> str:
    return f"7a:00:00:00:00:{host.number:02x}"


def spawn(host: Host, *peers: Host, datapath: str = "fastdp", named: Host | None = None) -> Process:
    return host.spawn(
        [sys.executable, "-m", "xlab.weave"]
        + ["--name", name_of(named or host), "--nickname", host.name]
        + ["--bind", str(host.address), "--datapath", datapath]
        + [str(peer.address) for peer in peers],
        env={"PYTHONPATH": str(_ROOT), "PYTHONWARNINGS": "error"},
    )


@contextmanager
def routers(lab: Lab, *, datapath: str = "fastdp") -> Iterator[list[Process]]:
    """A router on each host, in a chain."""
    with ExitStack() as running:
        processes = []
        for before, host in zip([None, *lab.hosts], lab.hosts, strict=False):
            process = spawn(host, *([before] if before else []), datapath=datapath)
            running.callback(process.stop)
            processes.append(process)
        yield processes


def complaints(router: Process) -> str:
    """What a router has logged beyond that it is ready."""
    said = router.stderr_tail().splitlines(keepends=True)
    return "".join(line for line in said if " is ready, datapath " not in line)


def ask(host: Host, method: str, path: str, body: str = "") -> str:
    """What the host's router answers; OSError while it does not."""
    with host.entered():
        connection = http.client.HTTPConnection("127.0.0.1", 6784, timeout=5)
        connection.connect()
    try:
        connection.request(method, path, body=body)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def report(host: Host) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(ask(host, "GET", "/report"))
    return answer


def established(host: Host) -> list[str]:
    """The peers that it has established connections with; none while it does not answer."""
    try:
        return list(report(host)["established"])
    except OSError:
        return []


def meshed(hosts: Sequence[Host]) -> bool:
    """Whether each of these has an established connection and a direct route to each other.

    What it broadcasts goes to those alone that have said, too, that the connection is established:
    that is known a little later (gossip).
    """
    try:
        reports = [report(host) for host in hosts]
    except OSError:
        return False
    everyone = {name_of(host) for host in hosts}
    return all(
        set(told["established"]) == everyone - {told["name"]}
        and told["routes"]["unicast"] == {name: name for name in everyone - {told["name"]}}
        and all(
            set(hops) == (everyone - {source} if source == told["name"] else set())
            for source, hops in told["routes"]["broadcast"].items()
        )
        for told in reports
    )


def wait_for_mesh(hosts: Sequence[Host]) -> None:
    wait_until(lambda: meshed(hosts), timeout_s=20.0, awaited="the mesh")
