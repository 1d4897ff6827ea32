"""Who is in the network and connected to whom: what peers tell each other on the topology channel.

Every peer describes itself and counts the versions of its description; descriptions are passed on
by everybody.  Of two descriptions of one peer the higher version counts, then the higher UID, which
is another after each restart of its router.  A peer that tells two routers different things under
one version lies; of these the greater in bytes counts, so that all come to the same view.  A router
that sees itself described otherwise than it does, as an earlier life of its own was, makes its
version higher than that.

Above the highest version there is none, so who could say it of another peer would have the last
word.  Versions count changes: what others say to be far beyond what is known is not believed, and
what a neighbour says of itself counts more than what is that far beyond it.

What cannot be reached from here any more is forgotten.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from xlab.weave import gob, names, routes
from xlab.weave.gob import Basic, ProtocolError
from xlab.weave.messages import SHORT_ID_BITS
from xlab.weave.names import PeerName

#: Short IDs have 12 bits, so Weave Net itself cannot have more.
PEER_LIMIT = 1 << SHORT_ID_BITS
#: Of all peers together: a full mesh of 450.
LINK_LIMIT = 200_000
#: Of Go, for the two types of an update: 161 bytes.
_DEFINITIONS_LIMIT = 4096
#: Descriptions that are kept once taken apart: with 400 connections a peer's is as long as this.
#: A link takes ten bytes there and two hundred here, so links are counted: those of a whole mesh.
_REMEMBERED, _REMEMBERED_BYTES, _REMEMBERED_LINKS = 1024, 16 << 10, LINK_LIMIT
_NICKNAME_LIMIT = 255
_ADDRESS_LIMIT = 64

_HIGHEST_VERSION = (1 << 64) - 1
#: No router's links change that often while another does not hear of it.
_VERSION_STEP = 1 << 32
#: Of a peer not heard of before.  It may have been driven up, by steps: 2³¹ of them lead beyond.
_HIGHEST_FIRST_VERSION = 1 << 63


@dataclass(frozen=True, slots=True)
class Link:
    """One peer's end of a connection."""

    #: "ADDRESS:PORT" of the TCP connection's other end, as the peer at this end sees it.
    remote_address: str
    #: Whether this end has dialled: otherwise the port is of no use to anyone else.
    outbound: bool
    #: Whether an overlay carries frames.
    established: bool


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer's description of itself."""

    name: PeerName
    nickname: str
    uid: int
    version: int = 0
    short_id: int | None = None
    links: Mapping[PeerName, Link] = field(default_factory=dict)
    #: What `encode` has made of it: the same description is told many times over.
    encoded: tuple[bytes, bytes] | None = field(default=None, init=False, repr=False, compare=False)

    def older_than(self, other: Peer) -> bool:
        """Whether `other` is news to who knows this."""
        ours, theirs = (
            (peer.version, peer.uid, peer.short_id is not None) for peer in (self, other)
        )
        if ours != theirs or self == other:
            return ours < theirs
        return (self.encoded or _encode(self)) < (other.encoded or _encode(other))

    def far_beyond(self, known: Peer | None) -> bool:
        """Whether the peer cannot have come to this version since it was `known`."""
        # Who has only introduced itself (version 0) has not said how far it is.
        if known is None or (known.version == 0 and not known.links):
            return self.version > _HIGHEST_FIRST_VERSION
        return self.version > known.version + _VERSION_STEP

    def same_as(self, other: Peer) -> bool:
        """Whether `other` says nothing else."""
        return self == replace(other, name=self.name, nickname=self.nickname)


@dataclass(frozen=True, slots=True)
class Merged:
    """What has become of an update."""

    #: All peers it described.
    described: frozenset[PeerName]
    #: Those of which it knew more than we.
    news: frozenset[PeerName]
    #: Our own description has a new version because of it.
    ourself_changed: bool
    #: It described us otherwise than we do, with a version that beats ours: an earlier life of
    #: this router, another router of this name, or a lie.
    other_self: bool


class Topology:
    """All peers that can be reached, our own router among them."""

    def __init__(self, ourself: Peer, *, chance: random.Random) -> None:
        self._ourself = ourself.name
        self._chance = chance
        self.peers: dict[PeerName, Peer] = {ourself.name: ourself}
        #: Descriptions that there was no room for.
        self.refused = 0
        #: Those with a version that cannot be.
        self.disbelieved = 0

    @property
    def ourself(self) -> Peer:
        return self.peers[self._ourself]

    def introduce(self, peer: Peer) -> None:
        """A peer has introduced itself to us; its own gossip will say more."""
        self.peers.setdefault(peer.name, peer)

    def set_link(self, remote: PeerName, link: Link | None) -> None:
        """Our end of the connection to `remote` has changed, or is gone."""
        links = {name: known for name, known in self.ourself.links.items() if name != remote}
        if link:
            links[remote] = link
        self._renew(links=links)
        if not link:
            self._forget_unreachable()

    def merge(self, update: Collection[Peer], *, sender: PeerName | None = None) -> Merged:
        """Learn from an update of neighbour `sender` what is new in it."""
        news = set()
        version = self.ourself.version
        links = sum(len(peer.links) for peer in self.peers.values())
        for peer in update:
            known = self.peers.get(peer.name)
            in_person = peer.name == sender
            if peer.far_beyond(known) and not in_person:
                self.disbelieved += 1
            elif peer.name == self._ourself:
                if peer.version >= version and not peer.same_as(self.ourself):
                    version = min(peer.version + 1, _HIGHEST_VERSION)
            elif known is None or known.older_than(peer) or (in_person and known.far_beyond(peer)):
                more_links = len(peer.links) - (len(known.links) if known else 0)
                if len(self.peers) + (not known) > PEER_LIMIT or links + more_links > LINK_LIMIT:
                    self.refused += 1
                    continue
                links += more_links
                self.peers[peer.name] = peer
                news.add(peer.name)
        changed = other_self = version != self.ourself.version
        if changed:
            self.peers[self._ourself] = replace(self.ourself, version=version)
        if news:
            self._forget_unreachable()
            changed |= self._resolve_short_id()
        return Merged(
            described=frozenset(peer.name for peer in update),
            news=frozenset(news & self.peers.keys()),
            ourself_changed=changed,
            other_self=other_self,
        )

    def describe(self, chosen: Collection[PeerName]) -> bytes:
        """An update with the descriptions of those of the chosen that we know."""
        return encode([self.peers[name] for name in sorted(chosen) if name in self.peers])

    # -- as graphs ---------------------------------------------------------------------------------

    def every_link(self) -> routes.Graph:
        """Whom each peer says it is connected to: the way of gossip."""
        return {name: peer.links.keys() for name, peer in self.peers.items()}

    def established_links(self) -> routes.Graph:
        """Connections that both ends say are established: the way of frames."""
        # Lists: of 400 routers that all know each other sets take 26 MB, in each router.
        nobody: Mapping[PeerName, Link] = {}
        links = {name: peer.links for name, peer in self.peers.items()}
        return {
            name: [
                other
                for other, link in own.items()
                if link.established
                and (back := links.get(other, nobody).get(name))
                and back.established
            ]
            for name, own in links.items()
        }

    # -- keeping it true ---------------------------------------------------------------------------

    def _renew(self, **changes: Any) -> None:
        """A new version of our own description."""
        version = min(self.ourself.version + 1, _HIGHEST_VERSION)
        self.peers[self._ourself] = replace(self.ourself, version=version, **changes)

    def _forget_unreachable(self) -> None:
        reached = routes.next_hops(self.every_link(), self._ourself)
        for name in self.peers.keys() - reached.keys() - {self._ourself}:
            del self.peers[name]

    def _resolve_short_id(self) -> bool:
        """Of peers with the same short ID the one with the lowest name keeps it."""
        taken = {peer.short_id for name, peer in self.peers.items() if name < self._ourself}
        if self.ourself.short_id is None or self.ourself.short_id not in taken:
            return False
        taken |= {peer.short_id for peer in self.peers.values()}
        free = [number for number in range(1 << SHORT_ID_BITS) if number not in taken]
        if not free:
            return False
        self._renew(short_id=self._chance.choice(free))
        return True


# -- on the wire: for each peer its summary and a slice of its connections' ------------------------

_PEER = gob.Struct(
    "peerSummary",
    (
        ("NameByte", Basic.BYTES),
        ("NickName", Basic.STRING),
        ("UID", Basic.UINT),
        ("Version", Basic.UINT),
        ("ShortID", Basic.UINT),
        ("HasShortID", Basic.BOOL),
    ),
)
_LINKS = gob.Slice(
    gob.Struct(
        "connectionSummary",
        (
            ("NameByte", Basic.BYTES),
            ("RemoteTCPAddr", Basic.STRING),
            ("Outbound", Basic.BOOL),
            ("Established", Basic.BOOL),
        ),
    )
)


#: What stands before the first value of each kind in an update, and how their types are numbered.
_ENCODER = gob.Encoder()
_PEER_DEFINITION, _LINKS_DEFINITION = _ENCODER.definitions(_PEER), _ENCODER.definitions(_LINKS)


def encode(peers: Collection[Peer]) -> bytes:
    """An update that describes `peers`, as Go's encoder would write it."""
    parts: list[bytes] = []
    for peer in peers:
        summary, links = peer.encoded or _encode(peer)
        if not parts:
            # Types are defined where they are first needed.
            parts += [_PEER_DEFINITION, summary, _LINKS_DEFINITION, links]
        else:
            parts += [summary, links]
    return b"".join(parts)


def _encode(peer: Peer) -> tuple[bytes, bytes]:
    """The two values that describe a peer, without the definitions of their types."""
    summary = _ENCODER.value(
        _PEER,
        {
            "NameByte": peer.name,
            "NickName": peer.nickname,
            "UID": peer.uid,
            "Version": peer.version,
            "ShortID": peer.short_id or 0,
            "HasShortID": peer.short_id is not None,
        },
    )
    links = _ENCODER.value(
        _LINKS,
        [
            {
                "NameByte": name,
                "RemoteTCPAddr": link.remote_address,
                "Outbound": link.outbound,
                "Established": link.established,
            }
            for name, link in sorted(peer.links.items())
        ],
    )
    object.__setattr__(peer, "encoded", (summary, links))
    return summary, links


def decode(update: bytes) -> list[Peer]:
    """The peers that an update describes.

    Raises ProtocolError for what is no update.  Impossible descriptions are left out, since the
    neighbour may only be passing them on; so are placeholders (UID 0), by which Weave Net keeps a
    place for peers it has only heard of.

    In a mesh of n routers each hears the same descriptions from several neighbours, and all of them
    again in every regular round: those of reasonable size are taken apart once.
    """
    peers: list[Peer] = []
    definitions, pair, values_left = b"", b"", gob.VALUE_LIMIT
    described = 0
    waiting = False
    for is_definition, message in gob.Decoder(update).messages():
        if is_definition:
            definitions += message
            if len(definitions) > _DEFINITIONS_LIMIT:
                raise ProtocolError("topology: too many definitions")
        elif not pair:
            pair = message
        else:
            described += 1
            if described > PEER_LIMIT:
                raise ProtocolError(f"topology: more than {PEER_LIMIT} peers")
            whole = definitions + pair + message
            read = _read_once if len(whole) <= _REMEMBERED_BYTES else _read
            peer, values = read(whole)
            values_left -= values
            if values_left < 0:
                raise ProtocolError("topology: too many values")
            if peer:
                peers.append(peer)
            pair = b""
        waiting = is_definition or bool(pair)
    if waiting:
        raise ProtocolError("topology: no peer with its connections")
    return peers


def _read(description: bytes) -> tuple[Peer | None, int]:
    """The peer of definitions and two values, None for an impossible one; and how many values."""
    decoder = gob.Decoder(description)
    summary = decoder.decode()
    links = decoder.decode()
    if not isinstance(summary, dict) or not isinstance(links, list):
        raise ProtocolError("topology: no peer with its connections")
    short_id = _field(summary, "ShortID", int)
    peer = Peer(
        name=_field(summary, "NameByte", bytes),
        nickname=_field(summary, "NickName", str),
        uid=_field(summary, "UID", int),
        version=_field(summary, "Version", int),
        short_id=short_id % PEER_LIMIT if summary.get("HasShortID") is True else None,
        links=dict(_decode_link(link) for link in links),
    )
    return (peer if _plausible(peer) else None), decoder.values


class _Remembered:
    """What `_read` has made of the descriptions that were heard last."""

    def __init__(self) -> None:
        self._read: OrderedDict[bytes, tuple[Peer | None, int]] = OrderedDict()
        self._links = 0

    def __call__(self, description: bytes) -> tuple[Peer | None, int]:
        """As `_read`; the same objects again if it is remembered."""
        read = self._read.get(description)
        if read is not None:
            self._read.move_to_end(description)
            return read
        read = self._read[description] = _read(description)
        self._links += _links(read)
        while len(self._read) > _REMEMBERED or self._links > _REMEMBERED_LINKS:
            _, forgotten = self._read.popitem(last=False)
            self._links -= _links(forgotten)
        return read


def _links(read: tuple[Peer | None, int]) -> int:
    return len(read[0].links) if read[0] else 0


_read_once = _Remembered()


def _plausible(peer: Peer) -> bool:
    return (
        names.valid(peer.name)
        and peer.uid != 0
        and len(peer.nickname) <= _NICKNAME_LIMIT
        and len(peer.links) < PEER_LIMIT
        and all(
            names.valid(other) and len(link.remote_address) <= _ADDRESS_LIMIT
            for other, link in peer.links.items()
        )
    )


def _decode_link(summary: object) -> tuple[PeerName, Link]:
    if not isinstance(summary, dict):
        raise ProtocolError("topology: a connection is no struct")
    return _field(summary, "NameByte", bytes), Link(
        remote_address=_field(summary, "RemoteTCPAddr", str),
        outbound=summary.get("Outbound") is True,
        established=summary.get("Established") is True,
    )


_T = TypeVar("_T")
_KINDS: Mapping[type, str] = {int: "unsigned number", str: "string", bytes: "byte slice"}


def _field(summary: Mapping[str, object], key: str, kind: type[_T]) -> _T:
    """What a struct has under `key`; what is zero it has not."""
    value = summary.get(key, kind())
    # To Python a boolean is a number.
    negative = isinstance(value, int) and value < 0
    if not isinstance(value, kind) or isinstance(value, bool) or negative:
        raise ProtocolError(f"topology: {key} is no {_KINDS[kind]}")
    return value
