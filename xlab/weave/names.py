"""Names of peers: six bytes, written like a MAC address.

Comparing the bytes orders peers as the protocol does, which compares 48-bit numbers.
"""

from __future__ import annotations

import re
from typing import TypeAlias

PeerName: TypeAlias = bytes

_MAC = re.compile(r"[0-9A-Fa-f]{2}(?:(?::[0-9A-Fa-f]{2}){5}|(?:-[0-9A-Fa-f]{2}){5})")


def parse(text: str) -> PeerName:
    """The name written as "7a:16:dd:5b:e5:9a"; ValueError if it is none, or all zero."""
    if not _MAC.fullmatch(text):
        raise ValueError(f"not a peer name: {text[:40]!r}")
    name = bytes.fromhex(text.replace(":", "").replace("-", ""))
    if not valid(name):
        raise ValueError("a peer's name cannot be all zero")
    return name


def valid(name: PeerName) -> bool:
    """Whether these bytes name a peer: zero stands for "unknown" in the protocol."""
    return len(name) == 6 and any(name)


def text(name: PeerName) -> str:
    return name.hex(":")


def number(name: PeerName) -> int:
    """The name as the 48-bit number that gossip carries."""
    return int.from_bytes(name, "big")


def from_number(value: int) -> PeerName:
    """ValueError unless the number has 48 bits and is not zero."""
    if not 0 < value < 1 << 48:
        raise ValueError(f"not a peer's number: {value}")
    return value.to_bytes(6, "big")
