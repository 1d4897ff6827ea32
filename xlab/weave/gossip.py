"""Gossip: how state that everybody shares spreads over the control connections.

Channels are told apart by name.  The topology is the one we have a part in; addresses and DNS names
are others.  Each message says what kind of spreading it is part of:

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
from collections.abc import Callable, Collection, Sequence

from xlab.kernel.clock import Clock
from xlab.weave import messages, routes, topology
from xlab.weave.gob import ProtocolError
from xlab.weave.messages import GossipMessage, Tag
from xlab.weave.names import PeerName
from xlab.weave.topology import Merged, Topology

TOPOLOGY = "topology"

#: How often everyone tells a few neighbours all it knows.
INTERVAL_S = 30.0

#: How many of the last messages on foreign channels are remembered, so as to pass each on once.
_REMEMBERED = 1024


class Gossip:
    """What one router hears and says on all channels.

    It travels over the connections of `known`, whether frames pass there or not; `send` hands a
    message to a neighbour, `on_merged` hears of each update of the topology.
    """

    def __init__(
        self,
        known: Topology,
        *,
        on_merged: Callable[[Merged], None],
        send: Callable[[PeerName, bytes], None],
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._ourself = known.ourself.name
        self._known = known
        self._on_merged = on_merged
        self._send = send
        self._clock = clock
        self._chance = chance
        #: Of messages on foreign channels: when each came, and its digest.
        self._seen: deque[tuple[float, int]] = deque(maxlen=_REMEMBERED)
        #: Unicasts for nobody we know, or that make no sense.
        self.undeliverable = 0

    # -- ours --------------------------------------------------------------------------------------

    def broadcast(self, changed: Collection[PeerName]) -> None:
        """Tell everybody of these peers."""
        self._spread(GossipMessage(TOPOLOGY, self._ourself, self._known.describe(changed)))

    def everything(self) -> bytes:
        """The message that tells a newcomer all we know."""
        return self._gossip(TOPOLOGY, self._known.describe(self._known.peers))

    def tell_some_everything(self) -> None:
        """The regular round: tell a few neighbours all we know."""
        neighbours = self._some_neighbours()
        if neighbours:
            self._tell(neighbours, self.everything())

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
        onward: bytes | None = message.payload
        if message.channel == TOPOLOGY:
            merged = self._known.merge(topology.decode(message.payload), sender=sender)
            self._on_merged(merged)
            # In our words: what we know of these peers may be newer than what came.
            chosen = merged.news if tag == Tag.GOSSIP else merged.described
            onward = self._known.describe(chosen) if chosen else None
        elif tag == Tag.GOSSIP and not self._first_time(message):
            onward = None
        if onward is None:
            return
        if tag == Tag.GOSSIP:
            self._tell(self._some_neighbours(but=sender), self._gossip(message.channel, onward))
        else:
            self._spread(GossipMessage(message.channel, message.source, onward), sender=sender)

    def _receive_unicast(self, sender: PeerName, body: bytes) -> None:
        message = messages.parse_gossip(Tag.GOSSIP_UNICAST, body)
        assert message.destination is not None
        if message.destination != self._ourself:
            self._pass_on(message.destination, body, sender=sender)
        elif message.channel == TOPOLOGY:
            raise ProtocolError("topology gossip to one peer")

    def _first_time(self, message: GossipMessage) -> bool:
        """Whether this has not come before, on a channel that we have no part in."""
        now_s = self._clock()
        while self._seen and self._seen[0][0] < now_s - INTERVAL_S:
            self._seen.popleft()
        # Keyed afresh in every process (PYTHONHASHSEED), so nobody can make two messages collide.
        digest = hash((message.channel, message.payload))
        if any(digest == seen for _, seen in self._seen):
            return False
        self._seen.append((now_s, digest))
        return True

    # -- spreading ---------------------------------------------------------------------------------

    def _tell(self, neighbours: Sequence[PeerName], message: bytes) -> None:
        for neighbour in neighbours:
            self._send(neighbour, message)

    def _gossip(self, channel: str, payload: bytes) -> bytes:
        return bytes([Tag.GOSSIP]) + GossipMessage(channel, self._ourself, payload).encode()

    def _spread(self, message: GossipMessage, *, sender: PeerName | None = None) -> None:
        neighbours = routes.forward_to(self._known.every_link(), message.source, self._ourself)
        encoded = bytes([Tag.GOSSIP_BROADCAST]) + message.encode()
        # While the topology changes, views differ: at least nothing goes straight back.
        self._tell([neighbour for neighbour in neighbours if neighbour != sender], encoded)

    def _pass_on(self, destination: PeerName, body: bytes, *, sender: PeerName) -> None:
        hop = routes.next_hops(self._known.every_link(), self._ourself).get(destination)
        if hop is None or hop == sender:
            self.undeliverable += 1
        else:
            self._send(hop, bytes([Tag.GOSSIP_UNICAST]) + body)

    def _some_neighbours(self, *, but: PeerName | None = None) -> list[PeerName]:
        """min(2·log₂ peers, neighbours) of them, rather those through whom many are reached."""
        hops = routes.next_hops(self._known.every_link(), self._ourself)
        count = int(2 * math.log2(len(hops) + 1))
        candidates = [hop for hop in hops.values() if hop != but]
        self._chance.shuffle(candidates)
        return list(dict.fromkeys(candidates))[:count]
