"""What the router says of itself, in Weave Net's words: pages as text, and a report as data.

    /status                a summary                 /report          everything, as JSON
    /status/connections    one line for each         /status/targets  what is dialled for people
    /status/peers          who is connected to whom

`/connect` and `/forget` take a form: peer=ADDRESS, any number, and replace=true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from xlab.weave import names
from xlab.weave.connection import Connection
from xlab.weave.router import Router, describe
from xlab.weave.targets import Target, parse_address
from xlab.weave.topology import Peer

#: In a mesh of more peers those trees are reported that frames have needed: to work out the others
#: may take seconds, in which no frames move.
_ALL_TREES_OF = 64

#: What the status calls an overlay that is not what Weave Net means by its name.
_MODES = {"sleeve": "sleeve", "fastdp": "fastdp equivalent"}


@dataclass(frozen=True, slots=True)
class Answer:
    status: HTTPStatus
    text: str
    content_type: str = "text/plain; charset=utf-8"


def answer(router: Router, method: str, path: str, body: str) -> Answer:
    """The answer to an HTTP request."""
    if path not in (*_PAGES, "/report", "/connect", "/forget"):
        return Answer(HTTPStatus.NOT_FOUND, f"no {path}; there are {' '.join(_PAGES)} /report\n")
    takes = "POST" if path in ("/connect", "/forget") else "GET"
    if method != takes:
        return Answer(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {takes}\n")
    if takes == "POST":
        return _change_targets(router, path, body)
    if path in _PAGES:
        return Answer(HTTPStatus.OK, _PAGES[path](router))
    import json

    return Answer(HTTPStatus.OK, json.dumps(report(router)) + "\n", "application/json")


def _change_targets(router: Router, path: str, body: str) -> Answer:
    form = parse_qs(body)
    try:
        addresses = [parse_address(peer.strip()) for peer in form.get("peer", [])]
    except ValueError as error:
        return Answer(HTTPStatus.BAD_REQUEST, f"{error}\n")
    if not addresses:
        return Answer(HTTPStatus.BAD_REQUEST, "no peer=ADDRESS given\n")
    if path == "/forget":
        router.forget(addresses)
    else:
        if form.get("replace") == ["true"]:
            router.targets.forget_all()
        router.connect(addresses)
    return Answer(HTTPStatus.OK, "")


# -- pages -----------------------------------------------------------------------------------------


def summary(router: Router) -> str:
    """The page `/status`."""
    ourself = router.topology.ourself
    established = sum(c.established for c in router.neighbours.values())
    pending = len(router.neighbours) - established
    peers = router.topology.peers.values()
    links = sum(len(peer.links) for peer in peers)
    lines = (
        ("Protocol", "weave 1..2"),
        ("Name", describe(ourself)),
        ("Datapath", _MODES[router.identity.overlay]),
        ("Encryption", "disabled"),
        ("PeerDiscovery", "enabled"),
        ("Targets", str(len(router.targets.direct))),
        ("Connections", f"{len(router.neighbours)} ({established} established, {pending} pending)"),
        ("Peers", f"{len(peers)} (with {links} connections)"),
    )
    return "".join(f"{key:>15}: {value}\n" for key, value in lines)


def connections(router: Router) -> str:
    """The page `/status/connections`: those that are there, then those that are being tried."""
    lines = [_connection_line(router, c) for _, c in sorted(router.neighbours.items())]
    for target in _tried(router):
        state, info = _target_state(router, target)
        lines.append(_line("->", str(target.address), state, info))
    return "".join(lines)


def peers(router: Router) -> str:
    """The page `/status/peers`: each peer, and below it its connections as it sees them."""
    known = router.topology.peers
    lines = []
    for _, peer in sorted(known.items()):
        lines.append(f"{describe(peer)}\n")
        for other, link in sorted(peer.links.items()):
            far = known.get(other)
            arrow = "->" if link.outbound else "<-"
            state = "established" if link.established else "pending"
            label = describe(far) if far else names.text(other)
            address = _printable(link.remote_address)
            lines.append(f"   {arrow} {address:<21} {label:<37} {state}\n")
    return "".join(lines)


def targets(router: Router) -> str:
    """The page `/status/targets`."""
    return "".join(f"{target}\n" for target in router.targets.direct)


_PAGES: Mapping[str, Callable[[Router], str]] = {
    "/status": summary,
    "/status/connections": connections,
    "/status/peers": peers,
    "/status/targets": targets,
}


def _line(arrow: str, address: str, state: str, info: str) -> str:
    return f"{arrow} {address:<21} {state:<11} {info}".rstrip() + "\n"


def _connection_line(router: Router, connection: Connection) -> str:
    peer = connection.introduced
    mtu = router.overlay.mtu(peer.name)
    overlay, mode = router.identity.overlay, _MODES[router.identity.overlay]
    words = [overlay, describe(peer)]
    if mtu is not None:
        words.append(f"mtu={mtu}")
    if mode != overlay:
        words.append(f"({mode})")
    return _line(
        "->" if connection.outbound else "<-",
        str(connection.remote),
        "established" if connection.established else "pending",
        " ".join(words),
    )


def _tried(router: Router) -> list[Target]:
    return [t for t in router.targets.unconnected if t.peer not in router.neighbours]


def _target_state(router: Router, target: Target) -> tuple[str, str]:
    """(state, what else there is to say), in Weave Net's words."""
    error = _printable(target.error)
    if target.attempting:
        return "connecting", error
    if target.try_at_s is None:
        return "failed", f"{error}, retry: never"
    wait_s = max(0.0, target.try_at_s - router.timers.clock())
    state = "failed" if error else "waiting"
    return state, f"{error or 'not tried yet'}, retry in {wait_s:.1f} s"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


# -- data ------------------------------------------------------------------------------------------


def report(router: Router) -> dict[str, Any]:
    """The page `/report`, as plain data; peers by name, times in seconds."""
    found = router.routes
    broadcast = found.broadcast if len(found.broadcast) <= _ALL_TREES_OF else found.worked_out
    return {
        **_peer_data(router.topology.ourself),
        "overlay": router.identity.overlay,
        "datapath": _MODES[router.identity.overlay],
        "encryption": False,
        "peers": [
            {
                **_peer_data(peer),
                "connections": [
                    {
                        "name": names.text(other),
                        "address": link.remote_address,
                        "outbound": link.outbound,
                        "established": link.established,
                    }
                    for other, link in sorted(peer.links.items())
                ],
            }
            for _, peer in sorted(router.topology.peers.items())
        ],
        "connections": [_connection_data(router, c) for _, c in sorted(router.neighbours.items())],
        "established": [
            names.text(name) for name, c in sorted(router.neighbours.items()) if c.established
        ],
        "targets": [
            {"address": str(t.address), "state": _target_state(router, t)[0], "error": t.error}
            for t in _tried(router)
        ],
        "direct": router.targets.direct,
        "routes": {
            "unicast": {
                names.text(to): names.text(hop) for to, hop in sorted(found.unicast.items())
            },
            "broadcast": {
                names.text(source): [names.text(hop) for hop in hops]
                for source, hops in sorted(broadcast.items())
            },
        },
        "counters": {
            "control": {
                **router.counters,
                "gossip_undeliverable": router.gossip.undeliverable,
                "descriptions_refused": router.topology.refused,
                "descriptions_disbelieved": router.topology.disbelieved,
            },
            "overlay": router.overlay.counters(),
        },
    }


def _peer_data(peer: Peer) -> dict[str, Any]:
    return {
        "name": names.text(peer.name),
        "nickname": peer.nickname,
        "uid": peer.uid,
        "version": peer.version,
        "short_id": peer.short_id,
    }


def _connection_data(router: Router, connection: Connection) -> dict[str, Any]:
    peer = connection.introduced
    return {
        "name": names.text(peer.name),
        "nickname": peer.nickname,
        "uid": connection.uid,
        "address": str(connection.remote),
        "outbound": connection.outbound,
        "state": "established" if connection.established else "pending",
        "overlay": router.identity.overlay,
        "datapath": _MODES[router.identity.overlay],
        "mtu": router.overlay.mtu(peer.name),
    }
