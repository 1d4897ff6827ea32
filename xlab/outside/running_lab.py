"""A lab that stays, seen from outside: find it, ask it, go into it, end it.

    with running_lab.find("ovs-gre") as lab:
        lab.run("h1", ["ip", "address"])
        lab.down()

Nothing is written down anywhere: which labs run, and what they are, is asked of the labs.
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Self

from xlab.errors import NoAnswerError, SandboxError, UsageError, XlabError, meant, quoted
from xlab.kernel import signals
from xlab.kernel.processes import Completed
from xlab.outside import asking
from xlab.outside.asking import Status
from xlab.sandbox import registry, sandbox
from xlab.sandbox.controller import Client, Emit
from xlab.sandbox.entering import Doors
from xlab.sandbox.pulse import IDLE_S, Pulse

#: How long `down` asks where it can't kill.
_ASKING_S = 5.0


class RunningLab:
    """A lab that stays.

    Whoever asks it anything gets NoAnswerError when its controller has been stopped; or when that
    has been silent for 15 s without being at work, before its first answer and where it only looks.
    Any other answer may take as long as it takes.
    """

    def __init__(self, name: str) -> None:
        """UsageError if no lab of that name runs, SandboxError if the name is somebody else's."""
        self.name = name
        self._channel, self.pid = registry.reach(name)
        self._pulse = Pulse(self.pid, name)
        self._client: Client | None = None

    def describe(self, limit_s: float = math.inf) -> dict[str, Any]:
        """See `Verbs.describe`; NoAnswerError after `limit_s`."""
        client = self._answering(limit_s)
        return dict(client.call("describe", {}, idle_s=IDLE_S, limit_s=limit_s))

    def node_names(self, limit_s: float = math.inf) -> list[str]:
        """See `Verbs.names`; NoAnswerError after `limit_s`."""
        client = self._answering(limit_s)
        return [str(name) for name in client.call("names", {}, idle_s=IDLE_S, limit_s=limit_s)]

    def log(self) -> str:
        """What its pid 1 has printed."""
        return str(self._answering().call("log", {}, idle_s=IDLE_S))

    def status(self, watch: Emit, *, prove: bool = False) -> Status:
        """See `asking.status`."""
        return asking.status(self._answering(), prove=prove, watch=watch)

    def run(self, node: str, argv: Sequence[str], *, timeout_s: float = 10.0) -> Completed:
        """See `asking.run`."""
        return asking.run(self._answering(), node, argv, timeout_s=timeout_s)

    def enter(self, node: str, *, inhabited: bool = True) -> Doors:
        """See `asking.enter`."""
        return asking.enter(self._answering(), node, inhabited=inhabited)

    def call(self, verb: str, arguments: Mapping[str, Any], watch: Emit = lambda _: None) -> Any:
        """Any other verb of its controller."""
        return self._answering().call(verb, arguments, watch)

    def has_ended(self) -> bool:
        """Whether its pid 1 has, or does within a second."""
        if self._channel is None:
            return False
        poller = select.poll()
        poller.register(self._channel, select.POLLIN)
        return bool(poller.poll(1e3)) and not self._channel.recv(1, socket.MSG_PEEK)

    def down(self) -> None:
        """End the lab, whatever it answers; returns when the last process has ended.

        It is asked only if no process of ours is known to be its pid 1, as in another PID namespace
        of the same network: SandboxError if it does not answer then.
        """
        try:
            # Not as the controller would have it, of which root of the lab may have got hold.
            handle = registry.process_of(self.name)
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        except SandboxError as error:
            handle = self._ask_for_its_end(error)
        sandbox.await_end(handle)

    def _ask_for_its_end(self, unseen: SandboxError) -> int:
        """Its pid 1 as a descriptor of pidfd_open(2), which is told to end."""
        try:
            client = self._answering(_ASKING_S)
            _, told = client.call_for_descriptors("down", {}, limit_s=_ASKING_S)
        except NoAnswerError:
            raise unseen from None
        if len(told) != 1:
            for descriptor in told:
                os.close(descriptor)
            raise unseen
        return told[0]

    def close(self) -> None:
        self._pulse.close()
        if self._channel is not None:
            self._channel.close()
        if self._client is not None:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answering(self, limit_s: float = math.inf) -> Client:
        """The connection, once the controller has answered there that it is here.

        Before that it is asked for nothing: what it was asked for while it was stopped it would do
        when it goes on, after we have said that it does not answer.
        """
        if self._client is None:
            if self._channel is None:
                self._pulse.wait(self._is_accepted, idle_s=IDLE_S, limit_s=limit_s)
            assert self._channel is not None
            client = Client(self._channel, self._pulse)
            client.call("here", {}, idle_s=IDLE_S, limit_s=limit_s)
            self._client = client
        return self._client

    def _is_accepted(self, patience_s: float) -> bool:
        try:
            self._channel = registry.connect(self.name, patience_s=patience_s)
        except BlockingIOError:
            return False
        return True


def find(name: str | None) -> RunningLab:
    """The lab of that name; without one, the only lab that runs.

    UsageError if there is none, or if without a name there are several: it lists them.
    """
    if name is not None:
        registry.validated(name)
        try:
            return RunningLab(name)
        except UsageError as error:
            reason = str(error)
        except SandboxError as error:
            reason = f"no lab named {quoted(name)} is running: {error}"
        running = registry.running()
        remedy = f"there {_are(running)}{meant(name, running)}" if running else _NONE
        raise UsageError(f"{reason}; {remedy}")
    running = registry.running()
    if not running:
        raise UsageError(f"no lab is running; {_NONE}")
    if len(running) > 1:
        raise UsageError(f"which lab? There {_are(running)}; {_WHICH}")
    return RunningLab(running[0])


def describe_all() -> list[dict[str, Any]]:
    """All labs that run, as facts; of one that does not answer name, state and pid 1's number.

    All are asked at once: several that do not answer are waited for no longer than one, some 15 s,
    be they at work or not.  Whoever is interrupted waits for none.
    """
    asked = []
    for name in registry.running():
        answer: Future[dict[str, Any] | None] = Future()
        # A pool would be waited for, whatever happens.
        looking = threading.Thread(target=_look, args=(name, answer), daemon=True)
        signals.start_deaf(looking)
        asked.append(answer)
    return [facts for answer in asked if (facts := answer.result())]


def _look(name: str, answer: Future[dict[str, Any] | None]) -> None:
    try:
        answer.set_result(_described(name))
    except BaseException as error:  # noqa: BLE001 - it is whoever asked who gets it
        answer.set_exception(error)


def _described(name: str) -> dict[str, Any] | None:
    """None if it has ended meanwhile."""
    try:
        with RunningLab(name) as lab:
            return lab.describe(IDLE_S)
    except UsageError:
        return None
    except NoAnswerError as error:
        state, pid = "does not answer", error.pid or None
    except (XlabError, OSError) as error:
        state, pid = str(error), None
    return {"name": name, "state": state, "pid": pid, "nodes": []}


_WHICH = "--name NAME says it, to status and down the name alone"
_NONE = "`xlab up SCENARIO` starts one"


def _are(running: Sequence[str]) -> str:
    return f"{'is' if len(running) == 1 else 'are'} {', '.join(running)}"
