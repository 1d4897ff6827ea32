"""One TCP connection to a peer, without the socket: bytes in, messages out, and the other way.

    header ──> flag ──> features ──> messages
       │         │         │            │
       └─ "weave", versions│            └─ heartbeats both ways: silence for 60 s is death
                 └─ plain, or encrypted with a key
                           └─ who the peer is; known from here on

A password would change two things: what follows the flag, and that every frame is encrypted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol

from xlab.kernel.clock import Clock
from xlab.weave import messages
from xlab.weave.gob import ProtocolError
from xlab.weave.messages import HEADER, LENGTH_BYTES, Features
from xlab.weave.targets import Address
from xlab.weave.timers import Timer

HEARTBEAT_S = 30.0
DEAD_AFTER_S = 60.0
HANDSHAKE_S = 10.0


class Stream(Protocol):
    """The socket's side of a connection.  No method raises or calls back."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...

    def pause(self) -> None:
        """Read no more: what comes waits in the network."""

    def resume(self) -> None: ...

    def confirmed_bytes(self) -> int:
        """How much of what was written has arrived at the other host, as that has said (TCP)."""


class Connection:
    """The protocol's state on one connection.

    `features` are those we introduce ourselves with here.  After `start`, what comes in goes into
    `receive`, which yields messages.
    """

    #: The first of the messages: the peer has introduced itself.  None on the wire is empty.
    INTRODUCED: Final = b""

    def __init__(
        self,
        stream: Stream,
        *,
        remote: Address,
        outbound: bool,
        features: Features,
        clock: Clock,
    ) -> None:
        self._stream = stream
        self._features = features
        self._clock = clock
        self._received = bytearray()
        #: The next step of the protocol, and how many bytes it takes.
        self._step: Callable[[bytes], bytes | None] = self._on_header
        self._step_bytes = len(HEADER)
        self.remote = remote
        self.outbound = outbound
        #: Who is there: None until it has said so.
        self.peer: Features | None = None
        #: When the last message was complete: who sends one drop by drop has not been heard.
        self.last_heard_s = clock()
        self.closed = False
        self._held = False
        #: What is to happen to it, set by the router, and called off when it is closed.
        self.timers: list[Timer] = []
        #: Whether an overlay carries frames: set by the router.
        self.established = False

    @property
    def uid(self) -> int:
        """The connection's number, the same at both ends once they have introduced themselves."""
        theirs = self.peer.connection_id if self.peer else 0
        return self._features.connection_id ^ theirs

    @property
    def introduced(self) -> Features:
        """Who is there, once it has said so."""
        assert self.peer is not None
        return self.peer

    def start(self) -> None:
        self._stream.write(HEADER)

    def send(self, message: bytes) -> None:
        if not self.closed:
            self._stream.write(messages.frame(message))

    def close(self) -> None:
        """Hang up, and keep nothing: who dials again and again must not fill the memory."""
        self.closed = True
        self._stream.close()
        self._received.clear()
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()

    def hold(self) -> None:
        """No more messages until `release`: none is lost."""
        self._held = True
        self._stream.pause()

    def release(self) -> None:
        """The messages that have come meanwhile are had by `receive`, of nothing."""
        self._held = False
        self._stream.resume()

    @property
    def confirmed_bytes(self) -> int:
        """How much of what we have sent is known to have arrived."""
        return self._stream.confirmed_bytes()

    @property
    def unfinished_bytes(self) -> int:
        """How much of a message has come that is not complete yet."""
        return len(self._received)

    def receive(self, data: bytes) -> Iterator[bytes]:
        """The messages that are complete with `data`; ProtocolError must end the connection."""
        self._received += data
        at = 0
        while not (self.closed or self._held) and len(self._received) - at >= self._step_bytes:
            part = bytes(self._received[at : at + self._step_bytes])
            at += self._step_bytes
            message = self._step(part)
            if message is not None:
                yield message
        del self._received[:at]

    # -- steps, in the order in which they come ----------------------------------------------------

    def _on_header(self, header: bytes) -> None:
        messages.check_header(header)
        self._stream.write(bytes([messages.PLAIN]))
        self._step, self._step_bytes = self._on_flag, 1

    def _on_flag(self, flag: bytes) -> None:
        if flag[0] == messages.ENCRYPTED:
            raise ProtocolError(
                "the peer has a password and wants encryption; this router has none"
            )
        if flag[0] != messages.PLAIN:
            raise ProtocolError(f"the peer's encryption flag is {flag[0]}, neither 0 nor 1")
        self.send(self._features.encode())
        self._step, self._step_bytes = self._on_length, LENGTH_BYTES

    def _on_length(self, length: bytes) -> None:
        self._step, self._step_bytes = self._on_message, int.from_bytes(length, "big")
        limit = messages.FRAME_LIMIT_BYTES if self.peer else messages.FEATURES_LIMIT_BYTES
        if self._step_bytes > limit:
            raise ProtocolError(f"a frame of {self._step_bytes} bytes; the limit is {limit}")

    def _on_message(self, message: bytes) -> bytes | None:
        self._step, self._step_bytes = self._on_length, LENGTH_BYTES
        self.last_heard_s = self._clock()
        if self.peer is None:
            self.peer = messages.parse_features(message)
            return self.INTRODUCED
        # Weave Net ignores empty messages, and so do we.
        return message or None
