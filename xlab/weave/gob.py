"""Go's gob encoding (https://pkg.go.dev/encoding/gob), as far as Weave Net's messages need it.

A gob stream describes the types it uses: a message is either the definition of a type or a value.

    message     length, type id, then              length: unsigned, of the rest
                  id < 0   the definition of type -id, a value of the built-in type "wireType"
                  id ≥ 0   a value; unless it is a struct, a zero byte stands before it

    unsigned    one byte below 128; or the number of bytes, negated, and the number, big endian
    signed      the complement's sign bit moved to the lowest place, as unsigned
    string      length, bytes                      slice, map: count, elements
    struct      (distance to the next field that is not zero, its value)…, 0

The numbers of user types vary from process to process, so the decoder is generic: it believes the
definitions and yields plain Python values.  Structs become dicts without their zero fields, in the
form that the encoder takes them.

What is decoded comes from strangers.  Whatever it is, decoding ends in a value or in ProtocolError,
within limits: no count is believed that exceeds the bytes that are there, nesting and the number of
types are bounded, and so is the number of values, since one byte can make a value of 64.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

#: Of one stream.  A connection in the topology makes 5 values: this is a full mesh of 320 peers.
VALUE_LIMIT = 1 << 19
#: Weave Net's own messages stay below 10.
DEPTH_LIMIT = 32
TYPE_LIMIT = 256

_UNSIGNED_LIMIT = 1 << 64


class ProtocolError(ValueError):
    """What a peer sent is not what the protocol allows."""


class Basic(IntEnum):
    """Types that need no definition, by the number gob gives them."""

    BOOL = 1
    INT = 2
    UINT = 3
    FLOAT = 4
    BYTES = 5
    STRING = 6


@dataclass(frozen=True, slots=True)
class Slice:
    element: Type


@dataclass(frozen=True, slots=True)
class Map:
    key: Type
    element: Type


@dataclass(frozen=True, slots=True)
class Struct:
    name: str
    fields: tuple[tuple[str, Type], ...]


Type: TypeAlias = Basic | Slice | Map | Struct


# -- encoding --------------------------------------------------------------------------------------


class Encoder:
    """One gob stream: `encode` values one after the other, then take `data`."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._numbers: dict[Type, int] = {}
        self._defined: set[Type] = set()

    def encode(self, kind: Type, value: Any) -> None:
        """Append a value, and before it what the other side does not know yet of its type."""
        self.data += self.definitions(kind)
        self.data += self.value(kind, value)

    def definitions(self, kind: Type) -> bytes:
        """The definitions that were not asked for before, from the outside in."""
        if isinstance(kind, Basic) or kind in self._defined:
            return b""
        self._defined.add(kind)
        return _counted(self._definition(kind)) + b"".join(map(self.definitions, _inner(kind)))

    def value(self, kind: Type, value: Any) -> bytes:
        """A value of a type that is defined: dicts for structs and maps, sequences for slices.

        Fields that a dict lacks are zero.  Raises ValueError for a number that has no encoding.
        """
        body = bytearray(_signed(self._number(kind)))
        if not isinstance(kind, Struct):
            body.append(0)
        _encode_value(body, kind, value)
        return _counted(body)

    def _number(self, kind: Type) -> int:
        """Types are numbered from the inside out."""
        if isinstance(kind, Basic):
            return int(kind)
        if kind not in self._numbers:
            for inner in _inner(kind):
                self._number(inner)
            self._numbers[kind] = _FIRST_NUMBER + len(self._numbers)
        return self._numbers[kind]

    def _definition(self, kind: Slice | Map | Struct) -> bytes:
        """A wireType with one field set, which tells the kind: {CommonType{Name, Id}, …}."""
        number = self._number(kind)
        rest = bytearray()
        match kind:
            case Slice():
                field, name = _SLICE_FIELD, ""
                rest += b"\1" + _signed(self._number(kind.element))
            case Map():
                field, name = _MAP_FIELD, ""
                rest += b"\1" + _signed(self._number(kind.key))
                rest += b"\1" + _signed(self._number(kind.element))
            case Struct():
                field, name = _STRUCT_FIELD, kind.name
                rest += b"\1" + _unsigned(len(kind.fields))
                for field_name, field_kind in kind.fields:
                    rest += b"\1" + _counted(field_name.encode())
                    rest += b"\1" + _signed(self._number(field_kind)) + b"\0"
        common = b"\1" + _counted(name.encode()) + b"\1" if name else b"\2"
        head = _signed(-number) + bytes([field]) + b"\1" + common + _signed(number) + b"\0"
        return head + bytes(rest) + b"\0\0"


#: Go's encoders begin here; its decoders reserve the numbers below 64.
_FIRST_NUMBER = 65

#: Fields of "wireType".
_SLICE_FIELD, _STRUCT_FIELD, _MAP_FIELD = 2, 3, 4


def _inner(kind: Slice | Map | Struct) -> tuple[Type, ...]:
    match kind:
        case Slice():
            return (kind.element,)
        case Map():
            return (kind.key, kind.element)
        case Struct():
            return tuple(inner for _, inner in kind.fields)


def _encode_value(out: bytearray, kind: Type, value: Any) -> None:
    match kind:
        case Basic.BOOL:
            out.append(1 if value else 0)
        case Basic.INT:
            out += _signed(value)
        case Basic.UINT:
            out += _unsigned(value)
        case Basic.FLOAT:
            # The bytes reversed: the exponent comes last, and zeros at the end of the mantissa go.
            out += _unsigned(int.from_bytes(struct.pack("<d", value), "big"))
        case Basic.BYTES:
            out += _counted(value)
        case Basic.STRING:
            out += _counted(value.encode())
        case Slice():
            out += _unsigned(len(value))
            for element in value:
                _encode_value(out, kind.element, element)
        case Map():
            out += _unsigned(len(value))
            for key, element in value.items():
                _encode_value(out, kind.key, key)
                _encode_value(out, kind.element, element)
        case Struct():
            _encode_struct(out, kind, value)


def _encode_struct(out: bytearray, kind: Struct, value: Mapping[str, Any]) -> None:
    distance = 1
    for name, field in kind.fields:
        # A struct inside a struct is always sent, all other zero values never.
        if value.get(name) or isinstance(field, Struct):
            out += _unsigned(distance)
            _encode_value(out, field, value.get(name) or {})
            distance = 1
        else:
            distance += 1
    out.append(0)


def _unsigned(value: int) -> bytes:
    if not 0 <= value < _UNSIGNED_LIMIT:
        raise ValueError(f"{value} is not an unsigned number of 64 bits")
    if value < 128:
        return bytes([value])
    number = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([256 - len(number)]) + number


def _signed(value: int) -> bytes:
    return _unsigned(~value << 1 | 1 if value < 0 else value << 1)


def _counted(value: bytes | bytearray) -> bytes:
    """A string, or a message, behind its length."""
    return _unsigned(len(value)) + value


# -- decoding --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _SliceOf:
    element: int


@dataclass(frozen=True, slots=True)
class _MapOf:
    key: int
    element: int


@dataclass(frozen=True, slots=True)
class _StructOf:
    fields: tuple[tuple[str, int], ...]


#: What has an encoding of its own in Go (GobEncoder and its kin): bytes to us.
_OPAQUE = int(Basic.BYTES)

_WIRE_TYPE = 16
_FIRST_USER_TYPE = 64

#: The types that definitions are written in, by the numbers Go has for them.
_BUILT_IN: dict[int, _SliceOf | _MapOf | _StructOf] = {
    _WIRE_TYPE: _StructOf(
        (
            ("ArrayT", 17),
            ("SliceT", 19),
            ("StructT", 20),
            ("MapT", 23),
            ("GobEncoderT", 24),
            ("BinaryMarshalerT", 24),
            ("TextMarshalerT", 24),
        )
    ),
    17: _StructOf((("CommonType", 18), ("Elem", Basic.INT), ("Len", Basic.INT))),
    18: _StructOf((("Name", Basic.STRING), ("Id", Basic.INT))),
    19: _StructOf((("CommonType", 18), ("Elem", Basic.INT))),
    20: _StructOf((("CommonType", 18), ("Field", 22))),
    21: _StructOf((("Name", Basic.STRING), ("Id", Basic.INT))),
    22: _SliceOf(21),
    23: _StructOf((("CommonType", 18), ("Key", Basic.INT), ("Elem", Basic.INT))),
    24: _StructOf((("CommonType", 18),)),
}


class Decoder:
    """The values of one gob stream, in `data` as a whole."""

    def __init__(self, data: bytes, *, value_limit: int = VALUE_LIMIT) -> None:
        self._data = data
        self._at = 0
        #: Where the message that is being read ends: nothing reads beyond.
        self._end = len(data)
        self._value_limit = self._values_left = value_limit
        self._types: dict[int, int | _SliceOf | _MapOf | _StructOf] = {**_BUILT_IN}
        self._basic: dict[int, Callable[[], Any]] = {
            Basic.BOOL: lambda: self._unsigned() != 0,
            Basic.INT: self._signed,
            Basic.UINT: self._unsigned,
            Basic.FLOAT: self._float,
            Basic.BYTES: self._bytes,
            # A stranger's string may be no UTF-8.  Names that we compare are; the rest is shown.
            Basic.STRING: lambda: self._bytes().decode(errors="replace"),
        }

    @property
    def values(self) -> int:
        """How many values have been decoded, those in others counted too."""
        return self._value_limit - self._values_left

    def decode(self) -> Any:
        """The next value; ProtocolError if there is none."""
        while (type_id := self._begin_message()) < 0:
            self._read_definition(-type_id)
            self._require_end()
        if not isinstance(self._types.get(type_id), _StructOf) and self._unsigned() != 0:
            raise ProtocolError("gob: no zero before a value that is not a struct")
        value = self._value(type_id, DEPTH_LIMIT)
        self._require_end()
        return value

    def messages(self) -> Iterator[tuple[bool, bytes]]:
        """The messages that follow, each as it is, and whether it is a definition.

        Raises ProtocolError where one is cut off.
        """
        while self._at < len(self._data):
            start = self._at
            is_definition = self._begin_message() < 0
            self._at = self._end
            yield is_definition, self._data[start : self._end]

    def _begin_message(self) -> int:
        """The type id of the next message, which is negative if it is a definition."""
        self._end = len(self._data)
        length = self._unsigned()
        if length > self._end - self._at:
            raise ProtocolError(f"gob: a message of {length} bytes is cut off")
        self._end = self._at + length
        return self._signed()

    def _require_end(self) -> None:
        if self._at != self._end:
            raise ProtocolError(f"gob: {self._end - self._at} bytes after the end of a value")

    def _read_definition(self, type_id: int) -> None:
        if type_id < _FIRST_USER_TYPE or type_id in self._types:
            raise ProtocolError(f"gob: type {type_id} cannot be defined again")
        if len(self._types) - len(_BUILT_IN) >= TYPE_LIMIT:
            raise ProtocolError(f"gob: more than {TYPE_LIMIT} types")
        definition = self._value(_WIRE_TYPE, DEPTH_LIMIT)
        if len(definition) != 1:
            raise ProtocolError(f"gob: type {type_id} is defined as {len(definition)} kinds")
        ((kind, body),) = definition.items()
        match kind:
            case "ArrayT" | "SliceT":
                self._types[type_id] = _SliceOf(body.get("Elem", 0))
            case "MapT":
                self._types[type_id] = _MapOf(body.get("Key", 0), body.get("Elem", 0))
            case "StructT":
                self._types[type_id] = _StructOf(
                    tuple((f.get("Name", ""), f.get("Id", 0)) for f in body.get("Field", ()))
                )
            case _:
                self._types[type_id] = _OPAQUE

    def _value(self, type_id: int, depth_left: int) -> Any:
        self._values_left -= 1
        if self._values_left < 0:
            raise ProtocolError("gob: too many values")
        basic = self._basic.get(type_id)
        if basic:
            return basic()
        if depth_left == 0:
            raise ProtocolError("gob: nested too deeply")
        match self._types.get(type_id):
            case _StructOf(fields):
                return self._struct(fields, depth_left - 1)
            case _SliceOf(element):
                return [self._value(element, depth_left - 1) for _ in range(self._count())]
            case _MapOf(key, element):
                return self._map(key, element, depth_left - 1)
            case int():
                return self._bytes()
        raise ProtocolError(f"gob: no type {type_id}")

    def _struct(self, fields: Sequence[tuple[str, int]], depth_left: int) -> dict[str, Any]:
        value: dict[str, Any] = {}
        number = -1
        while distance := self._unsigned():
            number += distance
            if number >= len(fields):
                raise ProtocolError(f"gob: field {number} of a struct of {len(fields)}")
            name, type_id = fields[number]
            value[name] = self._value(type_id, depth_left)
        return value

    def _map(self, key_id: int, element_id: int, depth_left: int) -> dict[Any, Any]:
        value: dict[Any, Any] = {}
        for _ in range(self._count()):
            key = self._value(key_id, depth_left)
            if isinstance(key, dict | list):
                raise ProtocolError("gob: a map's key is no plain value")
            value[key] = self._value(element_id, depth_left)
        return value

    def _count(self) -> int:
        """How many elements follow: each takes a byte at least."""
        count = self._unsigned()
        if count > self._end - self._at:
            raise ProtocolError(f"gob: {count} elements in {self._end - self._at} bytes")
        return count

    def _bytes(self) -> bytes:
        length = self._count()
        self._at += length
        return self._data[self._at - length : self._at]

    def _float(self) -> float:
        (value,) = struct.unpack("<d", self._unsigned().to_bytes(8, "big"))
        return float(value)

    def _signed(self) -> int:
        value = self._unsigned()
        return ~(value >> 1) if value & 1 else value >> 1

    def _unsigned(self) -> int:
        if self._at >= self._end:
            raise ProtocolError("gob: cut off")
        first = self._data[self._at]
        self._at += 1
        if first < 128:
            return first
        size = 256 - first
        if size > 8 or size > self._end - self._at:
            raise ProtocolError(f"gob: a number of {size} bytes")
        self._at += size
        return int.from_bytes(self._data[self._at - size : self._at], "big")
