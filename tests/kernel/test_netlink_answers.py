"""Reading what the kernel answers: messages and attributes come back, and any bytes have an end."""

from __future__ import annotations

import errno
import struct

from hypothesis import example, given
from hypothesis import strategies as st

from xlab.kernel import netlink

MESSAGES = st.lists(
    st.tuples(st.integers(0, 65535), st.integers(0, 65535), st.integers(0, 2**32 - 1),
              st.binary(max_size=30)),
    max_size=5,
)  # fmt: skip


def packed(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    header = struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 77)
    return header + body + bytes(-len(body) % 4)


def attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


@given(MESSAGES, st.binary(max_size=15))
def test_messages_end_to_end_are_taken_apart(
    sent: list[tuple[int, int, int, bytes]], rest: bytes
) -> None:
    answer = b"".join(packed(*message) for message in sent) + rest
    got = [(k, f, s, message[16:]) for k, f, s, message in netlink.messages_in(answer)]
    assert got == sent


@given(st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=20), max_size=6), st.booleans())
def test_attributes_come_back_by_type(sent: dict[int, bytes], nested: bool) -> None:
    data = b"".join(attribute(kind | nested << 15, payload) for kind, payload in sent.items())
    assert netlink.attributes_in(data) == sent


@given(st.binary(max_size=200))
@example(bytes(64))
@example(b"\xff" * 64)
@example(struct.pack("=IHHII", 15, 2, 0, 1, 0) * 4)
def test_any_bytes_come_to_an_end(answer: bytes) -> None:
    """A length of zero would otherwise be gone over for ever."""
    for _, flags, _, message in netlink.messages_in(answer):
        assert 16 <= len(message) <= len(answer)
        code, reason = netlink.error_in(message, flags)
        assert isinstance(code, int)
        assert isinstance(reason, str)
        netlink.attributes_in(message[20:])


CAPPED, TLVS = 0x100, 0x200


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40))
def test_the_kernels_own_sentence_is_found_behind_the_request_cut_or_whole(said: str) -> None:
    tlv = attribute(1, said.encode() + b"\0")
    for flags, request_body in ((CAPPED | TLVS, b""), (TLVS, b"abcdefgh")):
        request = packed(16, 5, 9, request_body)
        message = packed(2, flags, 9, struct.pack("=i", -errno.EINVAL) + request + tlv)
        assert netlink.error_in(message, flags) == (errno.EINVAL, said)


def test_without_a_sentence_the_error_has_its_usual_name() -> None:
    message = packed(2, CAPPED, 9, struct.pack("=i", -errno.EEXIST) + bytes(16))
    assert netlink.error_in(message, CAPPED) == (errno.EEXIST, "File exists")
    assert netlink.error_in(message[:18], CAPPED)[0] == errno.EIO
