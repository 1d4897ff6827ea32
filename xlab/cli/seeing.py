"""`xlab capture`: seeing into a lab that stays."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlab.cli import options
from xlab.cli.app import Debug, Job, app
from xlab.cli.inside import Name
from xlab.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What timeout(1) ends with when the time is over.
_TIME_IS_OVER = 124


@app.command(
    epilog="On a terminal what passes is told line by line; else it is written as pcap: "
    "xlab capture h1:eth0 | wireshark -k -i -",
)
def capture(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="NODE[:INTERFACE] [FILTER]...",
            help="h1:eth0, h1/c1, wire:s1-eth1; then what tcpdump is to let pass: -- icmp or arp.",
            autocompletion=options.complete_node,
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
    _debug: Debug = False,
) -> Job:
    """Show or keep what passes an interface of a node; Ctrl-C ends it."""
    place, *pattern = words
    return partial(_capture, place, pattern, name, write=write, count=count, duration=duration)


def _capture(
    place: str,
    pattern: Sequence[str],
    name: str | None,
    *,
    write: str | None,
    count: int | None,
    duration: float | None,
) -> int:
    from xlab import entering, standing
    from xlab.processes import search_path

    node, _, interface = place.partition(":")
    told = write is None and sys.stdout.isatty()
    # As whoever it is started as: in a sandbox without root there is no user tcpdump.
    argv = ["tcpdump", "-n", "-Z", "root", "-i", interface or "any"]
    argv += ["-l", "-e"] if told else ["-U", "-w", "-"]
    argv += ["-c", str(count)] if count else []
    argv += ["--", *pattern]
    if duration:
        argv = ["timeout", "--foreground", "--signal=INT", f"{duration:g}", *argv]
    with standing.find(name) as lab:
        doors = lab.enter(node)
        if write == "-" and sys.stdout.isatty():
            raise UsageError("--write - is for a file or a pipe, not for a terminal")
        writer = _redirect(Path(write), place) if write not in (None, "-") else None
        env = {**os.environ, "PATH": search_path()}
        status = entering.run(doors, argv, node=node, folder=Path("/"), env=env)
        if writer is not None:
            os.close(1)
            _, ended = os.waitpid(writer, 0)
            status = status or os.waitstatus_to_exitcode(ended)
        return 0 if duration and status == _TIME_IS_OVER else status


def _redirect(file: Path, place: str) -> int | None:
    """Let standard output go to a file, outside; for pcapng through a child, whose number it is."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    if file.suffix != ".pcapng":
        os.dup2(descriptor, 1)
        return None
    reading, writing = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _become_writer(reading, writing, descriptor, place)
    os.close(reading)
    os.dup2(writing, 1)
    os.close(writing)
    return child


def _become_writer(reading: int, writing: int, descriptor: int, place: str) -> None:
    import signal

    from xlab import pcapng
    from xlab.cli.streams import print_error

    status = 1
    try:
        # It ends when tcpdump does, whoever was told to end.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        os.close(writing)
        with os.fdopen(reading, "rb") as pcap, os.fdopen(descriptor, "wb") as kept:
            pcapng.convert(pcap, kept, interface=place)
        status = 0
    except Exception as error:  # noqa: BLE001 - nothing may return into the caller's code
        print_error(f"xlab: {error}")
    finally:
        os._exit(status)
