"""One point of a sweep on one machine: what a worker runs, and the process that it runs in.

    worker's thread ── python -m xlab.experiments.sweep.task ── labs of all methods
          │  point as JSON on stdin ──>   │
          └─ outcome as JSON on stdout <──┘

Sandboxes are forks of the process that launches them, which is sound only while it has one thread;
a worker of Dask has many.  So each point has a fresh interpreter, of which nothing is kept.  Not
multiprocessing's: that would be one more process to look after, and tells no JSON.  What a worker
gives back is data, for it shares no file system with whoever asked.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NoReturn

from xlab.errors import CapabilityError, RecordError, XlabError
from xlab.kernel import disk, signals, syscalls
from xlab.record import record
from xlab.sandbox import registry

#: How often a worker looks whether the point is still wanted, and waits for its turn.
_TICK_S = 0.5
#: Labs are taken down within a second; a machine that is this busy is another's fault.
_GRACE_S = 30.0
_FOLDER = "xlab-sweep"
#: Held by whoever measures a point: two at once on one machine would measure each other.  The
#: kernel frees an abstract name with its holder; it is the network namespace's: the machine's, that
#: is, or a container's.  Anyone may bind it, so what a stranger has is passed over for the next.
_TURN, _MOST_NAMES = "\0xlab-sweep/{uid}/{number}", 16
#: How often, and how far apart, a name is looked at that is taken and at which nobody listens.
_LOOKS, _LOOK_S = 5, 0.01

Outcome = dict[str, Any]


def run(
    point: Mapping[str, Any], wanted: Callable[[], bool], waits: Callable[[str], object]
) -> Outcome:
    """Compare all methods of a point (`dataclasses.asdict` of it) as soon as no other is measured.

    {"comparison": …} or {"status": "failed" or "skipped", "reason": …}.  When `wanted` says no, all
    is taken down, and what comes back means nothing.  `waits` is told what is waited for.
    """
    told = False
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as turn:
        while wanted():
            ahead = _ahead(turn)
            if ahead is None:
                return _in_a_process(point, wanted)
            with ahead:
                if not told:
                    pid, _ = registry.credentials(ahead)
                    who = f"process {pid}" if pid else "another process"
                    waits(f"{who} measures a sweep on {socket.gethostname()}")
                    told = True
                _await_end(ahead, wanted)
    return _not_done("failed", "it was no longer wanted")


def _ahead(turn: socket.socket) -> socket.socket | None:
    """A connection to the process of ours that has the turn; None once `turn` has it.

    When in doubt a name is a stranger's: who wants to disturb a measurement can do so without.
    """
    for number in range(_MOST_NAMES):
        name = _TURN.format(uid=os.geteuid(), number=number)
        for _ in range(_LOOKS):
            with suppress(OSError):
                turn.bind(name)
                turn.listen(registry.BACKLOG)
                return None
            holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                # It waits where the queue is full.
                holder.setblocking(False)
                holder.connect(name)
                if registry.is_ours(holder):
                    return holder
                refused = False
            except OSError as error:
                refused = error.errno == errno.ECONNREFUSED
            holder.close()
            if not refused:
                break
            # It has ended, or has not called listen(2) yet; or it never will.
            time.sleep(_LOOK_S)
    return None


def _await_end(holder: socket.socket, wanted: Callable[[], bool]) -> None:
    """Nobody accepts the connection, so it hangs up when the other end's socket is closed."""
    poller = select.poll()
    poller.register(holder, select.POLLIN)
    while wanted() and not poller.poll(_TICK_S * 1e3):
        pass


def _in_a_process(point: Mapping[str, Any], wanted: Callable[[], bool]) -> Outcome:
    where_we_are = filter(None, [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH")])
    with subprocess.Popen(
        # -P: a file in the current folder is no module of ours.
        [sys.executable, "-P", "-m", "xlab.experiments.sweep.task", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Ctrl-C on a terminal goes to its whole group; what becomes of a point is decided here.
        process_group=0,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(where_we_are)},
    ) as process:
        try:
            said: str | None = json.dumps(point)
            while True:
                try:
                    out, errors = process.communicate(said, timeout=_TICK_S)
                    break
                except subprocess.TimeoutExpired:
                    said = None
                    if not wanted():
                        process.terminate()
                        out, errors = process.communicate(timeout=_GRACE_S)
                        break
        finally:
            # Its labs end with it.
            process.kill()
            process.wait()
            # What it left if it was killed: nobody else may come by to remove it.
            disk.sweep(Path(tempfile.gettempdir()), _FOLDER)
    try:
        found: Outcome = json.loads(out)
    except ValueError:
        tail = (errors.strip() or "it said nothing").splitlines()[-1][-400:]
        return _not_done("failed", f"its process ended with status {process.returncode}: {tail}")
    return found


def _not_done(status: str, reason: str) -> Outcome:
    return {"status": status, "reason": reason}


# -- in the process --------------------------------------------------------------------------------


def compare(point: Mapping[str, Any]) -> Outcome:
    """The comparison of a point, here and now; the caller has one thread."""
    from xlab.experiments.compare import evaluation, rounds
    from xlab.experiments.compare.journal import Journal, Opening
    from xlab.experiments.sweep.spec import Point

    try:
        methods, plan = record.decode(Point, point, "").comparison()
        # What a killed one left is found, and removed by the next.
        with disk.scratch_folder(Path(tempfile.gettempdir(), _FOLDER)) as folder:
            opening = Opening(record.now(), plan, tuple(methods))
            with Journal.begin(folder, opening) as journal:
                rounds.carry_out(journal, rounds.Onlooker())
                return {"comparison": evaluation.evaluate(journal.history).to_dict()}
    except CapabilityError as error:
        return _not_done("skipped", str(error))
    except (XlabError, RecordError) as error:
        return _not_done("failed", str(error))
    except OSError as error:
        return _not_done("failed", f"{error.filename or 'results'}: {error.strerror or error}")


def main() -> int:
    """Read a point, compare, write the outcome; ends with the worker, whose pid is given."""
    _end_with(int(sys.argv[1]))
    # numpy's BLAS would start threads when intervals are computed, and sandboxes are forked.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    disk.sweep(Path(tempfile.gettempdir()), _FOLDER)
    point = json.load(sys.stdin)
    json.dump(compare(point), sys.stdout, allow_nan=False)
    return 0


def _end_with(parent: int) -> None:
    """Have SIGTERM when the worker is gone or asks for it, and take everything down then."""

    def end(number: int, _: object) -> NoReturn:
        signals.ignore([number])
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    # It is sent when the thread that started us ends, not the process (prctl(2)): that thread
    # waits for us.
    syscalls.die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        sys.exit(main())
