"""What the router says of itself, and the little HTTP it says it over."""

from __future__ import annotations

import dataclasses
import http.client
import io
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.weave_world import Member, World
from xlab.lab import weave
from xlab.lab.weave import Weave
from xlab.weave import names, status, web
from xlab.weave.status import Answer, answer
from xlab.weave.targets import parse_address
from xlab.weave.topology import Link, Peer


@pytest.fixture
def pair() -> tuple[World, Member, Member]:
    world = World()
    a, b = world.routers(2)
    b.control.connect([a.host])
    world.run(1.0)
    return world, a, b


def get(member: Member, path: str) -> str:
    got = answer(member.control, "GET", path, "")
    assert got.status == 200
    return got.text


# -- pages -----------------------------------------------------------------------------------------


def test_a_line_for_each_connection_as_weave_net_writes_it(
    pair: tuple[World, Member, Member],
) -> None:
    _, a, b = pair
    assert get(b, "/status/connections") == (
        "-> 10.0.0.1:6783         established sleeve 7a:00:00:00:00:01(h1) mtu=1438\n"
    )
    assert get(a, "/status/connections") == (
        "<- 10.0.0.2:40001        established sleeve 7a:00:00:00:00:02(h2) mtu=1438\n"
    )


def test_the_equivalent_of_fastdp_says_that_it_is_one() -> None:
    world = World()
    a, b = (world.router(name, overlays=("fastdp", "sleeve")) for name in ("h1", "h2"))
    b.control.connect([a.host])
    world.run(1.0)
    assert get(b, "/status/connections").endswith("mtu=1438 (fastdp equivalent)\n")
    assert "Datapath: fastdp equivalent\n" in get(b, "/status")
    assert json.loads(get(b, "/report"))["connections"][0]["datapath"] == "fastdp equivalent"


def test_what_is_being_tried_says_why_it_failed(pair: tuple[World, Member, Member]) -> None:
    world, a, b = pair
    a.stop()
    world.run(2.0)
    line = get(b, "/status/connections")
    assert line.startswith("-> 10.0.0.1:6783         failed      Connection refused, retry in ")
    (target,) = json.loads(get(b, "/report"))["targets"]
    assert target == {
        "address": "10.0.0.1:6783",
        "state": "failed",
        "error": "Connection refused",
    }


def test_the_summary(pair: tuple[World, Member, Member]) -> None:
    _, _, b = pair
    lines = [line.strip() for line in get(b, "/status").splitlines()]
    assert "Name: 7a:00:00:00:00:02(h2)" in lines
    assert "Targets: 1" in lines
    assert "Connections: 1 (1 established, 0 pending)" in lines
    assert "Peers: 2 (with 2 connections)" in lines


def test_peers_with_their_connections(pair: tuple[World, Member, Member]) -> None:
    _, a, _ = pair
    assert get(a, "/status/peers").splitlines() == [
        "7a:00:00:00:00:01(h1)",
        "   <- 10.0.0.2:40001        7a:00:00:00:00:02(h2)                 established",
        "7a:00:00:00:00:02(h2)",
        "   -> 10.0.0.1:6783         7a:00:00:00:00:01(h1)                 established",
    ]


def test_the_report_has_all_of_it(pair: tuple[World, Member, Member]) -> None:
    _, a, b = pair
    report = json.loads(get(b, "/report"))
    assert report["name"] == "7a:00:00:00:00:02"
    assert report["established"] == ["7a:00:00:00:00:01"]
    assert report["routes"] == {
        "unicast": {"7a:00:00:00:00:01": "7a:00:00:00:00:01"},
        "broadcast": {"7a:00:00:00:00:01": [], "7a:00:00:00:00:02": ["7a:00:00:00:00:01"]},
    }
    (connection,) = report["connections"]
    assert connection == {
        "name": "7a:00:00:00:00:01",
        "nickname": "h1",
        "uid": a.overlay.peers[b.name].uid,
        "address": "10.0.0.1:6783",
        "outbound": True,
        "state": "established",
        "overlay": "sleeve",
        "datapath": "sleeve",
        "mtu": 1438,
    }
    assert [peer["nickname"] for peer in report["peers"]] == ["h1", "h2"]
    assert report["peers"][0]["connections"][0]["established"] is True
    assert report["direct"] == ["10.0.0.1"]
    assert report["counters"]["control"]["dialled"] == 1
    assert report["counters"]["overlay"] == {"added": 1}


def test_in_a_large_mesh_a_report_has_the_trees_that_frames_have_needed(
    pair: tuple[World, Member, Member],
) -> None:
    """A stranger's gossip may describe a chain of 4,000 peers: all their trees take ten seconds."""
    _, a, b = pair
    chain = [a.name, *(names.from_number(0x7B0000000000 + number) for number in range(200))]
    up = Link("10.0.0.9:6783", outbound=True, established=True)
    view = b.control.topology
    first = dataclasses.replace(view.peers[a.name], version=99, links={b.name: up, chain[1]: up})
    rest = [
        Peer(name, "x", uid=1, version=1, links=dict.fromkeys((before, after), up))
        for before, name, after in zip(chain, chain[1:], [*chain[2:], a.name], strict=False)
    ]
    view.merge([first, *rest])
    b.control._calculate_routes()
    assert b.overlay.broadcast[chain[5]] == []
    told = json.loads(get(b, "/report"))["routes"]
    assert len(told["unicast"]) == 201
    assert told["broadcast"] == {names.text(chain[5]): []}


def test_a_nickname_cannot_forge_lines() -> None:
    world = World()
    a = world.router("h1")
    b = world.router("h2)\n-> 10.9.9.9:6783  established \x1b[31m(")
    b.control.connect([a.host])
    world.run(1.0)
    for page in ("/status/connections", "/status/peers", "/status"):
        text = get(a, page)
        assert "\x1b" not in text
        assert not any(line.startswith("-> 10.9") for line in text.splitlines())


# -- requests --------------------------------------------------------------------------------------


def test_connect_and_forget(pair: tuple[World, Member, Member]) -> None:
    world, a, _ = pair
    c = world.router("h3")
    assert answer(a.control, "POST", "/connect", "peer=10.0.0.3&peer=10.0.0.9:7000").status == 200
    world.run(1.0)
    assert c.name in a.established
    assert get(a, "/status/targets") == "10.0.0.3\n10.0.0.9:7000\n"
    assert answer(a.control, "POST", "/forget", "peer=10.0.0.9:7000").status == 200
    assert get(a, "/status/targets") == "10.0.0.3\n"
    assert answer(a.control, "POST", "/connect", "peer=10.0.0.2&replace=true").status == 200
    assert get(a, "/status/targets") == "10.0.0.2\n"


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "says"),
    [
        ("GET", "/", "", 404, "no /;"),
        ("GET", "/status/ipam", "", 404, "/status/peers"),
        ("POST", "/status", "", 405, "takes GET"),
        ("POST", "/report", "", 405, "takes GET"),
        ("GET", "/connect", "", 405, "takes POST"),
        ("POST", "/connect", "", 400, "no peer=ADDRESS"),
        ("POST", "/forget", "replace=true", 400, "no peer=ADDRESS"),
        ("POST", "/connect", "peer=10.0.0.3&peer=h2", 400, "not an IPv4 address: 'h2'"),
    ],
)
def test_requests_that_make_no_sense_change_nothing(
    pair: tuple[World, Member, Member], method: str, path: str, body: str, code: int, says: str
) -> None:
    _, _, b = pair
    got = answer(b.control, method, path, body)
    assert got.status == code
    assert says in got.text
    assert b.control.targets.direct == ["10.0.0.1"]


# -- HTTP ------------------------------------------------------------------------------------------


def echo(method: str, path: str, body: str) -> Answer:
    return Answer(HTTPStatus.OK, f"{method} {path} {body}")


def body_of(response: bytes | None) -> bytes:
    assert response is not None
    head, _, body = response.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"Connection: close" in head
    return body


def test_a_request_is_answered_when_it_is_complete() -> None:
    request = b"POST /connect HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\npeer=h1"
    for cut in range(len(request)):
        assert web.respond(request[:cut], echo) is None
    assert body_of(web.respond(request, echo)) == b"POST /connect peer=h1"
    assert body_of(web.respond(b"GET /status?x=1 HTTP/1.0\r\n\r\n", echo)) == b"GET /status "


@pytest.mark.parametrize(
    ("request_bytes", "code"),
    [
        (b"hello\r\n\r\n", b"400"),
        (b"GET http://elsewhere/ HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/2.0\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\nab", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"501"),
        (b"GET /" + b"x" * 20000, b"413"),
    ],
)
def test_what_is_no_request(request_bytes: bytes, code: bytes) -> None:
    response = web.respond(request_bytes, echo)
    assert response is not None
    assert response.startswith(b"HTTP/1.1 " + code)


TOKENS = st.text("abcXYZ019-", min_size=1, max_size=8)
PATHS = st.text(
    st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="? \x7f\x85\xa0")
)
FORMS = st.text(max_size=60) | st.lists(st.sampled_from(["peer=", "10.0.0.9", ":1", "&", "%"])).map(
    "".join
)


@given(
    st.sampled_from(["GET", "POST", "DELETE"]),
    PATHS,
    st.binary(max_size=200),
    st.lists(st.tuples(TOKENS, TOKENS), max_size=3),
    st.integers(0, 300),
)
def test_any_request_is_understood_as_it_was_meant_and_so_is_the_response(
    method: str, path: str, body: bytes, headers: list[tuple[str, str]], cut: int
) -> None:
    """Written as http.client writes it, read as http.client reads it."""
    lines = [f"{method} /{path} HTTP/1.1", f"CONTENT-length:\t{len(body)} "]
    lines += [f"{name}: {value}" for name, value in headers]
    request = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    seen: list[tuple[str, str, str]] = []

    def answer(*asked: str) -> Answer:
        seen.append(asked)  # type: ignore[arg-type]  # three of them
        return Answer(HTTPStatus.OK, asked[2] + "é\ud800")

    if cut < len(request):
        assert web.respond(request[:cut], answer) is None
    response = web.respond(request + b"what follows", answer)
    assert response is not None
    assert seen == [(method, f"/{path}", body.decode("latin-1"))]
    parsed = http.client.HTTPResponse(cast(socket.socket, _Received(response)))
    parsed.begin()
    assert parsed.status == 200
    assert parsed.read() == f"{body.decode('latin-1')}é?".encode()


class _Received:
    """What http.client takes for a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


@given(st.binary(max_size=300))
@example(b"Content-Length: 1\r\nContent-Length: x")
@example(b"Content-Length:")
@example(b":")
def test_noise_is_answered_or_waited_for(noise: bytes) -> None:
    for request in (
        noise,
        noise + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + noise + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length:" + noise + b"\r\n\r\n",
    ):
        response = web.respond(request, echo)
        assert response is None or response.startswith(b"HTTP/1.1 ")
    # Nobody is waited for whose request is longer than any may be.
    assert web.respond((noise or b"x") * 20_000, echo) is not None


@given(FORMS)
@example("peer=10.0.0.9:99999")
@example("peer=" + "&peer=".join(["10.0.0.9"] * 500))
@example("peer=%ff%00")
def test_any_form_names_addresses_that_can_be_dialled_or_is_refused(form: str) -> None:
    (alone,) = World().routers(1)
    got = answer(alone.control, "POST", "/connect", form)
    assert got.status in {200, 400}
    assert bool(alone.control.targets.direct) == (got.status == 200)
    for address in alone.control.targets.direct:
        parse_address(address)


def test_the_summary_is_there_for_a_router_alone() -> None:
    (alone,) = World().routers(1)
    assert "Connections: 0 (0 established, 0 pending)" in status.summary(alone.control)
    assert status.connections(alone.control) == ""


# -- who asks --------------------------------------------------------------------------------------


@contextmanager
def asked(said: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Weave]:
    """The weave command of a host where whoever listens says that, perhaps again and again."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(said)
                while said == ENDLESS:
                    connection.sendall(said)

    server = threading.Thread(target=serve)
    server.start()
    monkeypatch.setattr(weave, "STATUS_PORT", listener.getsockname()[1])
    monkeypatch.setattr(weave, "_LONGEST_ANSWER_BYTES", 4 << 20)
    host = SimpleNamespace(entered=nullcontext)
    yield Weave(cast(Any, host), cast(Any, None), number=1, mtu=1500)
    server.join()


def ok(text: str) -> bytes:
    return web._response(Answer(HTTPStatus.OK, text))


ENDLESS = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (1 << 16)
ESTABLISHED = {"address": "10.0.0.2:6783", "state": "established"}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (ok(json.dumps({"connections": [ESTABLISHED, {"state": "failed"}, 1]})), [ESTABLISHED]),
        (ok(json.dumps({"connections": [ESTABLISHED]}))[:-1], []),
        (ok('{"connections": 1}'), []), (ok("[1]"), []), (ok("[" * 100_000), []),
        (ok("\N{REPLACEMENT CHARACTER}"), []), (b"", []), (b"\xff\r\n\r\n", []), (ENDLESS, []),
        (web._response(Answer(HTTPStatus.NOT_FOUND, "{}")), []),
    ],
)  # fmt: skip
def test_connections_are_what_the_router_says_whoever_answers_in_its_place(
    said: bytes, expected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with asked(said, monkeypatch) as weave_of_host:
        assert weave_of_host.connections() == expected
