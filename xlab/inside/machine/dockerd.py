"""What follows `dockerd` in ExecStart, and /etc/docker/daemon.json, as options of the daemon.

Flags are read as the pflag library reads them, which is why `-b = br0`, as some write it, names a
bridge "=" and leaves "br0" over.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from xlab.errors import DockerError
from xlab.lab.docker import DaemonOptions

_Kind = Literal["text", "switch", "number"]


@dataclass(frozen=True, slots=True)
class _Flag:
    kind: _Kind
    #: The field of `DaemonOptions`; "" for what changes nothing in an emulated daemon.
    field: str = ""
    #: Its name in daemon.json, if that is not the flag's.
    key: str = ""


_FLAGS = {
    "bridge": _Flag("text", "bridge"),
    "fixed-cidr": _Flag("text", "fixed_cidr"),
    "bip": _Flag("text", "bip"),
    "default-gateway": _Flag("text", "default_gateway"),
    "mtu": _Flag("number", "mtu"),
    "iptables": _Flag("switch", "iptables"),
    "ip-forward": _Flag("switch", "ip_forward"),
    "host": _Flag("text", key="hosts"),
    "exec-opt": _Flag("text", key="exec-opts"),
    "log-opt": _Flag("text", key="log-opts"),
    "label": _Flag("text", key="labels"),
    "registry-mirror": _Flag("text", key="registry-mirrors"),
    "insecure-registry": _Flag("text", key="insecure-registries"),
    **dict.fromkeys(
        ("containerd", "data-root", "graph", "storage-driver", "log-driver", "log-level", "dns"),
        _Flag("text"),
    ),
    **dict.fromkeys(("debug", "live-restore", "userland-proxy"), _Flag("switch")),
}
_SHORT = {"b": "bridge", "H": "host", "D": "debug", "g": "graph", "s": "storage-driver",
          "l": "log-level"}  # fmt: skip
_THERE = "there are " + ", ".join(name for name, flag in _FLAGS.items() if flag.field)
_DIGITS = 9
_SEE = "\nSee 'dockerd --help'."
_UNABLE = "unable to configure the Docker daemon with file /etc/docker/daemon.json"


def options(words: Sequence[str], config: str | None = None) -> DaemonOptions:
    """The options that the words after `dockerd` and the text of daemon.json come to.

    Raises DockerError in dockerd's words; for a flag of dockerd's that is not emulated in ours.
    """
    given = _flags(words)
    configured = _configured(config) if config and config.strip() else {}
    twice = sorted(set(given) & set(configured))
    if twice:
        shown = ", ".join(
            f"{name}: (from flag: {given[name]}, from file: {configured[name]})" for name in twice
        )
        raise DockerError(
            f"{_UNABLE}: the following directives are specified both as a flag and in the "
            f"configuration file: {shown}"
        )
    fields = {_FLAGS[name].field: value for name, value in (configured | given).items()}
    fields.pop("", None)
    return replace(DaemonOptions(), **fields)


def _flags(words: Sequence[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("-") or word == "-":
            raise DockerError(f'"dockerd" accepts no argument(s).{_SEE}')
        name, equals, value = _named(word)
        flag = _FLAGS[name]
        if not equals and flag.kind != "switch":
            if not left:
                dashes = word if word.startswith("--") else f"{word[1:]!r} in {word}"
                raise DockerError(f"flag needs an argument: {dashes}{_SEE}")
            value = left.pop(0)
        given[name] = _value(flag.kind, word, value if equals or value else "true")
    return given


def _named(word: str) -> tuple[str, str, str]:
    """The flag's name, what separates it from its value in the same word, and that value."""
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        if name not in _FLAGS:
            raise DockerError(
                f"unknown flag, or one that is not emulated: --{name}; {_THERE}{_SEE}"
            )
        return name, equals, value
    letter, rest = word[1], word[2:]
    if letter not in _SHORT:
        raise DockerError(f"unknown shorthand flag: {letter!r} in {word}{_SEE}")
    return _SHORT[letter], "=" if rest else "", rest.removeprefix("=")


def _value(kind: _Kind, word: str, text: str) -> Any:
    if kind == "number":
        # However many digits: int() refuses thousands of them.
        if not text.isdecimal() or len(text) > _DIGITS or not 68 <= int(text) <= 65535:
            raise DockerError(f'invalid argument "{text}" for "{word}" flag: not an MTU{_SEE}')
        return int(text)
    if kind == "switch":
        if text.lower() not in ("true", "false", "1", "0", "t", "f"):
            raise DockerError(f'invalid argument "{text}" for "{word}" flag: not a boolean{_SEE}')
        return text.lower() in ("true", "1", "t")
    return text


def _configured(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DockerError(f"{_UNABLE}: {error}") from error
    if not isinstance(found, dict):
        raise DockerError(f"{_UNABLE}: it is no JSON object")
    names = {flag.key or name: name for name, flag in _FLAGS.items()}
    unknown = [key for key in found if key not in names]
    if unknown:
        raise DockerError(
            f"{_UNABLE}: the following directives don't match any configuration option, or one "
            f"that is not emulated: {', '.join(unknown)}; {_THERE}"
        )
    kinds: dict[_Kind, type] = {"text": str, "switch": bool, "number": int}
    for key, value in found.items():
        flag = _FLAGS[names[key]]
        if flag.field and (not isinstance(value, kinds[flag.kind]) or (
            flag.kind == "number" and isinstance(value, bool)
        )):  # fmt: skip
            raise DockerError(f"{_UNABLE}: {key} is not a {flag.kind}")
        if flag.kind == "number":
            _value("number", key, str(value))
    return {names[key]: value for key, value in found.items()}
