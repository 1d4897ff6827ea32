"""`systemctl`, `service` and `journalctl` in a host, for the services that an emulated host has.

    docker              the emulated daemon, as its unit file says; containers end when it does
    openvswitch-switch  ovsdb-server and ovs-vswitchd, where the host has them
    networking          `ifup -a`, as Debian's

As with systemd a unit file that was edited counts after `daemon-reload`, one that it refuses starts
nothing and ends nothing, and a service that is enabled is started when the host boots.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from xlab.errors import DockerError, XlabError
from xlab.inside.machine import dockerd, units
from xlab.inside.machine.typist import (
    Attached,
    Options,
    Outcome,
    RefusalError,
    Subcommands,
    Typist,
)
from xlab.inside.machine.units import Unit
from xlab.kernel import foreign
from xlab.kernel.programs import locate
from xlab.lab.docker import DaemonOptions
from xlab.lab.lab import Host
from xlab.lab.ovs import DAEMONS
from xlab.sandbox.console import Attachable, Console

_LINES_KEPT, _LONGEST_LINE, _DIGITS = 1000, 2000, 9
_CONFIG = Path("/etc/docker/daemon.json")


class Service(Protocol):
    """What systemd starts and stops for a unit; errors say in its words why it does not."""

    def start(self, unit: Unit) -> list[str]:
        """Lines for the journal."""

    def stop(self) -> None: ...

    def is_active(self) -> bool: ...


@dataclass(slots=True)
class _State:
    """What systemd knows of a unit."""

    unit: Unit
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    failed: bool = False


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was typed: `systemctl VERB [NAME…]`."""

    verb: str
    names: Sequence[str]
    options: Options
    typist: Typist


_SUBCOMMANDS: Subcommands[Callable[[Systemd, _Asked], Outcome]] = Subcommands()
#: What else people type after `systemctl`, and what does it here.
_INSTEAD = {
    **dict.fromkeys(("reboot", "kexec"), "type reboot"),
    **dict.fromkeys(("poweroff", "halt"), "xlab fault crash HOST outside switches the host off"),
    **dict.fromkeys(("mask", "unmask"), "systemctl stop NAME ends one until the next boot"),
    **dict.fromkeys(("reload", "kill"), "systemctl restart NAME"),
    "show": "there are systemctl status NAME and systemctl cat NAME",
    "list-dependencies": "systemctl list-units shows all there are",
}


class Systemd:
    """Of one host."""

    def __init__(self, host: Host, services: dict[str, Service]) -> None:
        """`services` by the name of their unit, without ".service"."""
        self.host = host
        self._services = services
        self._states: dict[str, _State] = {}
        self._journal: list[tuple[datetime, str, str]] = []
        #: A unit has one job at a time.  Questions do not wait for it: what a service starts may
        #: ask, as scripts of ifup's do.
        self._jobs = {name: threading.Lock() for name in services}

    def boot(self) -> None:
        """Start what does not run yet: all is enabled, in the order of `services`."""
        self._states.clear()
        for name in self._services:
            with self._jobs[name], suppress(_FailedError):  # the journal has it
                self._do("start", name)

    # -- systemctl ---------------------------------------------------------------------------------

    def systemctl(self, typist: Typist) -> Outcome:
        """`systemctl VERB [UNIT…]`; the exit status, or an editor to attend to."""
        options = Options(
            typist.words, "l", "q quiet", "n lines=", "no-pager", "full", "now", "system"
        )
        verb, *names = options.rest or ["list-units"]
        if verb not in _SUBCOMMANDS:
            advice = _INSTEAD.get(verb, f"{_SUBCOMMANDS} are, for {', '.join(self._services)}")
            raise RefusalError(f"{verb!r} is not emulated: {advice}")
        return _SUBCOMMANDS[verb](self, _Asked(verb, names, options, typist))

    def service(self, typist: Typist) -> Outcome:
        """`service NAME VERB`, which asks systemctl."""
        words = list(typist.words)
        if len(words) != 2:
            there = ", ".join(self._services)
            raise RefusalError(f"usage: service NAME start|stop|restart|status; there are {there}")
        name, verb = words
        verb = "restart" if verb in ("reload", "force-reload") else verb
        return self.systemctl(typist.having_typed([verb, name]))

    def journalctl(self, typist: Typist) -> None:
        """`journalctl [-u UNIT] [-n LINES]`."""
        options = Options(
            typist.words, "u unit=", "n lines=", "x catalog", "e pager-end", "b boot",
            "r reverse", "no-pager",
            instead={
                "f follow": "journalctl -n 20 shows the last lines",
                **dict.fromkeys(
                    ("S since=", "U until="), "journalctl -n LINES shows the last lines"
                ),
                "k dmesg": "the kernel is the machine's own: dmesg, outside of the lab",
            },
        )  # fmt: skip
        lines = self._told({self._known(name) for name in options.values("unit")})
        count = options.value("lines")
        if count is not None:
            if not count.isdecimal():
                raise RefusalError(f"--lines {count}: a number is wanted")
            # However many digits: there are no more lines than that.
            wanted = int(count) if len(count) <= _DIGITS else _LINES_KEPT
            lines = lines[-wanted:] if wanted else []
        if "reverse" in options:
            lines.reverse()
        typist.out("".join(f"{line}\n" for line in lines) or "-- No entries --\n")

    # -- what may be typed after systemctl ---------------------------------------------------------

    @_SUBCOMMANDS.named("start", "stop", "restart", unlisted=["try-restart", "reload-or-restart"])
    def _change(self, asked: _Asked) -> int:
        if not asked.names:
            raise RefusalError(f"Too few arguments. There are {', '.join(self._services)}")
        status = 0
        for name in map(self._known, asked.names):
            self._warn_if_changed(name, asked.typist)
            try:
                with self._jobs[name]:
                    # Or the boot waits for all that were waiting here.
                    asked.typist.require_host()
                    self._do(asked.verb, name)
            except _BadUnitError:
                asked.typist.err(
                    f"Failed to {asked.verb} {name}.service: Unit {name}.service has a bad unit "
                    f"file setting.\nSee system logs and 'systemctl status {name}.service' for "
                    "details.\n"
                )
                status = 1
            except _FailedError:
                asked.typist.err(
                    f"Job for {name}.service failed because the control process exited with error "
                    f'code.\nSee "systemctl status {name}.service" and "journalctl -xeu '
                    f'{name}.service" for details.\n'
                )
                status = 1
        return status

    @_SUBCOMMANDS.named("status")
    def _show(self, asked: _Asked) -> int:
        status = 0
        for name in self._named(asked):
            word = self._word(name)
            self._warn_if_changed(name, asked.typist)
            asked.typist.out(self._status_text(name, word))
            status = status or (0 if word == "active" else 3)
        return status

    @_SUBCOMMANDS.named("cat")
    def _print_files(self, asked: _Asked) -> None:
        for name in self._named(asked):
            files = self._state(name).unit.files
            asked.typist.out("\n".join(f"# {path}\n{text}" for path, text in files.items()))

    @_SUBCOMMANDS.named("edit")
    def _edit(self, asked: _Asked) -> Attached:
        """An editor on a drop-in, or on a copy of the whole file, and then a daemon-reload."""
        if len(asked.names) != 1 or not asked.typist.terminal:
            raise RefusalError(
                "edit takes one unit, and a terminal; without one write a drop-in, "
                f"{units.PLACES[0]}/NAME.service.d/override.conf, then systemctl daemon-reload"
            )
        name, full = self._known(asked.names[0]), "full" in asked.options
        own = units.PLACES[0] / f"{name}.service"
        with Console(tty=True) as console:
            descriptors = console.attach()
            process = self.host.open_program(
                ["sh", "-c", _EDIT, "sh", str(own) if full else f"{own}.d/override.conf",
                 f"{units.PLACES[-1] / own.name}" if full else os.devnull],
                console,
            )  # fmt: skip
        return Attached(Attachable(process, console), descriptors, interactive=True)

    @_SUBCOMMANDS.named("is-active", unlisted=["is-failed"])
    def _is(self, asked: _Asked) -> int:
        status = 0
        for name in self._named(asked):
            word = self._word(name)
            if "quiet" not in asked.options:
                asked.typist.out(f"{word}\n")
            status = status or (0 if word == asked.verb.removeprefix("is-") else 3)
        return status

    @_SUBCOMMANDS.named("is-enabled")
    def _is_enabled(self, asked: _Asked) -> None:
        for _ in self._named(asked):
            asked.typist.out("enabled\n")

    @_SUBCOMMANDS.named(unlisted=["enable", "disable"])
    def _enable(self, asked: _Asked) -> None:
        for name in map(self._known, asked.names):
            if asked.verb == "disable":
                raise RefusalError(
                    f"{name} stays enabled: disabling is not emulated; systemctl stop {name} ends "
                    "it until the next boot"
                )

    @_SUBCOMMANDS.named("daemon-reload", unlisted=["daemon-reexec"])
    def _reload(self, _: _Asked) -> None:
        for name, state in list(self._states.items()):
            state.unit = self._loaded(name)

    @_SUBCOMMANDS.named("list-units", unlisted=["list-unit-files"])
    def _list(self, asked: _Asked) -> None:
        for name, service in self._services.items():
            shown = "running" if service.is_active() else "dead"
            asked.typist.out(f"{name}.service  {shown}\n")

    # -- plumbing ----------------------------------------------------------------------------------

    def _named(self, asked: _Asked) -> Iterator[str]:
        """The units asked for, or all."""
        return map(self._known, asked.names or list(self._services))

    def _word(self, name: str) -> str:
        state, active = self._state(name), self._services[name].is_active()
        return "active" if active else "failed" if state.failed else "inactive"

    def _do(self, verb: str, name: str) -> None:
        active = self._services[name].is_active()
        if verb != "stop" and self._state(name).unit.trouble:
            raise _BadUnitError
        if verb == "stop" or (active and verb != "start"):
            self._stop(name)
        if verb in ("restart", "reload-or-restart") or (
            verb == ("try-restart" if active else "start")
        ):
            self._start(name)

    def _start(self, name: str) -> None:
        state = self._state(name)
        state.since, state.failed = datetime.now(UTC), False
        self.note("systemd", f"Starting {name}.service - {state.unit.description}...")
        try:
            for line in self._services[name].start(state.unit):
                self.note(name, line)
        except XlabError as error:
            state.failed = True
            for line in str(error).splitlines():
                self.note(name, line)
            self.note("systemd", f"Failed to start {name}.service - {state.unit.description}.")
            raise _FailedError from error
        self.note("systemd", f"Started {name}.service - {state.unit.description}.")

    def _stop(self, name: str) -> None:
        self._services[name].stop()
        state = self._state(name)
        state.since, state.failed = datetime.now(UTC), False
        self.note("systemd", f"Stopped {name}.service.")

    def _status_text(self, name: str, word: str) -> str:
        state = self._state(name)
        unit, paths = state.unit, list(state.unit.files)
        where = f"loaded ({paths[0]}; enabled)" if paths else "loaded (of the lab; enabled)"
        if unit.trouble:
            where = f"bad-setting (Reason: Unit {name}.service has a bad unit file setting.)"
        dot, running = {"active": ("●", "running"), "inactive": ("○", "dead")}.get(
            word, ("×", "Result: exit-code")
        )
        lines = [f"{dot} {name}.service - {unit.description}",
                 f"     Loaded: {where}"]  # fmt: skip
        lines += [f"    Drop-In: {path}" for path in paths[1:]]
        lines.append(
            f"     Active: {word} ({running}) since {state.since:%a %Y-%m-%d %H:%M:%S} UTC"
        )
        if unit.exec_start:
            lines.append(f"    Process: ExecStart={unit.exec_start}")
        return "\n".join([*lines, "", *self._told({name})[-10:], ""])

    def _told(self, names: set[str]) -> list[str]:
        """Lines of the journal, of these units and of systemd about them; of all without any."""
        about = [f"{name}.service" for name in names]
        return [
            f"{when:%b %d %H:%M:%S} {self.host.hostname} {of}: {text}"
            for when, of, text in self._journal
            if not names or of in names or any(name in text for name in about)
        ]

    def _warn_if_changed(self, name: str, typist: Typist) -> None:
        state = self._states.get(name)
        if state and state.unit.files and self._read(name).files != state.unit.files:
            typist.err(
                f"Warning: The unit file, source configuration file or drop-ins of {name}.service "
                "changed on disk. Run 'systemctl daemon-reload' to reload units.\n"
            )

    def _state(self, name: str) -> _State:
        if name not in self._states:
            self._states[name] = _State(self._loaded(name))
        return self._states[name]

    def _loaded(self, name: str) -> Unit:
        unit = self._read(name)
        if unit.trouble:
            self.note("systemd", f"{unit.name}: {unit.trouble}")
        return unit

    def _read(self, name: str) -> Unit:
        unit = f"{name}.service"
        with self.host.entered():
            return units.load(unit) or Unit(unit, {}, name, "")

    def _known(self, name: str) -> str:
        known = name.removesuffix(".service").removesuffix(".socket")
        if known not in self._services:
            raise RefusalError(
                f"Unit {known}.service could not be found; there are {', '.join(self._services)}", 5
            )
        return known

    def note(self, name: str, text: str) -> None:
        """A line for the journal."""
        self._journal.append((datetime.now(UTC), name, text[:_LONGEST_LINE]))
        del self._journal[:-_LINES_KEPT]


#: What follows is the file to edit, and what is in it when it is new.
_EDIT = """
mkdir -p "${1%/*}" && { [ -e "$1" ] || cp "$2" "$1"; } || exit
for editor in editor nano vi; do
    if command -v $editor >/dev/null; then $editor "$1" && systemctl daemon-reload; exit; fi
done
echo 'systemctl: there is no editor here' >&2
exit 1
"""


class _FailedError(Exception):
    """A unit did not start; why is in the journal."""


class _BadUnitError(_FailedError):
    """Its files are refused, so that nothing was tried."""


# -- the services ----------------------------------------------------------------------------------


class DockerService:
    """docker.service: ExecStart's options and daemon.json's, for the emulated daemon."""

    def __init__(self, host: Host) -> None:
        self._host = host
        #: While it does what the unit file says.
        self.is_starting = False

    def start(self, unit: Unit) -> list[str]:
        program, *words = unit.command()
        if not program.endswith("/dockerd"):
            raise DockerError(f"ExecStart: /usr/bin/dockerd is emulated, and not {program}")
        options = dockerd.options(words, self._config())
        docker = self._host.docker
        self.is_starting = True
        try:
            docker.start(options)
        finally:
            self.is_starting = False
        return [
            f"{options.command_line()}, emulated",
            f"Default bridge ({docker.bridge}) is assigned with an IP address {docker.subnet}",
            "API listen on /run/docker.sock",
        ]

    def stop(self) -> None:
        self._host.docker.shut_down()

    def is_active(self) -> bool:
        return self._host.docker.is_running

    def _config(self) -> str | None:
        with self._host.entered():
            try:
                return foreign.text(_CONFIG)
            except FileNotFoundError:
                return None
            except XlabError as error:
                raise DockerError(
                    f"unable to configure the Docker daemon with file {error}"
                ) from error


class OpenVSwitchService:
    """openvswitch-switch.service: both daemons."""

    def __init__(self, host: Host, restart: Callable[[], None]) -> None:
        self._host = host
        self._restart = restart

    def start(self, _: Unit) -> list[str]:
        self._restart()
        return ["ovsdb-server and ovs-vswitchd run"]

    def stop(self) -> None:
        for daemon in reversed(DAEMONS):
            self._host.ovs.kill(daemon)

    def is_active(self) -> bool:
        return all(self._host.ovs.alive().values())


class Networking:
    """networking.service: `ifup -a` and `ifdown -a`."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def start(self, _: Unit) -> list[str]:
        if not locate("ifup"):
            raise XlabError("ifup: not installed; the package is called ifupdown")
        done = self._host.run(["ifup", "-a"], timeout_s=60.0, check=False)
        if done.returncode:
            raise XlabError(done.stderr.strip() or done.stdout.strip() or "ifup -a failed")
        return done.stderr.splitlines()

    def stop(self) -> None:
        self._host.run(["ifdown", "-a", "--exclude=lo"], timeout_s=60.0, check=False)

    def is_active(self) -> bool:
        with self._host.entered():
            return Path("/run/network/ifstate").exists()


def unit_for(options: DaemonOptions) -> str:
    """docker.service with these options, in what matters here; with none as its package has it."""
    return _STOCK.format(options=options.command_line().removeprefix("dockerd"))


_STOCK = """[Unit]
Description=Docker Application Container Engine
After=network-online.target

[Service]
Type=notify
ExecStart=/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock{options}
ExecReload=/bin/kill -s HUP $MAINPID

[Install]
WantedBy=multi-user.target
"""
