"""The router as a process: `python -m xlab.weave --name MAC --nickname NAME [PEER…]`.

Runs in the namespaces it was started in until SIGTERM or SIGINT.  Silent unless there is trouble:
then a short line on the error output for each.  It says how it is on http://127.0.0.1:6784/status.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from ipaddress import IPv4Address
from typing import NoReturn, TypeVar

from xlab.errors import XlabError
from xlab.kernel.clock import Clock, steady
from xlab.weave import names, router, status, web
from xlab.weave.fastdp import FastdpEquivalent, Overlay
from xlab.weave.router import Identity, Router
from xlab.weave.targets import parse_address
from xlab.weave.timers import Timers
from xlab.weave.transport import Loop, Transport

#: What each datapath says it can do: Weave Net's own fast datapath falls back to sleeve.
_OVERLAYS = {"sleeve": ("sleeve",), "fastdp": ("fastdp", "sleeve")}


def main(arguments: Sequence[str]) -> None:
    options = parse_options(arguments)
    log = Log(options.nickname, steady)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    try:
        _run(options, log)
    except XlabError as error:
        log.write(str(error))
        sys.exit(error.exit_status)


def _run(options: argparse.Namespace, log: Log) -> NoReturn:
    timers = Timers(steady)
    identity = Identity(
        name=options.name,
        nickname=options.nickname,
        overlays=_OVERLAYS[options.datapath],
        overlay=options.datapath,
        port=options.port,
    )
    with (
        closing(_overlay(options)) as overlay,
        closing(Loop(timers, overlay)) as loop,
        closing(Transport(loop, bind=options.bind, port=options.port)) as transport,
    ):
        control = transport.router = Router(
            identity,
            overlay=overlay,
            timers=timers,
            dial=transport.dial,
            log=log.write,
            chance=random.SystemRandom(),
        )
        answer = functools.partial(status.answer, control)
        with closing(control), closing(web.Server(loop, options.status_port, answer)):
            control.connect(options.peers)
            log.write(f"router {names.text(options.name)} is ready, datapath {options.datapath}")
            while True:
                loop.turn()


def _overlay(options: argparse.Namespace) -> Overlay:
    if options.datapath == "fastdp":
        return FastdpEquivalent()
    # Only sleeve needs what this imports.
    from xlab.weave.overlay import SleeveOverlay

    return SleeveOverlay(
        name=options.name,
        tap=options.tap,
        bind=options.bind,
        clock=steady,
        port=options.port,
    )


def _end(*_: object) -> NoReturn:
    sys.exit(0)


class Log:
    """Lines on the error output: some at once, then one a second at most.

    Strangers make trouble as often as they like, and whoever started us keeps what we write.
    """

    _BURST = 20

    def __init__(self, nickname: str, clock: Clock) -> None:
        self._nickname = nickname
        self._clock = clock
        self._left = float(self._BURST)
        self._at_s = clock()
        self._omitted = 0

    def write(self, line: str) -> None:
        now_s = self._clock()
        self._left = min(self._BURST, self._left + now_s - self._at_s)
        self._at_s = now_s
        if self._left < 1:
            self._omitted += 1
            return
        self._left -= 1
        omitted, self._omitted = self._omitted, 0
        more = f" ({omitted} lines omitted)" if omitted else ""
        text = "".join(c if c.isprintable() else "?" for c in line)
        os.write(2, f"weave {self._nickname}: {text}{more}\n".encode(errors="replace"))


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m xlab.weave", description=__doc__)
    parser.add_argument("--name", type=_valid(names.parse), required=True, metavar="MAC")
    parser.add_argument("--nickname", required=True)
    parser.add_argument(
        "--bind", type=_valid(IPv4Address), default=IPv4Address(0), metavar="ADDRESS"
    )
    parser.add_argument("--tap", default="weave0", metavar="DEVICE", help="sleeve's TAP device")
    parser.add_argument("--datapath", choices=sorted(_OVERLAYS), default="sleeve")
    parser.add_argument("--port", type=_valid(_port), default=router.PORT, help="of TCP and UDP")
    parser.add_argument("--status-port", type=_valid(_port), default=web.PORT)
    parser.add_argument("peers", type=_valid(parse_address), nargs="*", metavar="PEER")
    return parser.parse_args(arguments)


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 65535:
        raise ValueError(f"not a port: {text[:20]!r}")
    return int(text)


_T = TypeVar("_T")


def _valid(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """argparse shows the text of this error alone, not of ValueError."""

    def parsed(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed


if __name__ == "__main__":
    main(sys.argv[1:])
