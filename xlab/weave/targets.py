"""Whom to dial, and when to try again.

Two kinds of addresses are dialled: those a person gave, for ever, and those that gossip says other
peers are connected to, as long as we are not.  After a failure the next attempt waits, each time
half as long again, by chance a little more or less; from the beginning after what has held.

Pure: `due` names the addresses to dial now, and is told what became of them.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import NamedTuple

from xlab.kernel.clock import Clock
from xlab.weave.names import PeerName
from xlab.weave.topology import Link, Peer

_FIRST_RETRY_S = 0.2
_LONGEST_RETRY_S = 360.0
#: What has held that long has not failed: the next attempt comes at once.
_HELD_S = 60.0
#: And what has held that long has not failed to connect: a router that is killed again and again,
#: as checks and faults do, is to be back as soon as the first time.
_CONNECTED_S = 2.0
#: Of two peers that learn of each other at the same time, the one with the higher name waits.
_COURTESY_S = 0.5

#: Gossip may name any number of addresses.
_TARGET_LIMIT = 4096
#: At a time: of what a person gave, and of what gossip says, for which the former does not wait.
_ATTEMPT_LIMIT = 32


class Address(NamedTuple):
    ip: IPv4Address
    port: int

    def __str__(self) -> str:
        return f"{self.ip}:{self.port}"


def parse_address(text: str) -> tuple[IPv4Address, int | None]:
    """ "ADDRESS" or "ADDRESS:PORT"; ValueError for what nobody can be dialled at."""
    host, colon, digits = text.partition(":")
    try:
        ip = IPv4Address(host)
    except AddressValueError:
        raise ValueError(f"not an IPv4 address: {host[:60]!r}") from None
    if ip.is_multicast or ip.is_unspecified or ip == IPv4Address("255.255.255.255"):
        raise ValueError(f"{ip} is no host's address")
    if not colon:
        return ip, None
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 5):
        raise ValueError(f"not a port: {digits[:20]!r}")
    port = int(digits)
    if not 0 < port < 65536:
        raise ValueError(f"not a port: {port}")
    return ip, port


@dataclass(slots=True)
class Target:
    """An address we dial, and how that goes."""

    address: Address
    #: None: there is no point in ever trying again.
    try_at_s: float | None
    retry_s: float = _FIRST_RETRY_S
    attempting: bool = False
    connected: bool = False
    #: Why it failed last time.
    error: str = ""
    #: Who was found there.
    peer: PeerName | None = None


class Targets:
    """The addresses to dial of one router, which listens on `port` as all do."""

    def __init__(
        self, ourself: PeerName, *, port: int, clock: Clock, chance: random.Random
    ) -> None:
        self._ourself = ourself
        self._port = port
        self._clock = clock
        self._chance = chance
        #: What a person asked for; without a port, whoever is at the address already will do.
        self._direct: dict[IPv4Address, set[int | None]] = {}
        self._known: dict[Address, Target] = {}
        #: What `refresh` found worth dialling, and how long to wait before the first attempt.
        self._wanted: dict[Address, float] = {}
        #: What of that a person asked for.
        self._by_person: dict[Address, float] = {}

    def add(self, ip: IPv4Address, port: int | None) -> None:
        """A person wants a connection there: at once, whatever has been tried."""
        self._direct.setdefault(ip, set()).add(port)
        target = self._known.get(Address(ip, port or self._port))
        if target and not target.attempting:
            target.try_at_s, target.retry_s = self._clock(), _FIRST_RETRY_S

    def remove(self, ip: IPv4Address, port: int | None) -> None:
        """No longer wanted: no more attempts."""
        self._direct.get(ip, set()).discard(port)

    def forget_all(self) -> None:
        """Nothing a person asked for is wanted any more."""
        self._direct.clear()

    @property
    def direct(self) -> list[str]:
        """What a person asked for, as they wrote it."""
        return sorted(
            f"{ip}:{port}" if port else str(ip)
            for ip, ports in self._direct.items()
            for port in ports
        )

    @property
    def unconnected(self) -> list[Target]:
        """Those that are being tried, or will be."""
        waiting = (target for target in self._known.values() if not target.connected)
        return sorted(waiting, key=lambda target: target.address)

    # -- what became of an attempt -----------------------------------------------------------------

    def reached(self, address: Address, peer: PeerName) -> None:
        """We have a connection to a peer there."""
        target = self._known.get(address)
        if target:
            target.attempting, target.connected, target.peer = False, True, peer

    def failed(
        self,
        address: Address,
        reason: str,
        *,
        peer: PeerName | None = None,
        itself: bool = False,
    ) -> None:
        """There is none, or it has ended; `peer` is who was met there.

        `itself`: that was this very router.  Another of our name may get one of its own some day.
        """
        target = self._known.get(address)
        if target is None:
            return
        was_connected = target.connected
        target.attempting = target.connected = False
        target.error = reason
        target.peer = peer or target.peer
        now_s = self._clock()
        if itself:
            target.try_at_s = None
        elif target.try_at_s is not None and now_s > target.try_at_s + _HELD_S:
            target.try_at_s, target.retry_s = now_s, _FIRST_RETRY_S
        else:
            dialled_at_s = now_s if target.try_at_s is None else target.try_at_s
            if was_connected and now_s > dialled_at_s + _CONNECTED_S:
                target.retry_s = _FIRST_RETRY_S
            target.try_at_s = now_s + target.retry_s * self._chance.uniform(0.5, 1.5)
            target.retry_s = min(target.retry_s * 1.5, _LONGEST_RETRY_S)

    # -- choosing ----------------------------------------------------------------------------------

    def refresh(self, ours: Mapping[PeerName, Link], peers: Collection[Peer]) -> None:
        """What is wanted has changed; `ours` are the connections that we have."""
        self._by_person = self._wanted_by_person(ours)
        self._wanted = self._found_in_gossip(ours, peers) | self._by_person
        self._known = {
            address: target
            for address, target in self._known.items()
            if address in self._wanted or target.attempting or target.connected
        }
        now_s = self._clock()
        for address, wait_s in self._wanted.items():
            room = len(self._known) < _TARGET_LIMIT or address in self._by_person
            if address not in self._known and room:
                self._known[address] = Target(address, try_at_s=now_s + wait_s)

    def due(self, ours: Mapping[PeerName, Link]) -> tuple[list[Address], float | None]:
        """What to dial now, and when to ask again."""
        now_s = self._clock()
        free = {True: _ATTEMPT_LIMIT, False: _ATTEMPT_LIMIT}
        waiting: list[tuple[float, Address]] = []
        for address, target in self._known.items():
            if target.attempting:
                free[address in self._by_person] -= 1
            elif (
                target.try_at_s is not None
                and not target.connected
                and target.peer not in ours
                and address in self._wanted
            ):
                waiting.append((target.try_at_s, address))
        waiting.sort()
        chosen: list[Address] = []
        for at_s, address in waiting:
            if at_s > now_s:
                return chosen, at_s
            if free[address in self._by_person] > 0:
                free[address in self._by_person] -= 1
                self._known[address].attempting = True
                chosen.append(address)
        # Those that are due while none is free will be asked for when an attempt has ended.
        return chosen, None

    def _wanted_by_person(self, ours: Mapping[PeerName, Link]) -> dict[Address, float]:
        connected = {link.remote_address for link in ours.values()}
        inbound = {
            link.remote_address.partition(":")[0] for link in ours.values() if not link.outbound
        }
        wanted = {}
        for ip, ports in self._direct.items():
            for port in ports:
                address = Address(ip, port or self._port)
                if str(address) not in connected and not (port is None and str(ip) in inbound):
                    wanted[address] = 0.0
        return wanted

    def _found_in_gossip(
        self, ours: Mapping[PeerName, Link], peers: Collection[Peer]
    ) -> dict[Address, float]:
        wanted: dict[Address, float] = {}
        #: In a full mesh of n routers each address is named n times.
        read: dict[str, Address | None] = {}
        for other, link in _in_turn(peer.links for peer in peers if peer.name != self._ourself):
            if other == self._ourself or other in ours:
                continue
            # What dialled is at a port of its own choice; it listens where all do.
            text = link.remote_address if link.outbound else link.remote_address.partition(":")[0]
            if text not in read:
                if len(read) == _TARGET_LIMIT:
                    break
                read[text] = self._read(text)
            address = read[text]
            if address:
                wanted[address] = 0.0 if self._ourself < other else _COURTESY_S
        return wanted

    def _read(self, text: str) -> Address | None:
        try:
            ip, port = parse_address(text)
        except ValueError:
            return None
        return Address(ip, port or self._port)


def _in_turn(peers: Iterable[Mapping[PeerName, Link]]) -> Iterator[tuple[PeerName, Link]]:
    """All links, one of each peer after the other: who claims many does not keep out the others."""
    waiting = deque(iter(links.items()) for links in peers)
    while waiting:
        links = waiting.popleft()
        link = next(links, None)
        if link:
            yield link
            waiting.append(links)
