"""Routers without sockets or real time: a world in which tests connect them, cut wires and wait.

world = World()
a, b = world.router("a"), world.router("b")
a.control.connect([b.host])
world.run(1.0)                    a second passes, in as many steps as there is something to do

Everything is determined by the seed: the same test sees the same chances every time.
"""

from __future__ import annotations

import functools
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address

from xlab.weave import names
from xlab.weave.connection import Connection
from xlab.weave.fastdp import Admitted, Overlay
from xlab.weave.names import PeerName
from xlab.weave.router import Identity, Router
from xlab.weave.routes import Routes
from xlab.weave.targets import Address
from xlab.weave.timers import Timers

PORT = 6783

#: Subtag by which a `FakeOverlay` says that it hears the other: sleeve's "established".
HEARD = 1


class FakeOverlay(Overlay):
    """Established as soon as both ends have said so over the control connection, as sleeve is."""

    def __init__(self) -> None:
        self.peers: dict[PeerName, Admitted] = {}
        self.controls: list[tuple[PeerName, int, bytes]] = []
        self.unicast: Mapping[PeerName, PeerName] = {}
        self.broadcast: Mapping[PeerName, Sequence[PeerName]] = {}
        #: Peers whose datagrams do not come through.
        self.deaf_to: set[PeerName] = set()

    def add(self, peer: PeerName, admitted: Admitted) -> None:
        assert peer not in self.peers, "added twice"
        self.peers[peer] = admitted
        if peer not in self.deaf_to:
            admitted.send_control(HEARD, b"")

    def control(self, peer: PeerName, subtag: int, data: bytes) -> None:
        self.controls.append((peer, subtag, data))
        if subtag == HEARD and peer in self.peers:
            self.peers[peer].on_established()

    def remove(self, peer: PeerName) -> None:
        self.peers.pop(peer, None)

    def mtu(self, peer: PeerName) -> int | None:
        return 1438 if peer in self.peers else None

    def set_routes(self, routes: Routes) -> None:
        self.unicast, self.broadcast = routes.unicast, routes.broadcast

    def counters(self) -> dict[str, int]:
        return {"added": len(self.peers)}


class Wire:
    """One end of a connection; what is written arrives when the world says so."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.far: Wire | None = None
        self.deliver: Callable[[bytes], None] = self.kept_append
        self.ended: Callable[[], None] = lambda: None
        #: What arrived where nobody reads.
        self.kept = bytearray()
        self.closed = False
        #: Cut: what is written vanishes, and the far end hears nothing of closing.
        self.cut = False
        self.written = 0
        #: What the far end's host has confirmed, as TCP does whether the router reads or not.
        self.confirmed = 0
        #: What has arrived while nobody wanted to read; None: it is read at once.
        self._waiting: list[Callable[[], None]] | None = None

    def kept_append(self, data: bytes) -> None:
        self.kept += data

    def write(self, data: bytes) -> None:
        self.written += len(data)
        far = self.far
        if far is None or self.closed or self.cut:
            return

        def arrive() -> None:
            far.arrived(lambda: far.deliver(data))
            self.confirmed += 0 if far.closed or far.cut else len(data)

        self.world.soon(arrive)

    def close(self) -> None:
        far = self.far
        if not self.closed and far is not None and not self.cut:
            self.world.soon(lambda: far.arrived(far.ended))
        self.closed = True

    def arrived(self, happen: Callable[[], None]) -> None:
        """Something happens here, once it is read."""
        if self._waiting is not None:
            self._waiting.append(happen)
        elif not self.closed:
            happen()

    def pause(self) -> None:
        self._waiting = []

    def resume(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        for happen in waiting:
            self.world.soon(functools.partial(self.arrived, happen))

    def confirmed_bytes(self) -> int:
        return self.confirmed


def wires(world: World) -> tuple[Wire, Wire]:
    a, b = Wire(world), Wire(world)
    a.far, b.far = b, a
    return a, b


class Member:
    """A router of the world, on a host of its own."""

    def __init__(
        self, world: World, number: int, nickname: str, *, name: PeerName, overlays: tuple[str, ...]
    ) -> None:
        self.world = world
        self.ip = IPv4Address("10.0.0.0") + number
        self.name = name
        self.overlay = FakeOverlay()
        self.log: list[str] = []
        self.dialled: list[Address] = []
        self.streams: dict[Connection, Wire] = {}
        self.timers = Timers(lambda: world.now_s)
        self.control = Router(
            Identity(
                name=name, nickname=nickname, overlays=overlays, overlay=overlays[0], port=PORT
            ),
            overlay=self.overlay,
            timers=self.timers,
            dial=self._dial,
            log=self.log.append,
            chance=random.Random(world.seed * 1000 + len(world.members)),
        )

    @property
    def host(self) -> tuple[IPv4Address, int | None]:
        """What others dial."""
        return self.ip, None

    @property
    def established(self) -> set[PeerName]:
        return {n for n, c in self.control.neighbours.items() if c.established}

    def wire_to(self, other: Member) -> Wire:
        """Our end of the connection to another."""
        return self.streams[self.control.neighbours[other.name]]

    def accept(self, stream: Wire, remote: Address) -> None:
        self._attach(self.control.accepted(stream, remote), stream)

    def stop(self) -> None:
        """The process ends; its sockets are closed."""
        self.world.members.remove(self)
        self.control.close()

    def _dial(self, address: Address) -> None:
        self.dialled.append(address)
        world = self.world
        far = next((m for m in world.members if m.ip == address.ip), None)
        if far is None or address.port != PORT or world.blocked(self, far):
            world.soon(lambda: self.control.dial_failed(address, "Connection refused"))
            return
        ours, theirs = wires(world)
        world.port += 1
        source = Address(self.ip, world.port)

        def connect() -> None:
            far.accept(theirs, source)
            self._attach(self.control.connected(ours, address), ours)

        world.soon(connect)

    def _attach(self, connection: Connection | None, stream: Wire) -> None:
        if connection is None:
            stream.close()
            return
        self.streams[connection] = stream
        stream.deliver = lambda data: self.control.received(connection, data)
        stream.ended = lambda: self.control.disconnected(connection, "the peer has hung up")


class World:
    """All routers, the time, and what is under way between them."""

    def __init__(self, seed: int = 1) -> None:
        self.seed = seed
        self.now_s = 1000.0
        self.members: list[Member] = []
        self.port = 40000
        self._blocked: set[frozenset[int]] = set()
        self._under_way: deque[Callable[[], None]] = deque()

    def router(
        self,
        nickname: str,
        *,
        name: PeerName | None = None,
        ip: int | None = None,
        overlays: tuple[str, ...] = ("sleeve",),
    ) -> Member:
        number = ip or len(self.members) + 1
        member = Member(
            self,
            number,
            nickname,
            name=name or names.parse(f"7a:00:00:00:00:{number:02x}"),
            overlays=overlays,
        )
        self.members.append(member)
        return member

    def routers(self, count: int) -> list[Member]:
        return [self.router(f"h{number}") for number in range(1, count + 1)]

    def block(self, a: Member, b: Member) -> None:
        """The network carries nothing between these two, and says so to who dials."""
        self._blocked.add(frozenset((int(a.ip), int(b.ip))))

    def unblock(self, a: Member, b: Member) -> None:
        self._blocked.discard(frozenset((int(a.ip), int(b.ip))))

    def blocked(self, a: Member, b: Member) -> bool:
        return frozenset((int(a.ip), int(b.ip))) in self._blocked

    def soon(self, call: Callable[[], None]) -> None:
        self._under_way.append(call)

    def run(self, duration_s: float) -> None:
        """Let time pass: deliver what is under way, and run timers when they are due."""
        end_s = self.now_s + duration_s
        while True:
            self.settle()
            times = [at for m in self.members if (at := m.timers.next_at_s()) is not None]
            next_s = min(times, default=end_s)
            if next_s > end_s:
                self.now_s = end_s
                return
            self.now_s = max(self.now_s, next_s)
            for member in list(self.members):
                member.timers.run()

    def settle(self) -> None:
        """Deliver all that is under way; no time passes."""
        steps = 0
        while self._under_way:
            self._under_way.popleft()()
            steps += 1
            assert steps < 200_000, "the routers do not stop talking"


def accept_stranger(member: Member, host: int = 9) -> Wire:
    """A connection to a router whose far end the test speaks itself; what comes is in `kept`."""
    ours, theirs = wires(member.world)
    member.accept(theirs, Address(IPv4Address("10.0.9.0") + host, 50000))
    return ours
