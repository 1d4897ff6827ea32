"""Points are handed to workers by dask.distributed: to a cluster's, or to one inside this process.

    submit(task, point) for each ──> scheduler ──> worker, one point at a time ──> as they complete

The embedded cluster is made of the same parts and met through the same client; it talks within the
process (inproc://).  What is ours is the task: see task.py.
"""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from xlab.errors import RecordError, UsageError, XlabError
from xlab.experiments.sweep import task
from xlab.experiments.sweep.outcome import Failure
from xlab.experiments.sweep.spec import Point
from xlab.experiments.sweep.task import Outcome
from xlab.kernel import disk
from xlab.record import comparisons, record

if TYPE_CHECKING:
    from distributed import Client, SpecCluster

#: For a scheduler to answer.
PATIENCE_S = 20.0

Told = comparisons.Comparison | Failure
#: What a worker does with a point, whether it is still wanted, and whom to tell what is waited for.
Task = Callable[[Mapping[str, Any], Callable[[], bool], Callable[[str], object]], Outcome]


def carry_out(
    client: Client,
    points: Sequence[Point],
    work: Task = task.run,
    *,
    waits: Callable[[str], object] = lambda _: None,
) -> Generator[tuple[Point, Told], None, None]:
    """Each point and what became of it, as they complete.

    `waits` is told, in a thread of the client's, what a point is waiting for before it is begun.
    Whatever is left when the caller turns away is given up, and ended where it runs.  Raises
    XlabError when the scheduler goes away.
    """
    from distributed import as_completed

    sweep = uuid4().hex
    client.subscribe_topic(sweep, lambda event: waits(str(event[1])))
    futures = {
        client.submit(
            _perform,
            work,
            dataclasses.asdict(point),
            sweep,
            key=f"{point.slug}-{sweep}",
            pure=False,
            priority=-number,
        ): point
        for number, point in enumerate(points)
    }
    try:
        for future in as_completed(list(futures), loop=client.loop):
            yield futures[future], _told(future)
    finally:
        left = [future for future in futures if not future.done()]
        if left and client.status == "running":
            # Points nobody began are dropped; the others learn that they are not wanted any more.
            client.cancel(left, force=True)
        if client.status == "running":
            client.unsubscribe_topic(sweep)


def workers(client: Client) -> int:
    """How many there are."""
    return len(client.scheduler_info(n_workers=-1)["workers"])


def _told(future: Any) -> Told:
    if future.status == "error":
        error = future.exception()
        return Failure("failed", f"{type(error).__name__}: {str(error)[:400]}")
    if future.status != "finished":
        raise XlabError("the scheduler has gone, or has given up this sweep")
    outcome = future.result()
    try:
        if "comparison" in outcome:
            return comparisons.from_dict(outcome["comparison"])
        return cast(Failure, record.decode(Failure, outcome, ""))
    except RecordError as error:
        return Failure("failed", f"what the worker told makes no sense: {error}")


# -- on the worker ---------------------------------------------------------------------------------


def _perform(work: Task, point: Mapping[str, Any], topic: str) -> Outcome:
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        # Dask does not end what runs; but the worker knows when whoever asked has cancelled, or
        # gone, and marks the task.
        known = worker.state.tasks.get(key)
        return known is not None and known.state != "cancelled"

    return work(point, wanted, lambda text: worker.log_event(topic, text))


# -- clusters --------------------------------------------------------------------------------------


@contextmanager
def connect(address: str) -> Iterator[Client]:
    """A client of a scheduler; raises UsageError if none answers."""
    import asyncio

    from distributed import Client, Security
    from distributed.comm.core import connect as reach

    async def knock() -> None:
        # As Dask's own configuration says, certificates for tls:// among it.
        how = Security().get_connection_args("client")
        (await reach(address, timeout=PATIENCE_S, **how)).abort()

    _quiet()
    try:
        # A Client that fails to connect complains of itself while it is taken apart.
        asyncio.run(knock())
        client = Client(address, timeout=PATIENCE_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UsageError(f"--scheduler {address}: {said}") from error
    try:
        yield client
    finally:
        client.close()


@contextmanager
def embedded(folder: Path) -> Iterator[Client]:
    """A scheduler and one worker with one thread, in this process.

    `folder` is for what the worker may want to write, and is gone afterwards.
    """
    import dask
    from distributed import Client, Scheduler, Worker

    _quiet()
    inside: dict[str, Any] = {
        "protocol": "inproc://",
        # Both have a web server, come what may; it has no pages, and nobody else can reach it.
        "dashboard": False,
        "dashboard_address": "127.0.0.1:0",
    }
    with (
        disk.scratch_folder(folder / "dask") as scratch,
        dask.config.set({**_EMBEDDED, "temporary-directory": str(scratch)}),
        _started(
            scheduler={"cls": Scheduler, "options": inside},
            workers={
                0: {"cls": Worker, "options": {**inside, **_ONE, "local_directory": str(scratch)}}
            },
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _started(**parts: Any) -> SpecCluster:
    """A cluster; OSError for a full disk, which Dask takes for a fault of its own."""
    from distributed import SpecCluster

    try:
        return SpecCluster(**parts)
    except RuntimeError as error:
        reason = error.__cause__
        while reason and not isinstance(reason, OSError):
            reason = reason.__cause__
        raise reason or error from None


_ONE = {"nthreads": 1, "memory_limit": 0}
_EMBEDDED = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # What looks after itself many times a second would do so on the processors that measure.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "60s",
}


def _quiet() -> None:
    """What Dask logs is about its own parts; what matters of it comes as errors."""
    # asyncio tells of what none of them has asked for: a connection that took long to close.
    for name in ("asyncio", "distributed", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Without a network it finds no address to name its parts by, and takes 127.0.0.1.
    warnings.filterwarnings(
        "ignore", "Couldn't detect a suitable IP address", RuntimeWarning, r"distributed\."
    )
