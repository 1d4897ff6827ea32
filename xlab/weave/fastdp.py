"""What the control plane asks of an overlay, and the overlay that needs no work in user space.

Weave Net's fast datapath sends VXLAN by the kernel's openvswitch module.  Its equivalent here is
the kernel's own vxlan device on a bridge, with an entry for each peer: set up beside the router by
whoever starts it.  The router then has nothing to carry; a connection counts as established once
both ends have introduced themselves, and the status says "fastdp equivalent".
"""

# ruff: noqa: ARG002  (what the interface passes, the kernel knows already)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xlab.weave.names import PeerName
from xlab.weave.routes import Routes


@dataclass(frozen=True, slots=True)
class Admitted:
    """A connection with a peer that is through its handshake, as an overlay has to know it."""

    uid: int
    #: Where we dialled; the address of one that dialled us shows in its first heartbeat, since a
    #: network in between may have changed it.
    remote: tuple[str, int] | None
    #: Says (subtag, data) to the other end's overlay.
    send_control: Callable[[int, bytes], None]
    #: Called once.
    on_established: Callable[[], object]
    #: Called at most once, and then the peer is removed already.
    on_dead: Callable[[str], object]


class Overlay:
    """What carries frames between neighbours; by itself none.

    Nothing of a stranger's makes any method raise.
    """

    def files(self) -> tuple[int, ...]:
        """Descriptors to watch for reading, the same ones all the time."""
        return ()

    def ready(self, descriptor: int) -> None:
        """One of them can be read: does a bounded amount of work."""

    def next_timer(self) -> float | None:
        """When, in the clock's seconds, `run_timers` is to be called."""
        return None

    def run_timers(self) -> None:
        """Do what is due."""

    def close(self) -> None:
        """Carry nothing any more."""

    def add(self, peer: PeerName, admitted: Admitted) -> None:
        """A neighbour is there."""

    def control(self, peer: PeerName, subtag: int, data: bytes) -> None:
        """The other end's overlay has a message."""

    def remove(self, peer: PeerName) -> None:
        """The connection with `peer` is gone; nothing happens if it is not there."""

    def mtu(self, peer: PeerName) -> int | None:
        """The largest packet that frames to this neighbour can carry, once that is confirmed."""
        return None

    def set_routes(self, routes: Routes) -> None:
        """Frames go this way from now on."""

    def counters(self) -> dict[str, int]:
        """Frames and datagrams moved, and those dropped, by reason."""
        return {}


class FastdpEquivalent(Overlay):
    """The kernel does it all; of its vxlan no heartbeats are to be acknowledged either."""

    def add(self, peer: PeerName, admitted: Admitted) -> None:
        admitted.on_established()
