"""The `weave` command in a host, as its script of version 1 has it, over `lab.weave`."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, NetmaskValueError

from xlab.inside.machine import docker as docker_command
from xlab.inside.machine.typist import Outcome, RefusalError, Typist
from xlab.lab.docker import Docker
from xlab.lab.weave import ROUTER, Weave

NOTICE = "weave: the router is xlab's own, and speaks Weave Net's protocol\n"


def perform(weave: Weave, docker: Docker, typist: Typist) -> Outcome:
    """Do what was typed after `weave`; the exit status."""
    verb, *rest = list(typist.words) or ["help"]
    if verb in ("help", "--help", "-h"):
        typist.out(f"Usage: weave COMMAND\n\nEmulated here: {', '.join(_VERBS)}\n")
        return 0
    if verb not in _VERBS:
        raise RefusalError(f"{verb!r} is not emulated here: there are {', '.join(_VERBS)}")
    if not docker.is_running:
        raise RefusalError("Cannot connect to the Docker daemon. Is the docker daemon running?")
    return _VERBS[verb](weave, docker, typist.having_typed(rest))


def _launch(weave: Weave, docker: Docker, typist: Typist) -> Outcome:
    if weave.alive().get(ROUTER):
        raise RefusalError("weave is already running; you can stop it with 'weave stop'.")
    peers = []
    for word in typist.words:
        if word.startswith("-"):
            raise RefusalError(f"launch {word} is not emulated; the addresses of peers are wanted")
        try:
            peers.append(IPv4Address(word))
        except AddressValueError as error:
            raise RefusalError(f"{word}: the address of a peer is wanted") from error
    weave.launch(*peers)
    for each in docker.in_host_network():
        typist.out(f"{each.id}\n")
    return 0


def _run(weave: Weave, docker: Docker, typist: Typist) -> Outcome:
    words = list(typist.words)
    if not words or words[0].startswith("-") or "/" not in words[0]:
        raise RefusalError(
            "which address? weave run ADDRESS/PREFIX, then what follows docker run; "
            "handing out addresses is not emulated"
        )
    address = _interface(words[0])
    _require_router(weave)
    parsed = docker_command.options_of_run(typist.having_typed(["-d", *words[1:]]))
    container = docker_command.create(docker, parsed)
    # Weave's own entry point waits for ethwe before the program is started.
    docker_command.start_new(docker, container, prepare=lambda: weave.attach(address, container))
    typist.out(f"{container.id}\n")
    return 0


def _attach(weave: Weave, docker: Docker, typist: Typist) -> Outcome:
    if len(typist.words) != 2:
        raise RefusalError("usage: weave attach ADDRESS/PREFIX CONTAINER")
    _require_router(weave)
    address, container = _interface(typist.words[0]), docker.container(typist.words[1])
    weave.attach(address, container)
    typist.out(f"{address.ip}\n")
    return 0


def _status(weave: Weave, docker: Docker, typist: Typist) -> Outcome:
    del docker
    _require_router(weave)
    page = weave.status(*typist.words[:1])
    if page is None:
        raise RefusalError(f"status {typist.words[0]} is not emulated; there are connections, "
                            "peers and targets")  # fmt: skip
    typist.out(page)
    return 0


def _ps(weave: Weave, docker: Docker, typist: Typist) -> Outcome:
    _require_router(weave)
    for container in docker.containers:
        address = container.device_address("ethwe") if "ethwe" in container.interfaces() else None
        if address:
            mac = container.mac_address("ethwe")
            typist.out(f"{container.id[:12]} {mac} {address}\n")
    return 0


def _stop(weave: Weave, docker: Docker, typist: Typist) -> Outcome:
    del docker, typist
    _require_router(weave)
    weave.kill()
    return 0


def _version(weave: Weave, docker: Docker, typist: Typist) -> Outcome:
    del weave, docker
    typist.out("weave 1, emulated by xlab\n")
    return 0


def _interface(text: str) -> IPv4Interface:
    try:
        return IPv4Interface(text)
    except (AddressValueError, NetmaskValueError) as error:
        raise RefusalError(f"Invalid IP address: {text}") from error


def _require_router(weave: Weave) -> None:
    if not weave.alive().get(ROUTER):
        raise RefusalError("weave container is not present. Have you launched it?")


_VERBS: dict[str, Callable[[Weave, Docker, Typist], Outcome]] = {
    "launch": _launch,
    "run": _run,
    "attach": _attach,
    "status": _status,
    "ps": _ps,
    "stop": _stop,
    "version": _version,
}
