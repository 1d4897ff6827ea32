"""Gossip: how state that everybody shares spreads over the control connections.

A channel is a name and somebody who keeps its state (a `Gossiper`); the topology is one, addresses
and DNS names are others.  Each message says what kind of spreading it is part of:

    gossip      to a few neighbours; what is new in it to them, they pass on to a few of theirs
    broadcast   to all, along the tree that `routes.forward_to` describes
    unicast     to one peer, from neighbour to neighbour

Everyone passes on what belongs to channels it has no part in, or a router that does not do IPAM
would cut off those behind it.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from xlab.kernel.clock import Clock
from xlab.weave import messages, routes
from xlab.weave.gob import ProtocolError
from xlab.weave.messages import GossipMessage, Tag
from xlab.weave.names import PeerName

#: How often everyone tells a few neighbours all it knows.
INTERVAL_S = 30.0

#: How many of the last messages on foreign channels are remembered, so as to pass each on once.
_REMEMBERED = 1024


class Gossiper(Protocol):
    """The keeper of a channel's state.  Payloads are untrusted: ProtocolError ends a connection."""

    def everything(self) -> bytes | None:
        """All that is known, for new neighbours and the regular rounds; None for nothing."""

    def on_gossip(self, payload: bytes) -> bytes | None:
        """Learn from it; returns what was new in it, None for nothing."""

    def on_broadcast(self, source: PeerName, payload: bytes) -> bytes | None:
        """Learn from it; returns what is to be passed on."""

    def on_unicast(self, source: PeerName, payload: bytes) -> None:
        """It was for us."""


class Gossip:
    """All channels of one router.

    `graph` gives the connections between peers, whether frames pass there or not; `send` hands a
    message to a neighbour.
    """

    def __init__(
        self,
        ourself: PeerName,
        *,
        graph: Callable[[], routes.Graph],
        send: Callable[[PeerName, bytes], None],
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._ourself = ourself
        self._graph = graph
        self._send = send
        self._chance = chance
        self._channels: dict[str, Gossiper] = {}
        self._foreign = _Foreign(clock)
        #: Unicasts for nobody we know, or that make no sense.
        self.undeliverable = 0

    def register(self, channel: str, gossiper: Gossiper) -> None:
        self._channels[channel] = gossiper

    # -- ours --------------------------------------------------------------------------------------

    def broadcast(self, channel: str, payload: bytes) -> None:
        self._spread(GossipMessage(channel, self._ourself, payload))

    def unicast(self, channel: str, destination: PeerName, payload: bytes) -> None:
        message = GossipMessage(channel, self._ourself, payload, destination)
        self._pass_on(destination, message.encode(), sender=None)

    def everything(self) -> list[bytes]:
        """The messages that tell a newcomer all we know, on every channel."""
        told = [(channel, gossiper.everything()) for channel, gossiper in self._channels.items()]
        return [self._gossip(channel, payload) for channel, payload in told if payload is not None]

    def tell_some_everything(self) -> None:
        """The regular round: tell a few neighbours all we know."""
        neighbours = self._some_neighbours()
        for channel, gossiper in self._channels.items():
            everything = gossiper.everything() if neighbours else None
            if everything is not None:
                self._tell(neighbours, channel, everything)

    # -- what comes in -----------------------------------------------------------------------------

    def receive(self, sender: PeerName, tag: int, body: bytes) -> None:
        """A neighbour's gossip of any kind; ProtocolError if it cannot be understood."""
        if tag == Tag.GOSSIP_UNICAST:
            # Passed on as it is, so what is wrong with it is not the neighbour's fault.
            try:
                self._receive_unicast(sender, body)
            except ProtocolError:
                self.undeliverable += 1
            return
        message = messages.parse_gossip(tag, body)
        gossiper = self._gossiper(message.channel)
        if tag == Tag.GOSSIP:
            news = gossiper.on_gossip(message.payload)
            if news is not None:
                self._tell(self._some_neighbours(but=sender), message.channel, news)
        else:
            more = gossiper.on_broadcast(message.source, message.payload)
            if more is not None:
                self._spread(GossipMessage(message.channel, message.source, more), sender=sender)

    def _receive_unicast(self, sender: PeerName, body: bytes) -> None:
        message = messages.parse_gossip(Tag.GOSSIP_UNICAST, body)
        assert message.destination is not None
        if message.destination == self._ourself:
            self._gossiper(message.channel).on_unicast(message.source, message.payload)
        else:
            self._pass_on(message.destination, body, sender=sender)

    def _gossiper(self, channel: str) -> Gossiper:
        return self._channels.get(channel) or _ForeignChannel(self._foreign, channel)

    # -- spreading ---------------------------------------------------------------------------------

    def _tell(self, neighbours: Sequence[PeerName], channel: str, payload: bytes) -> None:
        message = self._gossip(channel, payload)
        for neighbour in neighbours:
            self._send(neighbour, message)

    def _gossip(self, channel: str, payload: bytes) -> bytes:
        return bytes([Tag.GOSSIP]) + GossipMessage(channel, self._ourself, payload).encode()

    def _spread(self, message: GossipMessage, *, sender: PeerName | None = None) -> None:
        neighbours = routes.forward_to(self._graph(), message.source, self._ourself)
        encoded = bytes([Tag.GOSSIP_BROADCAST]) + message.encode()
        for neighbour in neighbours:
            # While the topology changes, views differ: at least nothing goes straight back.
            if neighbour != sender:
                self._send(neighbour, encoded)

    def _pass_on(self, destination: PeerName, body: bytes, *, sender: PeerName | None) -> None:
        hop = routes.next_hops(self._graph(), self._ourself).get(destination)
        if hop is None or hop == sender:
            self.undeliverable += 1
        else:
            self._send(hop, bytes([Tag.GOSSIP_UNICAST]) + body)

    def _some_neighbours(self, *, but: PeerName | None = None) -> list[PeerName]:
        """min(2·log₂ peers, neighbours) of them, rather those through whom many are reached."""
        hops = routes.next_hops(self._graph(), self._ourself)
        count = int(2 * math.log2(len(hops) + 1))
        candidates = [hop for hop in hops.values() if hop != but]
        self._chance.shuffle(candidates)
        return list(dict.fromkeys(candidates))[:count]


class _Foreign:
    """Channels we have no part in: everything is passed on, the same gossip once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque(maxlen=_REMEMBERED)

    def first_time(self, channel: str, payload: bytes) -> bool:
        now_s = self._clock()
        while self._seen and self._seen[0][0] < now_s - INTERVAL_S:
            self._seen.popleft()
        # Keyed afresh in every process (PYTHONHASHSEED), so nobody can make two messages collide.
        digest = hash((channel, payload))
        if any(digest == seen for _, seen in self._seen):
            return False
        self._seen.append((now_s, digest))
        return True


class _ForeignChannel:
    def __init__(self, foreign: _Foreign, name: str) -> None:
        self._foreign = foreign
        self._name = name

    def everything(self) -> bytes | None:
        return None

    def on_gossip(self, payload: bytes) -> bytes | None:
        return payload if self._foreign.first_time(self._name, payload) else None

    def on_broadcast(self, source: PeerName, payload: bytes) -> bytes | None:  # noqa: ARG002 (Gossiper)
        return payload

    def on_unicast(self, source: PeerName, payload: bytes) -> None:
        pass
