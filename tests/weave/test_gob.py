"""The gob codec: against what Go itself writes, against itself, and against what nobody should."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fuzzing import attempt, memory_below
from xlab.weave import gob
from xlab.weave.gob import Basic, Decoder, Encoder, Map, ProtocolError, Slice, Struct

#: The example in the documentation of encoding/gob: type Point struct { X, Y int }, Point{22, 33}.
POINT = Struct("Point", (("X", Basic.INT), ("Y", Basic.INT)))
POINT_BYTES = bytes.fromhex(
    "1fff81030101 05506f696e74 01ff82 00 0102 01015801040001015901040000 00 07ff82012c014200"
)


def decode_all(data: bytes, **limits: int) -> list[Any]:
    decoder = Decoder(data, **limits)
    values = []
    while decoder._at < len(data):
        values.append(decoder.decode())
    return values


def encode(*items: tuple[gob.Type, Any]) -> bytes:
    encoder = Encoder()
    for kind, value in items:
        encoder.encode(kind, value)
    return bytes(encoder.data)


# -- what Go writes (encoding/gob of Go 1.24) ------------------------------------------------------


def test_the_example_of_the_documentation_both_ways() -> None:
    assert encode((POINT, {"X": 22, "Y": 33})) == POINT_BYTES
    assert decode_all(POINT_BYTES) == [{"X": 22, "Y": 33}]


def test_numbers_truth_and_text() -> None:
    written = bytes.fromhex(
        "050400fe0101 03040000 0b0400f8ffffffffffffffff 0b0600f8ffffffffffffffff"
        "03020001 050800fe0a40 050c0002c3a9"
    )
    values: list[tuple[Basic, Any]] = [
        (Basic.INT, -129),
        (Basic.INT, 0),
        (Basic.INT, -(1 << 63)),
        (Basic.UINT, (1 << 64) - 1),
        (Basic.BOOL, True),
        (Basic.FLOAT, 3.25),
        (Basic.STRING, "é"),
    ]
    assert decode_all(written) == [value for _, value in values]
    assert encode(*values) == written


def test_a_map_of_strings() -> None:
    written = bytes.fromhex(
        "0d7f040102ff8000010c010c0000 1bff800001044e616d651137613a31363a64643a35623a65353a3961"
    )
    assert decode_all(written) == [{"Name": "7a:16:dd:5b:e5:9a"}]


def test_structs_with_pointers_nested_maps_and_what_is_nil() -> None:
    """The shape of IPAM's gossip: {Now, Nicknames, Paxos: nil, Ring: &{…, []*entry, []uint64}}."""
    written = bytes.fromhex(
        "3fff8703010105737461746501ff8800010401034e6f7701040001094e69636b6e616d657301ff8a00010550"
        "61786f7301ff8e00010452696e6701ff9000000021ff89040101116d61705b75696e7436345d737472696e67"
        "01ff8a000106010c00002aff8d040101196d61705b75696e7436345d6d61705b737472696e675d696e7401ff"
        "8e00010601ff8c00000eff8b040102ff8c00010c0104000045ff8f0301010472696e6701ff90000105010553"
        "746172740106000103456e640106000104506565720106000107456e747269657301ff940001055365656473"
        "01ff960000001cff930201010d5b5d2a6d61696e2e656e74727901ff940001ff92000034ff91030102ff9200"
        "01040105546f6b656e010600010450656572010600010756657273696f6e0106000104467265650106000000"
        "16ff95020101085b5d75696e74363401ff96000106000027ff88010101010102683102010101020103010201"
        "0a010301010105000114010400010203040000"
    )
    assert decode_all(written) == [
        {
            "Now": -1,
            "Nicknames": {1: "h1"},
            "Ring": {
                "Start": 1,
                "End": 2,
                "Peer": 3,
                "Entries": [
                    {"Token": 10, "Peer": 3, "Version": 1, "Free": 5},
                    {"Token": 20, "Peer": 4},
                ],
                "Seeds": [3, 4],
            },
        }
    ]


def test_arrays_floats_and_types_that_encode_themselves() -> None:
    written = bytes.fromhex(
        "39ff97030101036f646401ff9800010601014101ff9a0001014601080001014701ff9c0001015401ff9e000101"
        "4e01040001015201ff9000000017ff99010101075b335d696e743801ff9a0001040106000017ff9b020101095b"
        "5d666c6f6174363401ff9c000108000010ff9d0501010454696d6501ff9e000000"
        "30ff9801030100fffe01fe31400103fee0bf00f89c7500883ce4377e010f010000000e7791f701000000"
        "00ffff01ff8100"
    )
    (value,) = decode_all(written)
    assert value.pop("T").hex() == "010000000e7791f70100000000ffff"  # time.Time, opaque
    assert value == {"A": [-1, 0, 127], "F": 17.0, "G": [-0.5, 0.0, 1e300], "N": -65}


# -- what is encoded comes back --------------------------------------------------------------------

_LEAVES: st.SearchStrategy[tuple[gob.Type, st.SearchStrategy[Any]]] = st.sampled_from(
    [
        (Basic.BOOL, st.booleans()),
        (Basic.INT, st.integers(-(1 << 63), (1 << 63) - 1)),
        (Basic.UINT, st.integers(0, (1 << 64) - 1)),
        (Basic.FLOAT, st.floats(allow_nan=False)),
        (Basic.BYTES, st.binary(max_size=300)),
        (Basic.STRING, st.text(max_size=300)),
    ]
)


def _containers(
    inner: st.SearchStrategy[tuple[gob.Type, st.SearchStrategy[Any]]],
) -> st.SearchStrategy[tuple[gob.Type, st.SearchStrategy[Any]]]:
    slices = inner.map(lambda kv: (Slice(kv[0]), st.lists(kv[1], max_size=4)))
    maps = st.tuples(
        st.sampled_from([(Basic.STRING, st.text(max_size=9)), (Basic.UINT, st.integers(0, 999))]),
        inner,
    ).map(lambda kv: (Map(kv[0][0], kv[1][0]), st.dictionaries(kv[0][1], kv[1][1], max_size=4)))
    structs = st.lists(inner, min_size=1, max_size=5).map(
        lambda fields: (
            Struct("T", tuple((f"F{i}", kind) for i, (kind, _) in enumerate(fields))),
            st.fixed_dictionaries({f"F{i}": values for i, (_, values) in enumerate(fields)}),
        )
    )
    return st.one_of(slices, maps, structs)


_KINDS = st.recursive(_LEAVES, _containers, max_leaves=6)


def _normal(kind: gob.Type, value: Any) -> Any:
    """What the decoder makes of it: structs without their zero fields."""
    match kind:
        case Slice():
            return [_normal(kind.element, element) for element in value]
        case Map():
            return {key: _normal(kind.element, element) for key, element in value.items()}
        case Struct():
            return {
                name: _normal(inner, value[name])
                for name, inner in kind.fields
                if value[name] or isinstance(inner, Struct)
            }
    return value


@given(st.lists(_KINDS, min_size=1, max_size=3).flatmap(
    lambda kinds: st.tuples(*(st.tuples(st.just(k), values) for k, values in kinds))
))  # fmt: skip
def test_any_value_of_any_type_survives(items: tuple[tuple[gob.Type, Any], ...]) -> None:
    assert decode_all(encode(*items)) == [_normal(kind, value) for kind, value in items]


def test_what_has_no_encoding_is_refused() -> None:
    for kind, value in ((Basic.UINT, 1 << 64), (Basic.UINT, -1), (Basic.INT, 1 << 63)):
        with pytest.raises(ValueError, match="64 bits"):
            encode((kind, value))


# -- what nobody should write ----------------------------------------------------------------------


@given(st.binary(max_size=400))
def test_noise_ends_in_a_value_or_a_protocol_error(noise: bytes) -> None:
    try:
        decode_all(noise)
    except ProtocolError:
        pass


_SAMPLE = encode(
    (POINT, {"X": -1, "Y": 1 << 40}),
    (Map(Basic.STRING, Slice(POINT)), {"a": [{"X": 1}, {}], "b": []}),
    (Basic.STRING, "text"),
)


@given(
    st.lists(
        st.tuples(st.integers(0, len(_SAMPLE) - 1), st.integers(0, 255)), min_size=1, max_size=6
    ),
    st.integers(0, len(_SAMPLE)),
)
def test_damage_ends_in_a_value_or_a_protocol_error(
    changes: list[tuple[int, int]], length: int
) -> None:
    damaged = bytearray(_SAMPLE)
    for place, value in changes:
        damaged[place] = value
    for data in (bytes(damaged), bytes(damaged[:length])):
        try:
            decode_all(data)
        except ProtocolError:
            pass


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "cut off"),
        ("05", "of 5 bytes is cut off"),
        ("f7", "number of 9 bytes"),
        ("80", "number of 128 bytes"),
        ("02 06 00", "cut off"),
        ("04 06 00 01 01", "1 bytes after the end"),
        ("03 06 01 01", "no zero before"),
        ("04 20 00 00 00", "2 bytes after the end"),  # a struct without fields ends at once
        ("05 0a 00 fe ffff", "65535 elements in 0 bytes"),
        ("04 0a 00 f8 ff", "number of 8 bytes"),
        ("03 0e 00 00", "no type 7"),
        ("02 1f 00", "type 16 cannot be defined again"),
        ("04 ff80 00 00", "no type 64"),
        ("03 ff81 00", "type 65 is defined as 0 kinds"),
    ],
)
def test_what_is_wrong_is_named(data: str, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        Decoder(bytes.fromhex(data)).decode()


def test_a_type_that_contains_itself_is_not_followed_for_ever() -> None:
    define_65_as_slice_of_65 = bytes.fromhex("0d ff81 02 01 02 ff82 00 01 ff82 00 00")
    nested = b"\1" * 5000
    value = bytes.fromhex("ff82 00") + nested
    data = define_65_as_slice_of_65 + b"\xfe" + len(value).to_bytes(2, "big") + value
    with pytest.raises(ProtocolError, match="nested too deeply"):
        Decoder(data).decode()


def test_values_that_grow_in_memory_are_limited() -> None:
    """Each empty struct takes a byte on the wire and 64 in memory."""
    data = encode((Slice(POINT), [{}] * 1000))
    assert len(decode_all(data, value_limit=1100)[0]) == 1000
    with pytest.raises(ProtocolError, match="too many values"):
        decode_all(data, value_limit=999)


def test_types_are_limited() -> None:
    encoder = Encoder()
    for number in range(gob.TYPE_LIMIT + 1):
        encoder.encode(Struct(f"T{number}", (("A", Basic.INT),)), {"A": 1})
    decoder = Decoder(bytes(encoder.data))
    for _ in range(gob.TYPE_LIMIT):
        assert decoder.decode() == {"A": 1}
    with pytest.raises(ProtocolError, match="types"):
        decoder.decode()


def test_a_type_is_defined_once() -> None:
    definition = POINT_BYTES[:32]
    with pytest.raises(ProtocolError, match="type 65 cannot be defined again"):
        Decoder(definition + definition + POINT_BYTES[32:]).decode()


def test_text_that_is_no_utf8_is_shown_as_well_as_can_be() -> None:
    assert Decoder(bytes.fromhex("05 0c 00 02 61ff")).decode() == "a�"


# -- what a message can make us keep ---------------------------------------------------------------

SLICE_OF_POINTS = bytes(encode((Slice(POINT), [])))


def claiming(count: int, rest: bytes) -> bytes:
    """A slice of structs that says how many there are, whatever follows."""
    definitions = SLICE_OF_POINTS[: -len(b"\x04\xff\x84\x00\x00")]
    size = (count.bit_length() + 7) // 8
    body = b"\xff\x84\x00" + bytes([256 - size]) + count.to_bytes(size, "big") + rest
    length = len(body).to_bytes(4, "big")
    return definitions + b"\xfc" + length + body


@pytest.mark.parametrize("count", [1 << 20, 1 << 40, (1 << 64) - 1])
def test_what_is_claimed_and_not_there_takes_no_memory(count: int) -> None:
    data = claiming(count, bytes(1 << 16))
    with memory_below(1 << 20), pytest.raises(ProtocolError, match="elements in 65536 bytes"):
        decode_all(data)


@pytest.mark.parametrize("limit", [1 << 15, pytest.param(gob.VALUE_LIMIT, marks=pytest.mark.slow)])
def test_what_is_there_is_limited_in_memory(limit: int) -> None:
    """The densest message: a megabyte of empty structs, of which half a million are too many."""
    data = claiming(2 * limit, bytes(2 * limit))
    with memory_below(128 * limit), pytest.raises(ProtocolError, match="too many values"):
        decode_all(data, value_limit=limit)


@given(st.binary(max_size=200), st.integers(1, 40), st.integers(0, 64))
@example(SLICE_OF_POINTS, 1, 9)
def test_no_message_makes_more_values_than_its_bytes(noise: bytes, copies: int, kept: int) -> None:
    """Damaged, and repeated: what was defined before counts for what follows."""
    data = (POINT_BYTES + SLICE_OF_POINTS)[:kept] + noise * copies
    with memory_below(4096 + 200 * (len(data) + 200)):
        attempt(lambda: decode_all(data), ProtocolError)
