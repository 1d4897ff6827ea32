"""One transfer of iperf3 between two nodes: both its ends from start to end.

server ──────── listens ─────────────────────────────── ends
client             └ connects ┤═══ seconds ═══┤ reports ┘
"""

from __future__ import annotations

import errno
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from xlab.errors import CommandError, XlabError
from xlab.kernel.processes import Process, command_line, wait_until
from xlab.lab.node import Node
from xlab.probes.cpu import Usage, start_measuring
from xlab.probes.parse import connections, listens

INTERVAL_S = 0.1
#: iperf3 needs no longer than so many round trips before data flows.
SET_UP_ROUND_TRIPS = 12
#: How late a tool may be on a busy machine, in what it does by itself and when told to end.
TARDINESS_S = 5.0
_PORT = 5201


@dataclass(frozen=True, slots=True)
class Run:
    """What both ends report, as JSON, and what the transfer took of the machine."""

    command: str
    client: str
    server: str
    #: From just before the client starts until it has ended.
    usage: Usage
    #: When all connections stood and when the client had ended, in seconds of the epoch.
    connected_at: float
    ended_at: float


def run(
    source: Node,
    target: Node,
    *options: str,
    seconds: float,
    set_up_s: float,
    connected: int,
    keep: Callable[[str, str], None],
    whole: bool = False,
    daemon_pids: Sequence[int] = (),
) -> Run:
    """iperf3 with `options`, its own connection and those for data being `connected` in all.

    It counts whole seconds, and is told to stop after `seconds` unless it is to end as a `whole`.
    `keep` is handed what each end printed.  Raises XlabError if the client printed nothing, or
    iperf3 cannot be run.
    """
    every = f"{INTERVAL_S:g}"
    argv = [
        "iperf3", "-4", "-c", str(target.address), "--json", "-i", every,
        "-t", str(ceil(seconds)), "--connect-timeout", str(round(1000 * (2 + set_up_s))), *options,
    ]  # fmt: skip
    with target.start(["iperf3", "-4", "-s", "-1", "--json", "-i", every]) as server:
        until_listening(server, _PORT)
        end_window = start_measuring(daemon_pids)
        with source.start(argv) as client:
            _await_connections(client, server, connected, set_up_s)
            connected_at = time.time()
            cut = seconds < ceil(seconds) and not whole
            lasts_s = seconds if cut else ceil(seconds) + TARDINESS_S
            _let_end(client, after_s=set_up_s + lasts_s)
            usage, ended_at = end_window(), time.time()
        # A client that failed leaves behind a server that would wait for another.
        _let_end(server, after_s=set_up_s + (0.5 if client.poll() else TARDINESS_S))
        keep("client.json", client.stdout())
        keep("server.json", server.stdout())
        if not client.stdout().strip():
            raise XlabError(f"iperf3 client: {client.stderr_tail().strip() or 'no output'}")
        reports = client.stdout(), server.stdout()
        return Run(command_line(argv), *reports, usage, connected_at, ended_at)


def until_listening(server: Process, port: int) -> None:
    """Wait for a server to listen, by looking and not by connecting, which it would count.

    /proc/PID/net is the network namespace of that process, whoever reads it.  Raises XlabError with
    what the server said if it ends first.
    """
    table = Path(f"/proc/{server.pid}/net/tcp")

    def ready() -> bool:
        try:
            if server.poll() is None:
                return listens(table.read_text(encoding="ascii"), port)
        except OSError as error:
            # It has ended since: do_exit() gives up namespaces before there is an end to wait for.
            if error.errno not in (errno.ENOENT, errno.ESRCH, errno.ENXIO):
                raise
        raise XlabError(f"{server.argv[0]} ended: {server.stderr_tail() or server.stdout()}")

    wait_until(ready, timeout_s=15.0, awaited=f"{server.argv[0]} to listen on port {port}")


def _await_connections(client: Process, server: Process, number: int, set_up_s: float) -> None:
    """Until so many connections to iperf3's server stand, or its client has given up."""
    table = Path(f"/proc/{server.pid}/net/tcp")

    def stand() -> bool:
        try:
            return connections(table.read_text(encoding="ascii"), _PORT) >= number
        except OSError:  # the server has ended
            return False

    wait_until(
        lambda: client.poll() is not None or stand(),
        timeout_s=2 * TARDINESS_S + 2 * set_up_s,
        awaited=f"{number} connections of iperf3",
    )


def _let_end(process: Process, *, after_s: float) -> None:
    """Give a process time to end by itself, then ask it to; iperf3 then says what it knows.

    One that does not even do that is killed where its context ends.
    """
    try:
        process.wait(after_s)
    except CommandError:
        process.signal(signal.SIGTERM)
        with suppress(CommandError):
            process.wait(TARDINESS_S)
