"""Values that differ from student to student, drawn so that everybody's can be drawn again.

    HMAC-SHA-256(course secret, student, exercise)  ──>  a key  ──>  each value by its own name

What is drawn: one of several, a number between two, a network.  What follows from that: an address
of a network, a part of it, its netmask, a sum, a text, one thing or another by a value.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from itertools import count
from typing import Any

from xlab.errors import UsageError, at, shortened

Value = str | int | float
Values = Mapping[str, Value]

#: `{name}`, but not the shell's `${name}`.
_PLACE = re.compile(r"(?<!\$)\{(\w+)\}")
#: Docker's own, the yardstick's and the outside's: nothing drawn may lie there.
_TAKEN = tuple(map(IPv4Network, ("172.17.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
                                 "127.0.0.0/8", "224.0.0.0/3")))  # fmt: skip
_MOST_DRAWS = 1000
#: Of one value: ten that each hold the one before ten times would have 10^10 characters.
_MOST_CHARACTERS = 1 << 10
#: A number is below this, either way, as in a file (document.py).
_MOST = 10**15
#: What makes the variant of somebody who has no course: seeds are no secret.
_PRACTICE = b"xlab practice"


@dataclass(frozen=True, slots=True)
class Variant:
    """Whose values they are."""

    student: str
    secret: bytes = _PRACTICE

    def key(self, exercise: str) -> bytes:
        said = "\0".join((self.student, exercise)).encode(errors="surrogatepass")
        return hmac.digest(self.secret, said, hashlib.sha256)


def drawn(wanted: Mapping[str, Any], key: bytes) -> dict[str, Value]:
    """A value for each name, in order; UsageError, which names it, where that makes no sense."""
    values: dict[str, Value] = {}
    networks: list[IPv4Network] = []
    for name, how in wanted.items():
        with at(f"variants.{name}"):
            for said in filter(lambda said: isinstance(said, str), how.values()):
                for other in unknown_in(said, values):
                    if other in wanted:
                        raise UsageError(f"{other} is no value that stands before this one")
            values[name] = _kept_short(_value(name, how, values, networks, key))
    return values


def filled(text: str, values: Values) -> Value:
    """With every `{name}` that is the name of a value; a text that is nothing else is the value."""
    whole = _PLACE.fullmatch(text)
    if whole and whole[1] in values:
        return values[whole[1]]
    return _PLACE.sub(lambda found: str(values.get(found[1], found[0])), text)


def filled_length(text: str, values: Values) -> int:
    """Characters of what `filled` would make of it."""
    names = [name for name in _PLACE.findall(text) if name in values]
    return len(text) + sum(len(str(values[name])) - len(name) - 2 for name in names)


def unknown_in(text: str, values: Values) -> list[str]:
    """Names in braces that are the names of no values."""
    return [name for name in _PLACE.findall(text) if name not in values]


def _value(
    name: str, how: Mapping[str, Any], values: Values, networks: list[IPv4Network], key: bytes
) -> Value:
    def chosen(number_of: int, turn: int = 0) -> int:
        """A number below that, evenly enough: 256 bits modulo it."""
        found = hmac.digest(key, f"{name}\0{turn}".encode(), hashlib.sha256)
        return int.from_bytes(found) % number_of

    def given(said: Value) -> Value:
        if not isinstance(said, str):
            return said
        if filled_length(said, values) > _MOST_CHARACTERS:
            raise _too_long()
        return filled(said, values)

    def one_of(those: Sequence[Value]) -> Value:
        if not those:
            raise ValueError("there is nothing to choose from")
        return given(those[chosen(len(those))])

    def case(of: str) -> Value:
        if of not in values:
            raise UsageError(f"{shortened(of)} is no value that stands before this one")
        if str(values[of]) not in how:
            raise UsageError(f"nothing is said of the case that {of} is {values[of]}")
        return given(how[str(values[of])])

    def network(said: str) -> IPv4Network:
        if said not in values:
            raise UsageError(f"{shortened(said)} is no value that stands before this one")
        return IPv4Network(str(values[said]))

    def number(said: str | int) -> int:
        found = values.get(said, said) if isinstance(said, str) else said
        if not isinstance(found, int):
            raise UsageError(f"{shortened(said)} is no number")
        return found

    rules: Mapping[str, Callable[[Any], Value]] = {
        "one_of": one_of,
        "between": lambda ends: one_of(range(ends[0], ends[1] + 1, how.get("step", 1))),
        "network": lambda around: _network(
            IPv4Network(given(around)), number(how["prefix"]), networks, chosen
        ),
        "address": lambda of: str(network(of[0])[number(of[1])]),
        "part": lambda of: str(_part(network(of[0]), number(of[1]), number(of[2]))),
        "netmask": lambda of: str(network(of).netmask),
        "bits": lambda of: network(of).prefixlen,
        "sum": lambda those: sum(map(number, those)),
        "case": case,
        "text": given,
    }
    word = next(each for each in rules if each in how)
    try:
        return rules[word](how[word])
    except (KeyError, IndexError, ValueError) as error:
        raise UsageError(f"{word}: {shortened(error)}") from error


def _kept_short(value: Value) -> Value:
    if isinstance(value, str) and len(value) > _MOST_CHARACTERS:
        raise _too_long()
    if not isinstance(value, str) and abs(value) >= _MOST:
        raise UsageError("a number of more than 15 digits")
    return value


def _too_long() -> UsageError:
    return UsageError(f"a value has {_MOST_CHARACTERS:,} characters at most")


def _part(network: IPv4Network, prefix: int, number: int) -> IPv4Network:
    if not network.prefixlen <= prefix <= 32:
        raise ValueError(f"{network} has no /{prefix}")
    size = 1 << (32 - prefix)
    start = int(network.network_address) + number * size
    found = IPv4Network((start, prefix))
    if not found.subnet_of(network):
        raise ValueError(f"{network} has no /{prefix} number {number}")
    return found


def _network(
    around: IPv4Network, prefix: int, taken: list[IPv4Network], chosen: Callable[[int, int], int]
) -> str:
    """One that overlaps none of those drawn before."""
    if not around.prefixlen <= prefix <= 32:
        raise ValueError(f"{around} has no /{prefix}")
    choices = 1 << (prefix - around.prefixlen)
    for turn in count():
        found = _part(around, prefix, chosen(choices, turn))
        if not any(found.overlaps(each) for each in (*_TAKEN, *taken)):
            taken.append(found)
            return str(found)
        if turn == _MOST_DRAWS:
            raise ValueError(f"{around} has no room for another /{prefix}")
    raise AssertionError
