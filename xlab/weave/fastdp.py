"""What the control plane asks of an overlay, and the overlay that needs no work in user space.

Weave Net's fast datapath sends VXLAN by the kernel's openvswitch module.  Its equivalent here is
the kernel's own vxlan device on a bridge, with an entry for each peer: set up beside the router by
whoever starts it.  The router then has nothing to carry; a connection counts as established once
both ends have introduced themselves, and the status says "fastdp equivalent".
"""

# ruff: noqa: ARG002  (what the interface passes, the kernel knows already)

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from xlab.weave.names import PeerName


class Overlay(Protocol):
    """What carries frames between neighbours.  Nothing of a stranger's makes any method raise."""

    def files(self) -> tuple[int, ...]:
        """Descriptors to watch for reading, the same ones all the time."""

    def ready(self, descriptor: int) -> None:
        """One of them can be read: does a bounded amount of work."""

    def next_timer(self) -> float | None:
        """When, in the clock's seconds, `run_timers` is to be called."""

    def run_timers(self) -> None: ...

    def close(self) -> None: ...

    def add(
        self,
        peer: PeerName,
        *,
        connection_uid: int,
        remote: tuple[str, int] | None,
        outbound: bool,
        send_control: Callable[[int, bytes], None],
        on_established: Callable[[], None],
        on_dead: Callable[[str], None],
    ) -> None:
        """A neighbour is there.  `remote` is where it can be reached, if that is known."""

    def control(self, peer: PeerName, subtag: int, data: bytes) -> None:
        """The other end's overlay has a message."""

    def remove(self, peer: PeerName) -> None: ...

    def mtu(self, peer: PeerName) -> int | None:
        """The largest packet that frames to this neighbour can carry, once known."""

    def set_routes(
        self, unicast: Mapping[PeerName, PeerName], broadcast: Mapping[PeerName, Sequence[PeerName]]
    ) -> None:
        """See `routes.Routes`."""

    def counters(self) -> dict[str, int]: ...


class FastdpEquivalent:
    """The kernel does it all."""

    def files(self) -> tuple[int, ...]:
        return ()

    def ready(self, descriptor: int) -> None:
        raise AssertionError(f"descriptor {descriptor} is none of ours")

    def next_timer(self) -> float | None:
        return None

    def run_timers(self) -> None:
        pass

    def close(self) -> None:
        pass

    def add(
        self,
        peer: PeerName,
        *,
        connection_uid: int,
        remote: tuple[str, int] | None,
        outbound: bool,
        send_control: Callable[[int, bytes], None],
        on_established: Callable[[], None],
        on_dead: Callable[[str], None],
    ) -> None:
        on_established()

    def control(self, peer: PeerName, subtag: int, data: bytes) -> None:
        """A real fast datapath acknowledges heartbeats here; the kernel's vxlan has none."""

    def remove(self, peer: PeerName) -> None:
        pass

    def mtu(self, peer: PeerName) -> int | None:
        return None

    def set_routes(
        self, unicast: Mapping[PeerName, PeerName], broadcast: Mapping[PeerName, Sequence[PeerName]]
    ) -> None:
        pass

    def counters(self) -> dict[str, int]:
        return {}
