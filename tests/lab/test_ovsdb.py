"""The client of ovsdb-server against whatever may stand at the other end of its socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.fuzzing import Refusal, attempt, memory_below
from xlab.lab import ovsdb
from xlab.lab.ovsdb import Database, OvsdbError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(max_size=5), JSON, max_size=3)
COUNTERS = st.sampled_from(
    [[{"rows": [{"next_cfg": 2, "cur_cfg": 2}]}], [], [None], [{"rows": []}]]
)


def all_messages(stream: bytes) -> tuple[list[dict[str, Any]], bytes]:
    found = []
    while message := ovsdb.first_message(stream):
        found.append(message[0])
        stream = message[1]
    return found, stream


@given(st.lists(OBJECTS, max_size=4), st.booleans(), st.sampled_from(["", " ", "\n"]))
def test_messages_come_out_as_they_were_sent(
    sent: list[dict[str, Any]], ascii_only: bool, between: str
) -> None:
    sent = json.loads(json.dumps(sent).replace("NaN", "0").replace("Infinity", "1"))
    stream = between.join(json.dumps(each, ensure_ascii=ascii_only) for each in sent)
    got, rest = all_messages(stream.encode(errors="replace"))
    if ascii_only:
        assert (got, rest) == (sent, b"")
    else:
        assert len(got) == len(sent)


@given(OBJECTS.filter(bool), st.integers(0, 10_000))
def test_a_message_that_is_cut_off_anywhere_is_waited_for(
    message: dict[str, Any], place: int
) -> None:
    whole = json.dumps({"é": message}, ensure_ascii=False).encode(errors="replace")
    part = whole[: place % len(whole)]
    assert ovsdb.first_message(part) is None
    assert ovsdb.first_message(whole)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b'{"a":' * 100_000)
@example(b"[1]")
@example(b"garbage")
def test_any_bytes_are_a_message_or_the_beginning_of_one_or_refused(stream: bytes) -> None:
    found = attempt(lambda: ovsdb.first_message(stream), OvsdbError)
    assert found is None or isinstance(found, Refusal) or isinstance(found[0], dict)


@contextmanager
def connected(folder: Path, answer: bytes, *, timeout_s: float = 5.0) -> Iterator[Database]:
    """A database whose server says `answer`, whatever it is asked, and hangs up."""
    path = folder / "db.sock"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as peer:
                peer.recv(65536)
                try:
                    peer.sendall(answer)
                    peer.shutdown(socket.SHUT_WR)
                    while peer.recv(65536):
                        pass
                except OSError:
                    pass  # the client has had enough

        server = threading.Thread(target=serve)
        server.start()
        database = Database(str(path), timeout_s=timeout_s)
        try:
            yield database
        finally:
            database.close()
            server.join()


ANSWERS = st.fixed_dictionaries(
    {"id": st.sampled_from([1, 1, 2, None])},
    optional={
        "result": COUNTERS | JSON,
        "error": st.none() | JSON,
        "method": st.sampled_from(["echo", "update", "x"]),
        "params": JSON,
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers=st.lists(ANSWERS, max_size=3), tail=st.binary(max_size=8))
@example([{"id": 1, "result": [5]}], b"")
@example([{"id": 1}], b"")
@example([{"id": 7, "method": "echo"}, {"id": 1, "result": [None, None]}], b"")
@example([{"id": 1, "result": [{"count": 1}, {"rows": [{"next_cfg": "x"}]}]}], b"")
def test_any_answer_to_a_commit_is_its_end_or_an_error_of_ours(
    tmp_path: Path, answers: list[dict[str, Any]], tail: bytes
) -> None:
    said = b"".join(json.dumps(each).encode() for each in answers) + tail
    with connected(tmp_path, said) as database:
        outcome = attempt(database.commit, OvsdbError)
    assert isinstance(outcome, Refusal), "nobody answered the second question"


def test_an_answer_without_end_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    endless = b'{"id": 1, "result": ["' + b"x" * (64 << 20)
    with (
        connected(tmp_path, endless, timeout_s=60.0) as database,
        memory_below(128 << 20),
        pytest.raises(OvsdbError, match="has no end"),
    ):
        database.transact()


def test_a_server_that_says_nothing_is_not_waited_for_longer_than_agreed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "db.sock"))
        listener.listen()
        database = Database(str(tmp_path / "db.sock"), timeout_s=0.05)
        with pytest.raises(OvsdbError, match=r"did not answer within 0\.05 s"):
            database.transact()
        database.close()
