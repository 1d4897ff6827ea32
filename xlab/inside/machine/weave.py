"""The `weave` command in a host, as its script of version 1 has it, over `lab.weave`."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, NetmaskValueError

from xlab.inside.machine import docker as docker_command
from xlab.inside.machine.typist import Outcome, RefusalError, Subcommands, Typist
from xlab.lab.lab import Host
from xlab.lab.weave import ROUTER, Weave

NOTICE = "weave: the router is xlab's own, and speaks Weave Net's protocol\n"


_SUBCOMMANDS: Subcommands[Callable[[Host, Typist], Outcome]] = Subcommands()
_NO_NAMES = "there are no names: containers reach each other by the addresses in weave ps"
_DOCKER = "type docker, then weave attach ADDRESS/PREFIX CONTAINER"
#: What else people type after `weave`, and what does it here.
_INSTEAD = {
    **dict.fromkeys(("connect", "forget"), "weave stop, then weave launch PEER…"),
    "detach": "docker exec NAME ip link delete ethwe",
    **dict.fromkeys(("dns-add", "dns-lookup", "dns-remove", "dns-args", "launch-dns"), _NO_NAMES),
    **dict.fromkeys(("env", "config", "launch-proxy", "proxy-args"), _DOCKER),
    "launch-router": "weave launch",
    "report": "weave status connections",
    "reset": "weave stop, then ip link delete weave",
    "restart": "docker start CONTAINER, then weave attach ADDRESS/PREFIX CONTAINER",
    "setup": "there is nothing to download",
    "start": "docker start CONTAINER, then weave attach ADDRESS/PREFIX CONTAINER",
    "stop-router": "weave stop",
}


def perform(host: Host, typist: Typist) -> Outcome:
    """Do what was typed after `weave`; the exit status."""
    verb, *rest = list(typist.words) or ["help"]
    if verb in ("help", "--help", "-h"):
        typist.out(f"Usage: weave COMMAND\n\nEmulated here: {_SUBCOMMANDS}\n")
        return 0
    if verb not in _SUBCOMMANDS:
        advice = _INSTEAD.get(verb, f"there are {_SUBCOMMANDS}")
        raise RefusalError(f"{verb!r} is not emulated here: {advice}")
    if not host.docker.is_running:
        raise RefusalError("Cannot connect to the Docker daemon. Is the docker daemon running?")
    return _SUBCOMMANDS[verb](host, typist.having_typed(rest))


@_SUBCOMMANDS.named("launch")
def _launch(host: Host, typist: Typist) -> None:
    if host.weave.alive().get(ROUTER):
        raise RefusalError("weave is already running; you can stop it with 'weave stop'.")
    peers = []
    for word in typist.words:
        if word.startswith("-"):
            raise RefusalError(
                f"launch {word} is not emulated: weave launch [PEER…] takes other hosts' addresses"
            )
        try:
            peers.append(IPv4Address(word))
        except AddressValueError as error:
            raise RefusalError(f"{word}: the address of a peer is wanted") from error
    host.weave.launch(*peers)
    for each in host.docker.in_host_network():
        typist.out(f"{each.id}\n")


@_SUBCOMMANDS.named("run")
def _run(host: Host, typist: Typist) -> None:
    words = list(typist.words)
    if not words or words[0].startswith("-") or "/" not in words[0]:
        raise RefusalError(
            "which address? weave run ADDRESS/PREFIX, then what follows docker run; "
            "handing out addresses is not emulated"
        )
    address = _interface(words[0])
    _require_router(host.weave)
    parsed = docker_command.options_of_run(typist.having_typed(["-d", *words[1:]]))
    with docker_command.console_for(parsed) as console:
        container = docker_command.create(host.docker, parsed)
        # Weave's own entry point waits for ethwe before the program is started.
        docker_command.start_new(
            host.docker, container, console, prepare=lambda: host.weave.attach(address, container)
        )
    typist.out(f"{container.id}\n")


@_SUBCOMMANDS.named("attach")
def _attach(host: Host, typist: Typist) -> None:
    if len(typist.words) != 2:
        raise RefusalError(
            "usage: weave attach ADDRESS/PREFIX CONTAINER; handing out addresses is not emulated"
        )
    _require_router(host.weave)
    address, container = _interface(typist.words[0]), host.docker.container(typist.words[1])
    host.weave.attach(address, container)
    typist.out(f"{address.ip}\n")


@_SUBCOMMANDS.named("expose")
def _expose(host: Host, typist: Typist) -> None:
    for address in _own_addresses(host, typist, "expose"):
        host.weave.expose(address)
        typist.out(f"{address.ip}\n")


@_SUBCOMMANDS.named("hide")
def _hide(host: Host, typist: Typist) -> None:
    for address in _own_addresses(host, typist, "hide"):
        if address not in host.weave.exposed:
            # Weave's script says nothing then.
            typist.err(f"weave: {address} is not exposed here\n")
        host.weave.hide(address)
        typist.out(f"{address.ip}\n")


def _own_addresses(host: Host, typist: Typist, verb: str) -> list[IPv4Interface]:
    """Those that follow `weave expose` and `weave hide`; the bridge is there for them."""
    if not typist.words or any("/" not in word for word in typist.words):
        there = ", ".join(map(str, host.weave.exposed)) or "none"
        raise RefusalError(
            f"which address? weave {verb} ADDRESS/PREFIX; handing out addresses is not emulated. "
            f"Exposed in this host: {there}"
        )
    addresses = [_interface(word) for word in typist.words]
    _require_router(host.weave)
    return addresses


@_SUBCOMMANDS.named("status")
def _status(host: Host, typist: Typist) -> None:
    _require_router(host.weave)
    page = host.weave.status(*typist.words[:1])
    if page is None:
        raise RefusalError(
            f"status {typist.words[0]} is not emulated: there are connections, peers and targets"
        )
    typist.out(page)


@_SUBCOMMANDS.named("ps")
def _ps(host: Host, typist: Typist) -> None:
    _require_router(host.weave)
    if host.weave.exposed:
        addresses = " ".join(map(str, host.weave.exposed))
        typist.out(f"weave:expose {host.weave.bridge_mac} {addresses}\n")
    for container in host.docker.containers:
        address = container.device_address("ethwe") if "ethwe" in container.interfaces() else None
        if address:
            mac = container.mac_address("ethwe")
            typist.out(f"{container.id[:12]} {mac} {address}\n")


@_SUBCOMMANDS.named("stop")
def _stop(host: Host, _: Typist) -> None:
    _require_router(host.weave)
    host.weave.kill()


@_SUBCOMMANDS.named("version")
def _version(_: Host, typist: Typist) -> None:
    typist.out("weave 1, emulated by xlab\n")


def _interface(text: str) -> IPv4Interface:
    try:
        return IPv4Interface(text)
    except (AddressValueError, NetmaskValueError) as error:
        raise RefusalError(f"Invalid IP address: {text}") from error


def _require_router(weave: Weave) -> None:
    if not weave.alive().get(ROUTER):
        raise RefusalError("weave container is not present. Have you launched it?")
