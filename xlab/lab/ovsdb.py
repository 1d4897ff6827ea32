"""A client of one ovsdb-server: transactions over its JSON-RPC socket (RFC 7047).

A commit here takes about 2 ms including the wait until ovs-vswitchd has applied it; each
`ovs-vsctl` takes 8 to 11.  Everything has a deadline: a dead daemon is an error, never a hang.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from xlab.errors import XlabError
from xlab.kernel.clock import Deadline

_DATABASE = "Open_vSwitch"
#: Answers here are a few hundred bytes; the whole database of a lab's host is a hundredth of this.
_LONGEST_ANSWER_BYTES = 4 << 20


class OvsdbError(XlabError):
    """The server refused a transaction or did not answer in time."""


class Database:
    """A connection to the Open_vSwitch database behind the unix socket `path`.

    Made inside `node.entered()`, so that `path` is looked up in the node's file system.
    OvsdbError if nobody listens there, or so many wait to be let in that there is no room.
    """

    def __init__(
        self,
        path: str,
        *,
        alive: Callable[[], bool] = lambda: True,
        timeout_s: float = 30.0,
        patience: Callable[[float], Deadline] = Deadline,
    ) -> None:
        self._timeout_s = timeout_s
        #: With ovs-vswitchd, in seconds.
        self._patience = patience
        #: Whether ovs-vswitchd still runs: without it, a commit need not be waited for.
        self._alive = alive
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Where the queue is full connect(2) waits, for ever without a limit, unix(7).
            self._socket.setblocking(False)
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise OvsdbError(f"no connection to ovsdb-server: {error.strerror}") from error
        self._buffer = b""
        self._id = 0

    def close(self) -> None:
        self._socket.close()

    def transact(self, *operations: dict[str, Any]) -> list[Any]:
        """Run operations atomically; returns their results; OvsdbError if one of them failed."""
        results = self._results_of([_DATABASE, *operations])
        for result in results:
            if result is not None and not isinstance(result, dict):
                raise OvsdbError(f"ovsdb-server gave no result but {repr(result)[:80]}")
            if result and result.get("error"):
                raise OvsdbError(f"OVSDB: {result['error']}: {result.get('details', '')}")
        return results

    def commit(self, *operations: dict[str, Any]) -> list[Any]:
        """Like `transact`, and wait until ovs-vswitchd has applied the new configuration.

        The protocol of ovs-vsctl(8): next_cfg goes up by one, vswitchd follows with cur_cfg.
        """
        results = self.transact(
            *operations,
            mutate(_DATABASE, [], "next_cfg", "+=", 1),
            select(_DATABASE, "next_cfg"),
        )
        wanted = _counter(results, len(operations) + 1, "next_cfg")
        deadline = self._patience(self._timeout_s)
        # "wait" with "==" could miss the value when another commit follows at once: cur_cfg may
        # jump past it.  So the current value is asked for until it is high enough.
        pause_s = 0.0005
        while True:
            if _counter(self.transact(select(_DATABASE, "cur_cfg")), 0, "cur_cfg") >= wanted:
                return results[: len(operations)]
            if not self._alive():
                raise OvsdbError("ovs-vswitchd ended before it applied the configuration")
            if deadline.passed():
                raise OvsdbError(
                    f"ovs-vswitchd has not applied the configuration within {self._timeout_s:g} s"
                )
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.02)

    def _results_of(self, transaction: Sequence[Any]) -> list[Any]:
        self._id += 1
        deadline = Deadline(self._timeout_s)
        request = {"method": "transact", "params": transaction, "id": self._id}
        try:
            self._socket.settimeout(self._timeout_s)
            self._socket.sendall(json.dumps(request).encode())
            while True:
                answer = self._receive(deadline)
                if answer.get("method") == "echo":  # the server's keep-alive, RFC 7047 4.1.11
                    reply = {
                        "result": answer.get("params"), "error": None, "id": answer.get("id")
                    }  # fmt: skip
                    self._socket.sendall(json.dumps(reply).encode())
                elif answer.get("id") == self._id:
                    if answer.get("error"):
                        raise OvsdbError(f"OVSDB: {answer['error']}")
                    results = answer.get("result")
                    if not isinstance(results, list):
                        raise OvsdbError("ovsdb-server answered without results")
                    return results
        except TimeoutError:
            raise OvsdbError(f"ovsdb-server did not answer within {self._timeout_s:g} s") from None
        except OSError as error:
            raise OvsdbError(f"the connection to ovsdb-server broke: {error.strerror}") from error

    def _receive(self, deadline: Deadline) -> dict[str, Any]:
        """The next message of the stream."""
        while True:
            found = first_message(self._buffer)
            if found:
                message, self._buffer = found
                return message
            if len(self._buffer) > _LONGEST_ANSWER_BYTES:
                raise OvsdbError("ovsdb-server's answer has no end")
            if deadline.passed():
                raise TimeoutError
            self._socket.settimeout(max(0.001, deadline.left_s()))
            received = self._socket.recv(65536)
            if not received:
                raise OvsdbError("ovsdb-server closed the connection")
            self._buffer += received


def first_message(stream: bytes) -> tuple[dict[str, Any], bytes] | None:
    """The first of JSON objects without a separator, and what follows it; None if it is cut off.

    Raises OvsdbError for what can be no object.
    """
    # A character may be cut off at the end; what stands before it is never one that JSON needs.
    text = stream.decode(errors="ignore").lstrip()
    if text and not text.startswith("{"):
        raise OvsdbError(f"ovsdb-server does not speak JSON-RPC: {text[:80]!r}")
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except RecursionError as error:
        raise OvsdbError("ovsdb-server's answer is nested too deeply") from error
    except ValueError:
        return None
    return value, text[end:].encode()


def _counter(results: Sequence[Any], place: int, column: str) -> int:
    """A number out of the only row that a "select" found."""
    try:
        value = results[place]["rows"][0][column]
    except (LookupError, TypeError):
        value = None
    if not isinstance(value, int):
        raise OvsdbError(f"ovsdb-server told no {column}")
    return value


def insert(table: str, row: dict[str, Any], name: str) -> dict[str, Any]:
    """An insert whose new row other operations of the transaction call `reference(name)`."""
    return {"op": "insert", "table": table, "row": row, "uuid-name": name}


def reference(name: str) -> list[str]:
    return ["named-uuid", name]


def mapping(values: dict[str, str]) -> list[Any]:
    """A map column."""
    return ["map", [[key, value] for key, value in values.items()]]


def select(table: str, *columns: str, where: Sequence[Any] = ()) -> dict[str, Any]:
    """These columns of the rows that match, or of all.  Of equal rows the server gives one."""
    return {"op": "select", "table": table, "where": where, "columns": columns}


def mutate(table: str, where: Sequence[Any], *mutation: Any) -> dict[str, Any]:
    """Change the rows that match: a column, "+=", "insert" or "delete", and what."""
    return {"op": "mutate", "table": table, "where": where, "mutations": [mutation]}
