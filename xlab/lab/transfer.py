"""Bytes sent over TCP from one node to another, and whether they arrive whole."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import threading
from contextlib import suppress

from xlab.kernel.clock import Deadline
from xlab.lab.node import Node

#: A transfer may take so many times as long as it may be silent.
_LONGEST_TURNS = 10
#: How long either side waits for the other's last word, in seconds (SO_LINGER, socket(7)).  What
#: came later would be a stray in a capture that begins when the transfer has ended.
_LINGER_S = 1


def transfer(source: Node, target: Node, size: int, *, timeout_s: float) -> tuple[int, str]:
    """Send `size` bytes; returns how many arrived and what was wrong, or "same SHA-256".

    It is given up when nothing more has come for `timeout_s`.
    """
    payload = os.urandom(size)
    deadline = Deadline(_LONGEST_TURNS * timeout_s)
    with target.entered():
        listener = socket.create_server(("", 0))
    with source.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    digest, received = hashlib.sha256(), 0
    with listener, sender:
        # The listener's side waits, too: a path that dies between SYN-ACK and ACK leaves one side
        # connected, and the other never.
        for each in (listener, sender):
            each.settimeout(timeout_s)
        try:
            sender.connect((str(target.address), listener.getsockname()[1]))
            connection, _ = listener.accept()
        except OSError as error:
            return 0, f"no connection ({error.strerror or error})"
        pump = threading.Thread(target=_send_all, args=(sender, payload), daemon=True)
        pump.start()
        with connection:
            # However busy the machine is: as long as it gets on it arrives.
            connection.settimeout(timeout_s)
            while received < size:
                if deadline.passed():
                    return received, f"and no more in {_LONGEST_TURNS * timeout_s:g} s altogether"
                try:
                    chunk = connection.recv(1 << 18)
                except TimeoutError:
                    return received, f"then nothing more within {timeout_s:g} s"
                if not chunk:
                    return received, "then the connection closed"
                digest.update(chunk)
                received += len(chunk)
            pump.join()
            for each in (connection, sender):
                each.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, _LINGER_S)
                )
    same = digest.digest() == hashlib.sha256(payload).digest()
    return received, "same SHA-256" if same else "a different SHA-256"


def _send_all(sender: socket.socket, payload: bytes) -> None:
    with suppress(OSError):  # the receiving side reports what did not arrive
        sender.sendall(payload)
