"""The client of ovsdb-server against whatever may stand at the other end of its socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.fuzzing import Refusal, attempt, memory_below
from xlab.errors import DaemonError
from xlab.lab import ovs, ovsdb
from xlab.lab.node import Node
from xlab.lab.ovs import OpenVSwitch
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


@contextmanager
def full(path: Path) -> Iterator[None]:
    """Somebody listens there who lets nobody in, and no more can wait: connect(2) would."""
    with ExitStack() as closing:
        listener = closing.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        while True:
            waiting = closing.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            try:
                waiting.connect(str(path))
            except BlockingIOError:
                break
        yield


def test_a_server_whose_queue_is_full_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "db.sock"
    with full(path), pytest.raises(OvsdbError, match="no connection to ovsdb-server"):
        soon(lambda: Database(str(path)))


def soon(do: Callable[[], object]) -> None:
    """Do it on a thread that is given up where it takes for ever."""
    raised: list[BaseException] = []

    def attempted() -> None:
        try:
            do()
        except BaseException as error:  # noqa: BLE001 - it is raised again
            raised.append(error)

    doing = threading.Thread(target=attempted, daemon=True)
    doing.start()
    doing.join(20.0)
    assert not doing.is_alive(), "it waits still"
    if raised:
        raise raised[0]


class Stub:
    """A daemon that runs, and has said nothing."""

    def poll(self) -> None:
        return None

    def blamed(self, daemon: str, reason: str) -> DaemonError:
        return DaemonError(daemon, node="h1", reason=reason, log_tail="")


@pytest.fixture
def switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenVSwitch:
    """That of a host in whose /run somebody else is root."""
    monkeypatch.setattr(ovs, "_RUN", str(tmp_path))
    monkeypatch.setattr(ovs, "_SOCKET", str(tmp_path / "db.sock"))
    found = OpenVSwitch(cast(Node, SimpleNamespace(name="h1", entered=nullcontext)), "userspace")
    found._daemons = {name: cast(Any, Stub()) for name in ovs.DAEMONS}
    return found


def test_a_full_or_strange_socket_of_the_database_is_none_yet(
    switch: OpenVSwitch, tmp_path: Path
) -> None:
    connected: list[bool] = []
    path = tmp_path / "db.sock"
    with full(path):
        soon(lambda: connected.append(switch._connect()))
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as strange:
        strange.bind(str(path))
        soon(lambda: connected.append(switch._connect()))
    assert connected == [False, False]


def test_a_control_socket_that_does_not_answer_is_an_error_that_names_host_and_program(
    switch: OpenVSwitch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ovs, "_PATIENCE_S", 0.05)
    neighbours = {IPv4Address("192.168.59.104"): "02:00:00:00:00:01"}

    def refused(why: str) -> None:
        with pytest.raises(DaemonError, match=f"h1.*ovs-vswitchd.*{why}"):
            soon(lambda: switch.know_neighbours("eth0", neighbours))

    refused("there are 0")
    path = tmp_path / "ovs-vswitchd.1.ctl"
    with full(path):
        refused("temporarily unavailable")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        refused("timed out")
    (tmp_path / "ovs-vswitchd.2.ctl").touch()
    refused("there are 2")
