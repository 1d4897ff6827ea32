"""A sandbox whose pid 1 is the controller: for as long as it is wanted, or for one piece of work.

with launch(lambda: {"count": count}) as box, closing(Client(box.channel)) as client:
    client.call("count", {"to": 3})

run_inside(count).result
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlab.sandbox import controller, sandbox
from xlab.sandbox.containment import Limits
from xlab.sandbox.controller import Handler
from xlab.sandbox.sandbox import Sandbox


def launch(
    handlers: Callable[[], Mapping[str, Handler]],
    *,
    name: str | None = None,
    keep: Sequence[Path] = (),
    limits: Limits | None = None,
) -> Sandbox:
    """Start a sandbox whose pid 1 answers what is asked by `handlers`, which it makes itself.

    The rest, and what is raised, is as in `sandbox.launch`.
    """
    return sandbox.launch(
        lambda *channels: controller.serve(handlers(), *channels),
        name=name,
        keep=keep,
        limits=limits,
    )


@dataclass(frozen=True, slots=True)
class Done:
    """What a piece of work in a sandbox came to."""

    #: As JSON has it.
    result: Any
    #: How long the sandbox took to start and to end, in seconds; and when it began to end, by
    #: time.monotonic().
    started_s: float
    ended_s: float
    ending_at: float


def run_inside(work: Callable[[], Any]) -> Done:
    """What `work` returns when pid 1 of a sandbox of its own does it; raises what it raises.

    This process is forked, which is sound only while it has one thread.
    """
    with launch(lambda: {"work": lambda _arguments, _emit: work()}) as box:
        with closing(controller.Client(box.channel)) as client:
            result = client.call("work", {})
            ending_at = time.monotonic()
        ended_s = box.close()
    return Done(result, box.started_s, ended_s, ending_at)
