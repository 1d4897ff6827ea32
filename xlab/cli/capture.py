"""`xlab capture`: what passes an interface of a lab that stays."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from xlab.cli._app import command
from xlab.cli._options import Name, complete_node
from xlab.cli._streams import print_error
from xlab.errors import UsageError, meant, quoted

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from xlab.outside.running_lab import RunningLab

#: Of tcpdump interrupted though it did not catch that; else it ends by itself, with 0.
_TIME_IS_OVER = 128 + signal.SIGINT


@command(
    epilog="On a terminal what passes is told line by line; else it is written as pcap: "
    "xlab capture h1:eth0 | wireshark -k -i -",
)
def capture(
    *,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="NODE[:INTERFACE] [FILTER]...",
            help="h1:eth0, h1/c1, wire:s1-eth1; then what tcpdump is to let pass: -- icmp or arp.",
            autocompletion=complete_node,
        ),
    ],
    name: Name = None,
    write: Annotated[
        str | None,
        typer.Option(
            "--write", "-w", metavar="FILE", help="NAME.pcapng, or any other name for pcap; or -."
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-c", min=1, help="End after so many packets.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=0.001, help="End after so many seconds.")
    ] = None,
) -> int:
    """Show or keep what passes an interface of a node; Ctrl-C ends it."""
    from xlab.kernel import signals, tcpdump
    from xlab.kernel.processes import search_path
    from xlab.outside import running_lab
    from xlab.sandbox import containment, entering, sandbox

    place, *pattern = words
    node, _, interface = place.partition(":")
    told = write is None and sys.stdout.isatty()
    # As whoever it is started as: in a sandbox without root there is no user tcpdump.
    argv = ["tcpdump", "-n", "-Z", "root", "-i", interface or "any"]
    argv += ["-l", "-e"] if told else ["-U", "-w", "-"]
    argv += ["-c", str(count)] if count else []
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers: dict[int, signals.Handler] = {number: signal.getsignal(number) for number in ends}
    with running_lab.find(name) as lab:
        # The machine's tcpdump, not what the host has in its place: only its network is entered.
        doors = lab.enter(node, inhabited=False)
        _require_interface(lab, node, interface)
        if write == "-" and sys.stdout.isatty():
            raise UsageError("--write - is for a file or a pipe, not for a terminal")
        writer = None
        if not told:
            writer = _keep(None if write in (None, "-") else Path(write), place)
        elif peers := _routers(lab):
            argv.append("-x")
            writer = _through(partial(tcpdump.explain, peers=peers), os.dup(1))
        argv += ["--", *pattern]
        env = {**(containment.environment() if doors.limits else os.environ), "PATH": search_path()}
        status = entering.run(
            doors, argv, node=node, folder=Path("/"), env=env, duration_s=duration
        )
        signals.handle(handlers)
        if writer is not None:
            os.close(1)
            # What was not kept is worse than whatever tcpdump, or the end of its time, comes to.
            status = sandbox.status_of(writer) or status
        return 0 if duration and status == _TIME_IS_OVER else status


def _require_interface(lab: RunningLab, node: str, interface: str) -> None:
    """UsageError says which there are: tcpdump only that there is no such device."""
    if interface in ("", "any"):
        return
    told = lab.run(node, ["cat", "/proc/net/dev"]).stdout
    known = [line.partition(":")[0].strip() for line in told.splitlines() if ":" in line]
    if known and interface not in known:
        there_are = f"{', '.join(known[:_MOST_SHOWN])}{' …' if known[_MOST_SHOWN:] else ''}"
        guess = meant(interface, known)
        raise UsageError(
            f"{node} has no interface {quoted(interface)}: there are {there_are}{guess}"
        )


#: Of interfaces in a message; a switch of a large lab has a thousand.
_MOST_SHOWN = 20


def _routers(lab: RunningLab) -> dict[bytes, str]:
    """The hosts of weave's routers, by the names that these have among each other."""
    if not any("weave" in node.get("daemons", {}) for node in lab.describe()["nodes"]):
        return {}
    found = {node["name"]: node["router"] for node in lab.call("network", {}) if node["router"]}
    return {bytes.fromhex(r["name"].replace(":", "")): host for host, r in found.items()}


def _keep(file: Path | None, place: str) -> int:
    """Let what is captured go through a child, whose number it is, to a file outside, or on."""
    from xlab.kernel import disk, pcapng

    if file is None:
        return _through(pcapng.copy, os.dup(1), "standard output")
    descriptor = disk.create(file)
    as_pcapng = partial(pcapng.convert, interface=place)
    return _through(as_pcapng if file.suffix == ".pcapng" else pcapng.copy, descriptor, str(file))


def _through(
    convert: Callable[[BinaryIO, BinaryIO], object], descriptor: int, name: str = "the terminal"
) -> int:
    """Let standard output go through a child, whose number it is, to what `descriptor` is of.

    Each write is whole or not at all.
    """
    from xlab.kernel import syscalls
    from xlab.record.record import Whole

    reading, writing = os.pipe2(os.O_CLOEXEC)

    def become_writer() -> NoReturn:
        status = 1
        try:
            # It ends when tcpdump does, whoever was told to end, and may write in the background.
            for each in ("INT", "TERM", "HUP", "QUIT", "TTOU"):
                signal.signal(signal.Signals[f"SIG{each}"], signal.SIG_IGN)
            os.close(writing)
            with os.fdopen(reading, "rb") as captured, Whole(descriptor, "wb") as kept:
                convert(captured, kept)
            status = 0
        except BrokenPipeError:
            status = 128 + signal.SIGPIPE  # whoever read has read enough
        except OSError as error:
            print_error(f"xlab: {name}: {error.strerror}")
        except Exception as error:  # noqa: BLE001 - nothing may return into the caller's code
            print_error(f"xlab: {error}")
        finally:
            os._exit(status)

    sys.stdout.flush()
    child = syscalls.fork(become_writer)
    for end in (reading, descriptor):
        os.close(end)
    os.dup2(writing, 1)
    os.close(writing)
    return child
