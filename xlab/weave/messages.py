"""What two peers say to each other over their TCP connection, and how it looks in bytes.

    weave MIN MAX                      both sides at once; the highest version both know wins
    0  |  1 KEY(32)                    without a password, or with one
    LENGTH(4) MESSAGE …                the first message is the sender's features, a gob map

    message    TAG(1) BODY
      0 heartbeat
      4 gossip   5 unicast   6 broadcast     gob values: channel, source, [destination,] payload
      7 overlay control                      INDEX(1) SUBTAG(1) DATA

Pure: the state that a connection needs is in `connection`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from xlab.weave import gob, names
from xlab.weave.gob import Basic, ProtocolError
from xlab.weave.names import PeerName

_MAGIC: Final = b"weave"
_MIN_VERSION: Final = 1
_VERSION: Final = 2

#: What both sides send first.
HEADER: Final = _MAGIC + bytes([_MIN_VERSION, _VERSION])

#: The flag that follows the header.
PLAIN: Final = 0
ENCRYPTED: Final = 1

LENGTH_BYTES: Final = 4
FRAME_LIMIT_BYTES: Final = 10 * 1024 * 1024
#: Before we know who is there, less will do: features take about 200 bytes.
FEATURES_LIMIT_BYTES: Final = 16 * 1024

SHORT_ID_BITS: Final = 12


class Tag(IntEnum):
    """The first byte of a message.  1 to 3 were control messages of protocol version 1."""

    HEARTBEAT = 0
    GOSSIP = 4
    GOSSIP_UNICAST = 5
    GOSSIP_BROADCAST = 6
    OVERLAY_CONTROL = 7


def check_header(header: bytes) -> None:
    """ProtocolError unless the peer is a weave router that knows version 2 of the protocol."""
    if header[: len(_MAGIC)] != _MAGIC:
        raise ProtocolError(f"not a weave router: it began with {header[: len(_MAGIC)]!r}")
    lowest, highest = header[len(_MAGIC) :]
    if not lowest <= _VERSION <= highest:
        raise ProtocolError(
            f"the peer speaks versions {lowest} to {highest} of the protocol, not {_VERSION}"
        )


def frame(message: bytes) -> bytes:
    return struct.pack(">I", len(message)) + message


# -- features --------------------------------------------------------------------------------------

_FEATURE_MAP = gob.Map(Basic.STRING, Basic.STRING)


@dataclass(frozen=True, slots=True)
class Features:
    """How a peer introduces itself on a connection."""

    name: PeerName
    nickname: str
    #: Of this run of the router: never 0, another after each restart.
    uid: int
    #: One half of the connection's UID: that is the XOR of both sides' ConnIDs.
    connection_id: int
    short_id: int | None
    #: What can carry frames, best first.
    overlays: tuple[str, ...]

    def encode(self) -> bytes:
        features = {
            "PeerNameFlavour": "mac",
            "Name": names.text(self.name),
            "NickName": self.nickname,
            "UID": str(self.uid),
            "ConnID": str(self.connection_id),
            "Trusted": "false",
            "Overlays": " ".join(self.overlays),
        }
        if self.short_id is not None:
            features["ShortID"] = str(self.short_id)
        encoder = gob.Encoder()
        encoder.encode(_FEATURE_MAP, features)
        return bytes(encoder.data)


def parse_features(message: bytes) -> Features:
    """ProtocolError, saying which feature, if one is missing or makes no sense."""
    features = gob.Decoder(message).decode()
    if not isinstance(features, dict) or not all(
        isinstance(text, str) for item in features.items() for text in item
    ):
        raise ProtocolError("the features are no map of strings")
    flavour = _required(features, "PeerNameFlavour")
    if flavour != "mac":
        raise ProtocolError(f"the peer names itself by {flavour[:40]!r}, not by mac")
    try:
        name = names.parse(_required(features, "Name"))
    except ValueError as error:
        raise ProtocolError(str(error)) from None
    uid = _number(features, "UID", bits=64)
    if uid == 0:
        raise ProtocolError("the peer's UID is 0")
    return Features(
        name=name,
        nickname=_required(features, "NickName"),
        uid=uid,
        connection_id=_number(features, "ConnID", bits=64),
        short_id=_number(features, "ShortID", bits=SHORT_ID_BITS)
        if "ShortID" in features
        else None,
        overlays=tuple(features.get("Overlays", "").split()),
    )


def _required(features: Mapping[str, str], key: str) -> str:
    if key not in features:
        raise ProtocolError(f"the peer's features lack {key}")
    return features[key]


def _number(features: Mapping[str, str], key: str, *, bits: int) -> int:
    digits = _required(features, key)
    # int() would take signs, underscores, other scripts' digits, and long for long texts.
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 20):
        raise ProtocolError(f"the peer's {key} is no number: {digits[:40]!r}")
    if int(digits) >> bits:
        raise ProtocolError(f"the peer's {key} has more than {bits} bits: {digits}")
    return int(digits)


# -- gossip ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GossipMessage:
    """What the three gossip messages carry; a unicast alone has a destination."""

    channel: str
    source: PeerName
    payload: bytes
    destination: PeerName | None = None

    def encode(self) -> bytes:
        encoder = gob.Encoder()
        encoder.encode(Basic.STRING, self.channel)
        encoder.encode(Basic.UINT, names.number(self.source))
        if self.destination is not None:
            encoder.encode(Basic.UINT, names.number(self.destination))
        encoder.encode(Basic.BYTES, self.payload)
        return bytes(encoder.data)


def parse_gossip(tag: int, body: bytes) -> GossipMessage:
    decoder = gob.Decoder(body)
    channel = decoder.decode()
    source = decoder.decode()
    destination = decoder.decode() if tag == Tag.GOSSIP_UNICAST else None
    payload = decoder.decode()
    if not isinstance(channel, str) or not isinstance(payload, bytes):
        raise ProtocolError("gossip: the channel is no string or the payload no bytes")
    return GossipMessage(
        channel=channel,
        source=_peer(source),
        payload=payload,
        destination=None if destination is None else _peer(destination),
    )


def _peer(value: object) -> PeerName:
    if type(value) is not int:
        raise ProtocolError("gossip: a peer is no number")
    try:
        return names.from_number(value)
    except ValueError as error:
        raise ProtocolError(f"gossip: {error}") from None


# -- overlays --------------------------------------------------------------------------------------


def overlay_control(index: int, subtag: int, data: bytes) -> bytes:
    """The message with which one end of an overlay speaks to the other."""
    return bytes([Tag.OVERLAY_CONTROL, index, subtag]) + data


def parse_overlay_control(body: bytes) -> tuple[int, int, bytes]:
    """(index of the overlay, subtag, data)."""
    if len(body) < 2:
        raise ProtocolError("an overlay control message without index and subtag")
    return body[0], body[1], body[2:]


def common_overlays(dialler: tuple[str, ...], listener: tuple[str, ...]) -> tuple[str, ...]:
    """What both know, the dialler's best first: control messages name an overlay by its place."""
    return tuple(name for name in dict.fromkeys(dialler) if name in listener)
