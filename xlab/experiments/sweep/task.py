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

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from xlab.errors import CapabilityError, RecordError, XlabError
from xlab.kernel import disk, signals, syscalls
from xlab.record import record

#: How often a worker looks whether the point is still wanted, and waits for its turn.
_TICK_S = 0.5
#: Labs are taken down within a second; a machine that is this busy is another's fault.
_GRACE_S = 30.0
_FOLDER = "xlab-sweep"
#: Held by whoever measures a point: two at once on one machine would measure each other.
_TURN = "\0xlab-sweep"

Outcome = dict[str, Any]


def run(
    point: Mapping[str, Any], wanted: Callable[[], bool], waits: Callable[[str], object]
) -> Outcome:
    """Compare all methods of a point (`dataclasses.asdict` of it) as soon as this machine is free.

    {"comparison": …} or {"status": "failed" or "skipped", "reason": …}.  When `wanted` says no, all
    is taken down, and what comes back means nothing.  `waits` is told what is waited for.
    """
    told = False
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as turn:
        while wanted():
            if _taken(turn):
                return _in_a_process(point, wanted)
            if not told:
                # Once: to look through all processes disturbs what they measure.
                waits(f"{_who_measures()} measures a sweep on {socket.gethostname()}")
                told = True
            time.sleep(_TICK_S)
    return _not_done("failed", "it was no longer wanted")


def _taken(turn: socket.socket) -> bool:
    # An abstract name is freed by the kernel with its holder, and is the network namespace's: the
    # machine's, that is, or a container's.
    try:
        turn.bind(_TURN)
    except OSError:
        return False
    return True


def _who_measures() -> str:
    """Whoever has the turn, as far as we may see whose the socket of that name is."""
    name = _TURN.replace("\0", "@")
    lines = [
        line.split() for line in Path("/proc/net/unix").read_text("utf-8", "replace").split("\n")
    ]
    sockets = {f"socket:[{fields[6]}]" for fields in lines if fields[7:] == [name]}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            for opened in (process / "fd").iterdir():
                if str(opened.readlink()) in sockets:
                    return f"process {process.name}"
    return "another user"


def _in_a_process(point: Mapping[str, Any], wanted: Callable[[], bool]) -> Outcome:
    process = subprocess.Popen(
        # -P: a file in the current folder is no module of ours.
        [sys.executable, "-P", "-m", "xlab.experiments.sweep.task", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Ctrl-C on a terminal goes to its whole group; what becomes of a point is decided here.
        process_group=0,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(_where_we_are())},
    )
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
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()
        # What it left if it was killed: nobody else may come by to remove it.
        disk.sweep(Path(tempfile.gettempdir()), _FOLDER)
    try:
        found: Outcome = json.loads(out)
    except ValueError:
        tail = (errors.strip() or "it said nothing").splitlines()[-1][-400:]
        return _not_done("failed", f"its process ended with status {process.returncode}: {tail}")
    return found


def _where_we_are() -> list[str]:
    before = os.environ.get("PYTHONPATH")
    return [str(Path(__file__).parents[3]), *([before] if before else [])]


def _not_done(status: str, reason: str) -> Outcome:
    return {"status": status, "reason": reason}


# -- in the process --------------------------------------------------------------------------------


def compare(point: Mapping[str, Any]) -> Outcome:
    """The comparison of a point, here and now; the caller has one thread."""
    from xlab.experiments.sweep.spec import Point

    try:
        asked = record.decode(Point, point, "")
        # What a killed one left is found, and removed by the next.
        with disk.scratch_folder(Path(tempfile.gettempdir(), _FOLDER)) as folder:
            return {"comparison": _compare(asked, folder)}
    except CapabilityError as error:
        return _not_done("skipped", str(error))
    except (XlabError, RecordError) as error:
        return _not_done("failed", str(error))
    except OSError as error:
        return _not_done("failed", f"{error.filename or 'results'}: {error.strerror or error}")


def _compare(point: Any, results: Path) -> Any:
    from xlab.experiments.compare import evaluation, rounds
    from xlab.experiments.compare.journal import Journal, Opening

    methods, plan = point.comparison()
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    with Journal.begin(results, Opening(started_at, plan, tuple(methods))) as journal:
        rounds.carry_out(journal, rounds.Onlooker())
        return evaluation.evaluate(journal.history).to_dict()


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
