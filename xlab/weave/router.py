"""The control plane of one router, without a socket in it.

             TCP bytes in ──> Connection ──> messages ──> Gossip ──> Topology ──> routes
             TCP bytes out <──────────────────────────────┘ (and what changed)      │
             addresses to dial <── Targets <── gossip, people                       v
             overlay control messages, neighbours <────────────────────────> Overlay (frames)

What has sockets tells it what happens (`accepted`, `connected`, `received`, …) and calls
`timers.run`; it answers through the streams it was given and through `dial`.

Nothing that a peer sends raises out of here.  What cannot be understood ends that connection and is
counted.  What a callback asks for happens when the thread is back in its loop (`timers.soon`), so
that no connection vanishes under those who are just going through the list.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from xlab.weave import messages, names, routes
from xlab.weave.connection import DEAD_AFTER_S, HANDSHAKE_S, HEARTBEAT_S, Connection, Stream
from xlab.weave.fastdp import Admitted, Overlay
from xlab.weave.gob import ProtocolError
from xlab.weave.gossip import INTERVAL_S, Gossip
from xlab.weave.messages import Features, Tag
from xlab.weave.names import PeerName
from xlab.weave.targets import Address, Targets
from xlab.weave.timers import Timer, Timers
from xlab.weave.topology import Link, Merged, Peer, Topology

PORT = 6783

#: Changes are gathered before routes are calculated anew and before others hear of them.  In a
#: large mesh, where everyone tells everyone, they are gathered for as long as Weave Net does it.
_ROUTES_DELAY_S = 0.02
_GOSSIP_DELAY_S = 0.02
_DELAY_PER_NEIGHBOUR_S = 0.01
_LONGEST_DELAY_S = 1.0

#: Many attempts may fail at once: which are next is worked out with such a pause.
_DIAL_SPACING_S = 0.02

#: Connections whose other end has not yet said who it is.
_STRANGER_LIMIT = 256
_NEIGHBOUR_LIMIT = 1000
#: Of both, those that one address has dialled: it cannot keep the others out.
_ADDRESS_LIMIT = 64
#: Of all messages that are not complete yet together: a dozen of the longest.  A regular round of a
#: mesh of 200 brings 27 MB at once.
_UNFINISHED_LIMIT_BYTES = 128 * 1024 * 1024

#: A connection in whose place another would be is asked whether it lives, and has that long.
ANSWER_S = 1.0

#: Who describes us otherwise than we do is contradicted as often as that, as in Weave Net: another
#: router of our name contradicts us in its turn.
_CONTRADICTION_S = 1.0
#: An earlier life of ours is overruled once or twice.
_QUARREL = 3


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this router is, and what it tells everyone."""

    name: PeerName
    nickname: str
    #: What it says it can carry frames with, best first.
    overlays: tuple[str, ...]
    #: The one of them that does.
    overlay: str
    port: int = PORT


@dataclass(slots=True)
class _Question:
    """Whether a connection still lives."""

    #: What the other host had confirmed before we asked.
    confirmed_bytes: int
    #: Who takes its place if not; held until then.
    heir: Connection | None = None


class Router:
    """One peer's view of the network, and its connections."""

    def __init__(
        self,
        identity: Identity,
        *,
        overlay: Overlay,
        timers: Timers,
        dial: Callable[[Address], None],
        log: Callable[[str], None],
        chance: random.Random,
    ) -> None:
        self.identity = identity
        self.overlay = overlay
        self.timers = timers
        self.counters: Counter[str] = Counter()
        #: By the name of the peer at the other end; what it said it is called is in `peer`.
        self.neighbours: dict[PeerName, Connection] = {}
        self._strangers: set[Connection] = set()
        #: How many each address has dialled.
        self._accepted: Counter[IPv4Address] = Counter()
        #: By the connection that was asked.
        self._questions: dict[Connection, _Question] = {}
        #: Connections in the middle of a message, and how much of it is there.
        self._unfinished: dict[Connection, int] = {}
        self._dial = dial
        self._log = log
        self._chance = chance
        self.topology = Topology(
            Peer(
                name=identity.name,
                nickname=identity.nickname,
                uid=chance.randrange(1, 1 << 64),
                short_id=chance.randrange(1 << messages.SHORT_ID_BITS),
            ),
            chance=chance,
        )
        self.gossip = Gossip(
            self.topology,
            on_merged=self._on_merged,
            send=self._send,
            clock=timers.clock,
            chance=chance,
        )
        self.targets = Targets(identity.name, port=identity.port, clock=timers.clock, chance=chance)
        self.routes = routes.Routes({}, {})
        self._routes_timer: Timer | None = None
        self._dial_timer: Timer | None = None
        #: When whom to dial may be worked out again.
        self._dial_from_s = timers.clock()
        self._refresh_targets = True
        self._contradiction: Timer | None = None
        self._contradicted_at_s = timers.clock() - _CONTRADICTION_S
        #: Whom others should hear of, and when they will.
        self._changed: set[PeerName] = set()
        self._gossip_timer: Timer | None = None
        self._calculate_routes()
        self.timers.after(INTERVAL_S, self._regular_round)

    # -- what people ask for -----------------------------------------------------------------------

    def connect(self, addresses: Iterable[tuple[IPv4Address, int | None]]) -> None:
        """Dial these, and go on until somebody is there."""
        for ip, port in addresses:
            self.targets.add(ip, port)
        self._targets_changed()

    def forget(self, addresses: Iterable[tuple[IPv4Address, int | None]]) -> None:
        """Do not dial these any more.  A connection that is there stays, as in Weave Net."""
        for ip, port in addresses:
            self.targets.remove(ip, port)
        self._targets_changed()

    # -- what happens to connections ---------------------------------------------------------------

    def accepted(self, stream: Stream, remote: Address) -> Connection | None:
        """Somebody has dialled us; None if there are too many strangers already, or too many of
        that address."""
        if len(self._strangers) >= _STRANGER_LIMIT or self._accepted[remote.ip] >= _ADDRESS_LIMIT:
            self.counters["refused_strangers"] += 1
            return None
        self.counters["accepted"] += 1
        self._accepted[remote.ip] += 1
        return self._begin(stream, remote, outbound=False)

    def connected(self, stream: Stream, remote: Address) -> Connection:
        """What we dialled has answered."""
        return self._begin(stream, remote, outbound=True)

    def dial_failed(self, address: Address, reason: str) -> None:
        """What we dialled has not."""
        self.counters["dials_failed"] += 1
        self.targets.failed(address, reason)
        self._dial_soon()

    def received(self, connection: Connection, data: bytes) -> None:
        """Bytes from the peer."""
        try:
            for message in connection.receive(data):
                if message == Connection.INTRODUCED:
                    self._introduced(connection)
                else:
                    self._handle(connection, message)
        except ProtocolError as error:
            self.counters["protocol_errors"] += 1
            self._drop(connection, str(error))
        self._bound_unfinished(connection)

    def _bound_unfinished(self, connection: Connection) -> None:
        """Bytes have come from this one.  If there is too much of all, who has not completed a
        message for longest must go: those who mean to do so are quick.
        """
        if connection.unfinished_bytes:
            self._unfinished[connection] = connection.unfinished_bytes
        else:
            self._unfinished.pop(connection, None)
        while sum(self._unfinished.values()) > _UNFINISHED_LIMIT_BYTES:
            slowest = min(self._unfinished, key=lambda unfinished: unfinished.last_heard_s)
            self.counters["dropped_unfinished"] += 1
            self._drop(slowest, "the rest of its message does not come, and there is no room left")

    def disconnected(self, connection: Connection, reason: str) -> None:
        """The stream has ended.  Before frames have passed that is no trouble, nor if there is an
        heir: peers hang up on the second of two connections."""
        question = self._questions.get(connection)
        trouble = connection.established and not (question and question.heir)
        self._drop(connection, reason, trouble=trouble)

    def close(self) -> None:
        """Hang up on everybody."""
        for connection in (*self._strangers, *self.neighbours.values()):
            connection.close()

    # -- a connection's life -----------------------------------------------------------------------

    def _begin(self, stream: Stream, remote: Address, *, outbound: bool) -> Connection:
        ourself = self.topology.ourself
        connection = Connection(
            stream,
            remote=remote,
            outbound=outbound,
            clock=self.timers.clock,
            features=Features(
                name=ourself.name,
                nickname=ourself.nickname,
                uid=ourself.uid,
                connection_id=self._chance.getrandbits(64),
                short_id=ourself.short_id,
                overlays=self.identity.overlays,
            ),
        )
        self._strangers.add(connection)
        connection.start()
        self._after(connection, HANDSHAKE_S, self._require_introduction)
        return connection

    def _after(
        self, connection: Connection, delay_s: float, call: Callable[[Connection], None]
    ) -> None:
        """Call it with the connection if that is still open then."""
        connection.timers = [timer for timer in connection.timers if timer.pending]
        connection.timers.append(self.timers.after(delay_s, lambda: call(connection)))

    def _require_introduction(self, connection: Connection) -> None:
        if connection.peer is None:
            self._drop(connection, f"the peer did not introduce itself within {HANDSHAKE_S:g} s")

    def _introduced(self, connection: Connection) -> None:
        """We know who is at the other end: admit the peer, or hang up."""
        peer, ourself = connection.introduced, self.topology.ourself
        if peer.name == ourself.name and peer.uid == ourself.uid:
            self._drop(connection, "it is this router itself", trouble=False)
        elif peer.name == ourself.name:
            self._drop(connection, "another router has this router's name")
        elif self._overlay_index(connection) is None:
            ours, offered = self.identity.overlay, " ".join(peer.overlays)[:80] or "none"
            self._drop(connection, f"no common overlay: {ours} here, there {offered}")
        elif former := self.neighbours.get(peer.name):
            self._contend(connection, former)
        elif len(self.neighbours) >= _NEIGHBOUR_LIMIT:
            self._drop(connection, f"there are {_NEIGHBOUR_LIMIT} connections already")
        else:
            self._admit(connection)

    def _overlay_index(self, connection: Connection) -> int | None:
        """The place of our overlay among those both ends know, which control messages carry."""
        ours, theirs = self.identity.overlays, connection.introduced.overlays
        common = messages.common_overlays(
            *((ours, theirs) if connection.outbound else (theirs, ours))
        )
        return common.index(self.identity.overlay) if self.identity.overlay in common else None

    def _contend(self, connection: Connection, former: Connection) -> None:
        """A second connection to a peer, or to somebody of its name.

        Two routers that dial each other at once both keep that with the lower UID.  A peer that was
        restarted comes with another UID of its own, and so does a stranger; who has listened to
        gossip can choose both UIDs.  So nobody takes the place of a connection that lives: the new
        one waits until the other has ended or has not answered.  If the peer itself prefers the new
        one, it hangs up on the other.
        """
        peer = connection.introduced
        restarted = peer.uid != former.introduced.uid
        self.counters["duplicates"] += 1
        question = self._questions.get(former) or self._ask(former)
        waiting = question.heir is not None and not question.heir.closed
        if not waiting and (restarted or connection.uid < former.uid):
            question.heir = connection
            connection.hold()
            if restarted:
                # So it finds the others now, who will ask their connections at the same time.
                connection.send(self.gossip.everything())
        else:
            self._drop(connection, f"multiple connections to {describe(peer)}", trouble=False)

    def _ask(self, connection: Connection) -> _Question:
        """Ask a connection whether it lives.

        The protocol knows no answer to a heartbeat.  But the other host's kernel confirms that it
        has arrived, or resets what it knows nothing of: that is as good, and every peer does it.
        """
        question = self._questions[connection] = _Question(connection.confirmed_bytes)
        connection.send(bytes([Tag.HEARTBEAT]))
        self._after(connection, ANSWER_S, self._judge)
        return question

    def _judge(self, connection: Connection) -> None:
        """The time to answer is over."""
        question = self._questions[connection]
        heir, peer = question.heir, connection.introduced
        same_life = heir is None or heir.introduced.uid == peer.uid
        if connection.confirmed_bytes <= question.confirmed_bytes:
            self._drop(
                connection,
                "this connection does not answer, and the peer has another"
                if same_life
                else "the peer was restarted: its former connection does not answer",
            )
            return
        del self._questions[connection]
        if heir and same_life:
            self._drop(heir, f"multiple connections to {describe(peer)}", trouble=False)
        elif heir:
            self._drop(heir, f"another router has this name, at {connection.remote}")

    def _admit(self, connection: Connection) -> None:
        """This is the connection to its peer from now on."""
        peer, index = connection.introduced, self._overlay_index(connection)
        assert index is not None
        self._strangers.discard(connection)
        self.neighbours[peer.name] = connection
        known = self.topology.peers.get(peer.name)
        newcomer = known is None or known.uid != peer.uid or peer.name not in self.routes.unicast
        self.topology.introduce(
            Peer(name=peer.name, nickname=peer.nickname, uid=peer.uid, short_id=peer.short_id)
        )
        if connection.outbound:
            self.targets.reached(connection.remote, peer.name)
        self._publish_link(connection)
        self._changed.add(peer.name)
        if newcomer:
            connection.send(self.gossip.everything())
        ip, port = connection.remote
        admitted = Admitted(
            connection.uid,
            remote=(str(ip), port) if connection.outbound else None,
            send_control=lambda subtag, data: connection.send(
                messages.overlay_control(index, subtag, data)
            ),
            on_established=lambda: self.timers.soon(lambda: self._established(connection)),
            on_dead=lambda reason: self.timers.soon(
                lambda: self._drop(connection, f"{self.identity.overlay}: {reason}")
            ),
        )
        self.overlay.add(peer.name, admitted)
        self._after(connection, HEARTBEAT_S, self._heartbeat)
        self._after(connection, DEAD_AFTER_S, self._require_life)
        self._targets_changed()

    def _established(self, connection: Connection) -> None:
        if not connection.closed and not connection.established:
            connection.established = True
            self._publish_link(connection)

    def _publish_link(self, connection: Connection) -> None:
        link = Link(
            remote_address=str(connection.remote),
            outbound=connection.outbound,
            established=connection.established,
        )
        self.topology.set_link(connection.introduced.name, link)
        self._topology_changed(self.identity.name)

    def _heartbeat(self, connection: Connection) -> None:
        connection.send(bytes([Tag.HEARTBEAT]))
        self._after(connection, HEARTBEAT_S, self._heartbeat)

    def _require_life(self, connection: Connection) -> None:
        left_s = connection.last_heard_s + DEAD_AFTER_S - self.timers.clock()
        if left_s > 0:
            self._after(connection, left_s, self._require_life)
        else:
            self._drop(connection, f"nothing heard from the peer for {DEAD_AFTER_S:g} s")

    def _drop(self, connection: Connection, reason: str, *, trouble: bool = True) -> None:
        """Hang up.  `trouble` is worth a line of the log."""
        if connection.closed:
            return
        peer = connection.peer
        if trouble:
            who = f" {describe(peer)}" if peer else ""
            self._log(f"{connection.remote}{who}: {reason}")
        self._hang_up(connection, reason)
        if not peer or self.neighbours.get(peer.name) is not connection:
            return
        del self.neighbours[peer.name]
        self.overlay.remove(peer.name)
        question = self._questions.pop(connection, None)
        heir = question.heir if question else None
        if heir and not heir.closed:
            # Those behind the peer are not forgotten: it does not tell us of them again.
            self._admit(heir)
            heir.release()
            self.timers.soon(lambda: self.received(heir, b""))
        else:
            self.topology.set_link(peer.name, None)
            self._topology_changed(self.identity.name)

    def _hang_up(self, connection: Connection, reason: str) -> None:
        connection.close()
        self._strangers.discard(connection)
        self._unfinished.pop(connection, None)
        self.counters["dropped"] += 1
        if connection.outbound:
            peer, ourself = connection.peer, self.topology.ourself
            self.targets.failed(
                connection.remote,
                reason,
                peer=peer.name if peer else None,
                itself=peer is not None and (peer.name, peer.uid) == (ourself.name, ourself.uid),
            )
        else:
            self._accepted[connection.remote.ip] -= 1
            if not self._accepted[connection.remote.ip]:
                del self._accepted[connection.remote.ip]
        self._targets_changed()

    # -- messages ----------------------------------------------------------------------------------

    def _handle(self, connection: Connection, message: bytes) -> None:
        neighbour, tag, body = connection.introduced.name, message[0], message[1:]
        match tag:
            case Tag.HEARTBEAT:
                pass
            case Tag.GOSSIP | Tag.GOSSIP_UNICAST | Tag.GOSSIP_BROADCAST:
                self.gossip.receive(neighbour, tag, body)
            case Tag.OVERLAY_CONTROL:
                index, subtag, data = messages.parse_overlay_control(body)
                if index == self._overlay_index(connection):
                    self.overlay.control(neighbour, subtag, data)
                else:
                    self.counters["control_of_other_overlays"] += 1
            case _:
                # Weave Net ignores tags it does not know; so will we be compatible with what comes.
                self.counters["unknown_tags"] += 1

    def _send(self, neighbour: PeerName, message: bytes) -> None:
        connection = self.neighbours.get(neighbour)
        if connection:
            connection.send(message)

    # -- when the topology changes -----------------------------------------------------------------

    def _on_merged(self, merged: Merged) -> None:
        if merged.other_self:
            self.counters["other_self"] += 1
            if self.counters["other_self"] == _QUARREL:
                self._log("another router has this router's name")
            if not (self._contradiction and self._contradiction.pending):
                wait_s = self._contradicted_at_s + _CONTRADICTION_S - self.timers.clock()
                self._contradiction = self.timers.after(max(0.0, wait_s), self._contradict)
        elif merged.ourself_changed:
            self._topology_changed(self.identity.name)
        if merged.news:
            self._topology_changed()
            self._targets_changed()

    def _contradict(self) -> None:
        self._contradicted_at_s = self.timers.clock()
        self._topology_changed(self.identity.name)

    def _topology_changed(self, *to_tell: PeerName) -> None:
        """Calculate routes anew, and have others hear of some peers, both shortly."""
        gathered_s = min(_LONGEST_DELAY_S, _DELAY_PER_NEIGHBOUR_S * len(self.neighbours))
        if not (self._routes_timer and self._routes_timer.pending):
            self._routes_timer = self.timers.after(
                _ROUTES_DELAY_S + gathered_s / 10, self._calculate_routes
            )
        self._changed.update(to_tell)
        if self._changed and not (self._gossip_timer and self._gossip_timer.pending):
            self._gossip_timer = self.timers.after(_GOSSIP_DELAY_S + gathered_s, self._tell_changes)

    def _calculate_routes(self) -> None:
        self.routes = routes.calculate(self.topology.established_links(), self.identity.name)
        self.overlay.set_routes(self.routes)

    def _tell_changes(self) -> None:
        changed, self._changed = self._changed, set()
        self.gossip.broadcast(changed)

    def _regular_round(self) -> None:
        self.gossip.tell_some_everything()
        self.timers.after(INTERVAL_S, self._regular_round)

    # -- dialling ----------------------------------------------------------------------------------

    def _targets_changed(self) -> None:
        """Whom to dial has to be worked out anew."""
        self._refresh_targets = True
        self._dial_soon()

    def _dial_soon(self) -> None:
        self._dial_at(self._dial_from_s)

    def _dial_at(self, at_s: float) -> None:
        if self._dial_timer and self._dial_timer.pending:
            if self._dial_timer.at_s <= at_s:
                return
            self._dial_timer.cancel()
        self._dial_timer = self.timers.after(
            max(0.0, at_s - self.timers.clock()), self._dial_targets
        )

    def _dial_targets(self) -> None:
        began_s = self.timers.clock()
        ours = self.topology.ourself.links
        if self._refresh_targets:
            self._refresh_targets = False
            self.targets.refresh(ours, self.topology.peers.values())
        due, ask_again_s = self.targets.due(ours)
        now_s = self.timers.clock()
        # Gossip of many links takes long, and others may come at once: half the time is for frames.
        self._dial_from_s = now_s + max(_DIAL_SPACING_S, now_s - began_s)
        if ask_again_s is not None:
            self._dial_at(ask_again_s)
        for address in due:
            self.counters["dialled"] += 1
            self._dial(address)


def describe(peer: Features | Peer) -> str:
    """ "7a:16:dd:5b:e5:9a(h2)": of the nickname, a stranger's choice, what can be shown."""
    nickname = "".join(c if c.isprintable() and not c.isspace() else "?" for c in peer.nickname)
    return f"{names.text(peer.name)}({nickname[:64]})"
