"""What peers say to each other: features, gossip, overlay control; a connection step by step."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlab.weave import gob, messages, names
from xlab.weave.connection import Connection
from xlab.weave.gob import Basic, ProtocolError
from xlab.weave.messages import Features, GossipMessage, Tag
from xlab.weave.targets import Address

NAME = names.parse("7a:16:dd:5b:e5:9a")
FEATURES = Features(
    name=NAME,
    nickname="h2",
    uid=(1 << 64) - 1,
    connection_id=17,
    short_id=4095,
    overlays=("fastdp", "sleeve"),
)


def as_map(**changes: str | None) -> bytes:
    """FEATURES as they are sent, with some changed, or left out where None."""
    sent: dict[str, str] = gob.Decoder(FEATURES.encode()).decode()
    for key, value in changes.items():
        if value is None:
            del sent[key]
        else:
            sent[key] = value
    encoder = gob.Encoder()
    encoder.encode(gob.Map(Basic.STRING, Basic.STRING), sent)
    return bytes(encoder.data)


# -- names -----------------------------------------------------------------------------------------


def test_names_are_written_as_macs_and_sent_as_numbers() -> None:
    assert names.text(NAME) == "7a:16:dd:5b:e5:9a"
    assert names.parse("7A-16-DD-5B-E5-9A") == NAME
    assert names.number(NAME) == 0x7A16DD5BE59A
    assert names.from_number(0x7A16DD5BE59A) == NAME


@pytest.mark.parametrize(
    "text", ["", "7a:16:dd:5b:e5", "7a:16:dd:5b:e5:9a:00", "7a16dd5be59a", "7a:16-dd:5b:e5:9a",
             "7a:16:dd:5b:e5:9g", "00:00:00:00:00:00", " 7a:16:dd:5b:e5:9a"]
)  # fmt: skip
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="peer"):
        names.parse(text)


@pytest.mark.parametrize("number", [0, -1, 1 << 48])
def test_what_is_no_name_as_a_number_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="not a peer's number"):
        names.from_number(number)


# -- features --------------------------------------------------------------------------------------


def test_features_are_what_weave_net_sends_and_come_back() -> None:
    assert gob.Decoder(FEATURES.encode()).decode() == {
        "PeerNameFlavour": "mac",
        "Name": "7a:16:dd:5b:e5:9a",
        "NickName": "h2",
        "UID": "18446744073709551615",
        "ConnID": "17",
        "ShortID": "4095",
        "Trusted": "false",
        "Overlays": "fastdp sleeve",
    }
    assert messages.parse_features(FEATURES.encode()) == FEATURES


def test_a_peer_may_have_no_short_id_and_no_overlays() -> None:
    parsed = messages.parse_features(as_map(ShortID=None, Overlays=None, Trusted=None))
    assert parsed == dataclasses.replace(FEATURES, short_id=None, overlays=())


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("PeerNameFlavour", "hash", "names itself by 'hash'"),
        ("PeerNameFlavour", None, "lack PeerNameFlavour"),
        ("Name", "h2", "not a peer name"),
        ("Name", "00:00:00:00:00:00", "all zero"),
        ("NickName", None, "lack NickName"),
        ("UID", "0", "UID is 0"),
        ("UID", "18446744073709551616", "more than 64 bits"),
        ("UID", "-1", "no number"),
        ("ConnID", "1_0", "no number"),
        ("ConnID", "٣", "no number"),
        ("ConnID", "", "no number"),
        ("ShortID", "4096", "more than 12 bits"),
        ("ShortID", "9" * 5000, "no number"),
    ],
)
def test_features_that_make_no_sense_say_which(key: str, value: str | None, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        messages.parse_features(as_map(**{key: value}))


def test_features_that_are_no_map_of_strings() -> None:
    for kind, value in (
        (Basic.STRING, "Name"),
        (gob.Map(Basic.STRING, Basic.UINT), {"UID": 1}),
        (gob.Map(Basic.UINT, Basic.STRING), {1: "UID"}),
    ):
        encoder = gob.Encoder()
        encoder.encode(kind, value)
        with pytest.raises(ProtocolError, match="no map of strings"):
            messages.parse_features(bytes(encoder.data))


# -- gossip ----------------------------------------------------------------------------------------


def test_gossip_as_go_writes_it() -> None:
    written = bytes.fromhex("0b0c0008746f706f6c6f6779090600fa7a01020304050a0a00077061796c6f6164")
    message = GossipMessage("topology", bytes.fromhex("7a0102030405"), b"payload")
    assert messages.parse_gossip(Tag.GOSSIP, written) == message
    assert message.encode() == written


@given(st.text(max_size=20), st.binary(max_size=200), st.booleans())
def test_gossip_comes_back(channel: str, payload: bytes, unicast: bool) -> None:
    destination = names.from_number(7) if unicast else None
    message = GossipMessage(channel, NAME, payload, destination)
    tag = Tag.GOSSIP_UNICAST if unicast else Tag.GOSSIP_BROADCAST
    assert messages.parse_gossip(tag, message.encode()) == message


@given(st.data(), st.sampled_from([Tag.GOSSIP, Tag.GOSSIP_UNICAST]))
def test_gossip_that_is_cut_off_is_a_protocol_error(data: st.DataObject, tag: Tag) -> None:
    destination = NAME if tag == Tag.GOSSIP_UNICAST else None
    whole = GossipMessage("channel", NAME, b"payload", destination).encode()
    with pytest.raises(ProtocolError):
        messages.parse_gossip(tag, whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary(max_size=120), st.sampled_from([Tag.GOSSIP, Tag.GOSSIP_UNICAST]))
def test_gossip_that_is_noise_raises_nothing_else(noise: bytes, tag: Tag) -> None:
    try:
        messages.parse_gossip(tag, noise)
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    "items",
    [
        [(Basic.BYTES, b"topology"), (Basic.UINT, 1), (Basic.BYTES, b"")],
        [(Basic.STRING, "topology"), (Basic.STRING, "h1"), (Basic.BYTES, b"")],
        [(Basic.STRING, "topology"), (Basic.BOOL, True), (Basic.BYTES, b"")],
        [(Basic.STRING, "topology"), (Basic.UINT, 1 << 48), (Basic.BYTES, b"")],
        [(Basic.STRING, "topology"), (Basic.INT, -1), (Basic.BYTES, b"")],
        [(Basic.STRING, "topology"), (Basic.UINT, 1), (Basic.STRING, "")],
    ],
)
def test_gossip_of_other_types_is_a_protocol_error(items: list[tuple[Basic, object]]) -> None:
    encoder = gob.Encoder()
    for kind, value in items:
        encoder.encode(kind, value)
    with pytest.raises(ProtocolError, match="gossip"):
        messages.parse_gossip(Tag.GOSSIP, bytes(encoder.data))


# -- overlays --------------------------------------------------------------------------------------


def test_overlay_control_is_index_subtag_data() -> None:
    assert messages.overlay_control(1, 3, b"\x05\x9e") == bytes.fromhex("07 01 03 059e")
    assert messages.parse_overlay_control(bytes.fromhex("01 03 059e")) == (1, 3, b"\x05\x9e")
    with pytest.raises(ProtocolError, match="without index"):
        messages.parse_overlay_control(b"\1")


def test_overlays_are_counted_in_the_diallers_order() -> None:
    assert messages.common_overlays(("fastdp", "sleeve"), ("sleeve", "x", "fastdp")) == (
        "fastdp",
        "sleeve",
    )
    assert messages.common_overlays(("sleeve", "sleeve"), ("fastdp", "sleeve")) == ("sleeve",)
    assert messages.common_overlays(("fastdp",), ("sleeve",)) == ()


# -- a connection, step by step --------------------------------------------------------------------


class Tape:
    """A stream that only keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass

    def confirmed_bytes(self) -> int:
        return len(self.written)

    def take(self) -> bytes:
        taken, self.written = bytes(self.written), bytearray()
        return taken


def begin(*, connection_id: int = 5) -> tuple[Connection, Tape]:
    tape = Tape()
    connection = Connection(
        tape,
        remote=Address(IPv4Address("10.0.0.2"), 6783),
        outbound=True,
        features=dataclasses.replace(FEATURES, connection_id=connection_id),
        clock=lambda: 0.0,
    )
    connection.start()
    return connection, tape


def introduced() -> tuple[Connection, Tape]:
    connection, tape = begin()
    greeting = b"weave\1\2\0" + messages.frame(FEATURES.encode())
    assert list(connection.receive(greeting)) == [Connection.INTRODUCED]
    tape.take()
    return connection, tape


def test_the_handshake_step_by_step() -> None:
    connection, tape = begin(connection_id=5)
    assert tape.take() == b"weave\1\2"
    assert list(connection.receive(b"weave\1\2")) == []
    assert tape.take() == b"\0"
    assert list(connection.receive(b"\0")) == []
    (sent_features,) = split_frames(tape.take())
    assert messages.parse_features(sent_features).connection_id == 5
    assert list(connection.receive(messages.frame(FEATURES.encode()))) == [Connection.INTRODUCED]
    assert connection.peer == FEATURES
    assert connection.uid == 5 ^ 17


@given(st.lists(st.integers(1, 60), max_size=40))
def test_however_tcp_cuts_it_the_messages_are_the_same(cuts: list[int]) -> None:
    connection, _ = begin()
    said = [b"\0", b"", b"\4abc", b"\7" + bytes(300)]
    stream = b"weave\2\3\0" + messages.frame(FEATURES.encode())
    stream += b"".join(messages.frame(message) for message in said)
    heard: list[bytes] = []
    for cut in [*cuts, len(stream)]:
        heard += connection.receive(stream[:cut])
        stream = stream[cut:]
    # Empty messages are ignored, as Weave Net does.
    assert heard == [Connection.INTRODUCED, b"\0", b"\4abc", b"\7" + bytes(300)]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"GET / H", "not a weave router"),
        (b"weave\1\1", "versions 1 to 1"),
        (b"weave\3\4", "versions 3 to 4"),
        (b"weave\1\2\1", "the peer has a password and wants encryption"),
        (b"weave\1\2\2", "flag is 2"),
        (b"weave\1\2\0\0\0\x40\1", "frame of 16385 bytes"),
        (b"weave\1\2\0\xff\xff\xff\xff", "frame of 4294967295 bytes"),
        (b"weave\1\2\0\0\0\0\0", "cut off"),
    ],
)
def test_a_handshake_that_goes_wrong_says_how(said: bytes, reason: str) -> None:
    connection, tape = begin()
    with pytest.raises(ProtocolError, match=reason):
        list(connection.receive(said))
    # Whoever turns out to be a stranger has not learnt who we are.
    assert NAME.hex(":").encode() not in tape.written or said[:8] == b"weave\1\2\0"


def test_a_frame_may_be_ten_megabytes_and_no_more() -> None:
    connection, _ = introduced()
    assert list(connection.receive((10 << 20).to_bytes(4, "big"))) == []
    connection, _ = introduced()
    with pytest.raises(ProtocolError, match="the limit is"):
        list(connection.receive(((10 << 20) + 1).to_bytes(4, "big")))


def test_a_closed_connection_neither_speaks_nor_listens() -> None:
    connection, tape = introduced()
    messages_heard = connection.receive(messages.frame(b"\4a") + messages.frame(b"\4b"))
    assert next(messages_heard) == b"\4a"
    connection.close()
    assert list(messages_heard) == []
    connection.send(b"\0")
    assert tape.take() == b""
    assert tape.closed


@given(st.binary(max_size=300))
def test_noise_after_the_header_is_harmless(noise: bytes) -> None:
    for opening in (b"", b"weave\1\2", b"weave\1\2\0", b"weave\1\2\0\0\0\1\0"):
        connection, _ = begin()
        try:
            list(connection.receive(opening + noise))
        except ProtocolError:
            pass


def split_frames(stream: bytes) -> list[bytes]:
    found = []
    while stream:
        length = int.from_bytes(stream[:4], "big")
        found.append(stream[4 : 4 + length])
        stream = stream[4 + length :]
    return found
