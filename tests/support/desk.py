"""Who asks a host's desk, as a program in it may, whatever that is."""

from __future__ import annotations

import json
import socket
from typing import Any

from tests.support.labs import PATIENCE_S
from xlab.inside.machine.client import DESK
from xlab.lab.lab import Host


class Caller:
    """A connection to a host's desk."""

    def __init__(self, host: Host) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        with host.entered():
            self.socket.connect(DESK)
        self.socket.settimeout(PATIENCE_S)

    def ask(self, verb: str, **arguments: Any) -> None:
        self.socket.sendall(line_for(verb, **arguments))

    def told(self) -> dict[str, Any]:
        """The last answer but events."""
        with self.socket.makefile("rb") as lines:
            for line in lines:
                answer: dict[str, Any] = json.loads(line)
                if "event" not in answer:
                    return answer
        raise AssertionError("no answer")


def line_for(verb: str, **arguments: Any) -> bytes:
    return json.dumps({"verb": verb, "arguments": arguments}).encode() + b"\n"
