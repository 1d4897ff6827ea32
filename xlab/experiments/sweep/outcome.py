"""A sweep on the disk: what has arrived so far, and what it all comes to.

    results/2026-11-24T220000Z-sweep/
        sweep.yaml                             what was asked for, as it was given
        points/mtu=9000,delay=5ms/compare.json the comparison of a point, whole, as it arrived
        sweep.json                             when all has ended: every point's figures
        mtu.svg  mtu.png …                     a chart an axis
        report.html  report.md                 tables, charts, and where the files are

Whether a point is done is whether its compare.json is there, and nothing else; so a sweep may be
killed at any moment.  A point that failed has none, and is tried again by --resume.  `sweep.json`
is versioned and additive like a run record: `Sweep` is the whole file.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from xlab.errors import RecordError, UsageError, shortened
from xlab.experiments.sweep import spec as asking
from xlab.experiments.sweep.spec import Point, Spec
from xlab.kernel import disk
from xlab.record import comparisons, record, stats
from xlab.record.comparisons import Comparison, Figure
from xlab.record.record import Clock, DatapathClass, Status

SCHEMA_VERSION = 1
SPEC_FILE, FILE, POINTS = "sweep.yaml", "sweep.json", "points"
#: A pipe is not waited for.
_TO_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Failure:
    """A point of which there is no comparison."""

    #: "skipped": this machine can't.
    status: Status
    reason: str


@dataclass(frozen=True, slots=True)
class MethodAtPoint:
    name: str
    status: Status
    reason: str
    datapath_class: DatapathClass


@dataclass(frozen=True, slots=True)
class PointDone:
    """One point, in short; all of it is in its compare.json."""

    #: Below points/.
    slug: str
    #: By axis, as the file of the sweep has them.
    values: dict[str, str]
    status: Status
    reason: str
    #: None without a comparison.
    started_at: str | None
    seconds: float | None
    #: "quiet" or "noisy".
    noise: str | None
    #: Where it was measured: kernel and processor.
    machine: str
    #: The baseline first.
    methods: tuple[MethodAtPoint, ...]
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class Axis:
    name: str
    #: As the file has them, and what they come to: hosts, bytes, bit/s, ms, a ratio, streams; None
    #: where the rate has no limit.
    values: tuple[str, ...]
    numbers: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Sweep:
    """`sweep.json`."""

    #: When its first point began, and when all had ended.
    started_at: str
    ended_at: str
    #: "failed" if any point failed, else "skipped" if any was skipped, else "passed".
    status: Status
    reason: str
    axes: tuple[Axis, ...]
    #: In the order of the axes.
    points: tuple[PointDone, ...]
    #: What a reader must know, in words.
    notes: tuple[str, ...]
    clock: Clock = "real"
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        return record.to_document(self)

    def files(self) -> Iterator[str]:
        """All that its folder has; a slug is a name, whatever its sweep.json says."""
        yield from (FILE, SPEC_FILE)
        for point in self.points:
            if point.methods and not {"/", "\0"} & {*point.slug} and point.slug not in (".", ".."):
                yield f"{POINTS}/{point.slug}/{comparisons.FILE}"


def load(path: Path) -> Sweep:
    """Read `sweep.json`, given the file or its folder; RecordError names the file and place."""
    return record.load_document(path, partial(record.from_document, Sweep), inside=FILE)


class Folder:
    """Where one sweep is kept; nobody else can go on with it meanwhile."""

    def __init__(self, path: Path, spec: Spec) -> None:
        self.path = path
        self.spec = spec

    @classmethod
    @contextmanager
    def begin(cls, results: Path, content: bytes, spec: Spec) -> Iterator[Folder]:
        """A new one under `results`.  Raises OSError."""
        make = partial(disk.new_folder, files={SPEC_FILE: content}, folders=[POINTS])
        path = record.under_free_name(results, datetime.now(UTC), "sweep", make)
        with _locked(path):
            yield cls(path, spec)

    @classmethod
    @contextmanager
    def go_on(cls, path: Path) -> Iterator[Folder]:
        """One that was begun; raises UsageError if it can't be gone on with.

        Nor with a stranger's: it may name a scenario of theirs, a program.
        """
        spec = _own_spec(path)
        _require_folders(path, spec)
        with _locked(path):
            disk.sweep(path)
            for point in (path / POINTS).glob("*"):
                disk.sweep(point)
            yield cls(path, spec)

    def read(self) -> dict[str, Comparison]:
        """The comparisons that are there, by slug.

        Raises RecordError for one that is damaged, or of another point than it is kept for.
        """
        found = {}
        for point in self.spec.points:
            file = self.path / POINTS / point.slug / comparisons.FILE
            if file.exists():
                comparison = comparisons.load(file)
                _require_same(point, comparison, file)
                found[point.slug] = comparison
        return found

    def keep(self, point: Point, comparison: Comparison) -> None:
        """Write what a point came to, whole or not at all.  Raises OSError."""
        comparisons.save(comparison, self.path / POINTS / point.slug, below=self.path)

    def finish(self, outcome: Sweep) -> None:
        """Write sweep.json.  Raises OSError."""
        record.write_document(self.path / FILE, outcome.to_dict())


def _own_spec(path: Path) -> Spec:
    """What is read is what has been looked at, whoever exchanges folders or files meanwhile."""
    file = path / SPEC_FILE
    try:
        with disk.held(path) as place:
            _require_own(path, os.fstat(place))
            descriptor = os.open(SPEC_FILE, _TO_READ, dir_fd=place)
            try:
                _require_own(path, os.fstat(descriptor))
                return asking.load(file, os.dup(descriptor))
            finally:
                os.close(descriptor)
    except OSError as error:
        raise UsageError(f"{shortened(file)}: {error.strerror}") from error


def _require_own(path: Path, found: os.stat_result) -> None:
    if not disk.is_trusted(found):
        raise UsageError(f"{path}: somebody else's sweep (uid {found.st_uid})")


def _require_folders(path: Path, spec: Spec) -> None:
    """No link, either: where nothing can be kept (`disk.write`) nothing is to be measured."""
    points = path / POINTS
    for each in (points, *(points / point.slug for point in spec.points)):
        if each.is_symlink() or (each.exists() and not each.is_dir()):
            raise UsageError(f"{each}: not a folder of this sweep's own")


def _locked(path: Path) -> AbstractContextManager[object]:
    return closing(disk.Lock(path, f"{path}: this sweep is being measured right now"))


def _require_same(point: Point, comparison: Comparison, file: Path) -> None:
    """sweep.yaml in the folder may have been edited meanwhile."""
    methods, plan = point.comparison()
    done = comparison.plan
    asked = [method.name for method in methods]
    if list(done.methods) != asked:
        raise RecordError(
            f"{file}: it compares {', '.join(done.methods)}; {SPEC_FILE} asks for "
            f"{', '.join(asked)}"
        )
    of_plan = ("probes", "disturbing", "duration_s", "quick", "rounds")
    settled = {name: (getattr(done, name), getattr(plan, name)) for name in of_plan}
    for name in (*(field for field, _ in asking.AXES.values()), "containers"):
        had = comparison.baseline.parameters.get(name)
        if had is not None:
            settled[name] = had, getattr(methods[0].request, name)
    for name, (had, wanted) in settled.items():
        if had != wanted:
            raise RecordError(f"{file}: {name} is {had}; {SPEC_FILE} asks for {wanted}")


# -- the outcome -----------------------------------------------------------------------------------


def evaluate(
    spec: Spec, found: Mapping[str, Comparison], failures: Mapping[str, Failure], ended_at: str
) -> Sweep:
    """What a sweep came to of which every point is in `found` or in `failures`, by slug."""
    ordered = sorted(
        spec.points, key=lambda point: [spec.axes[a].index(v) for a, v in point.values.items()]
    )
    told: Mapping[str, Comparison | Failure] = {**failures, **found}
    points = tuple(point_done(point, told[point.slug]) for point in ordered)
    status, reason = _status(points)
    return Sweep(
        started_at=min((p.started_at for p in points if p.started_at), default=ended_at),
        ended_at=ended_at,
        status=status,
        reason=reason,
        axes=tuple(
            Axis(name, values, tuple(spec.numbers(name).values()))
            for name, values in spec.axes.items()
        ),
        points=points,
        notes=tuple(_notes(points)),
        clock=spec.clock,
    )


def seconds_of(comparison: Comparison) -> float | None:
    """How long it took; None if it was killed and gone on with, or its times make no sense."""
    try:
        begun, ended = map(datetime.fromisoformat, (comparison.started_at, comparison.ended_at))
        seconds = (ended - begun).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return seconds if comparison.sessions == 1 and seconds >= 0 else None


def point_done(point: Point, told: Comparison | Failure) -> PointDone:
    """A point in short, whatever became of it."""
    nothing = PointDone(
        point.slug, point.values, told.status, told.reason, None, None, None, "", (), ()
    )
    if isinstance(told, Failure):
        return nothing
    environment = told.environment
    return dataclasses.replace(
        nothing,
        started_at=told.started_at,
        seconds=seconds_of(told),
        noise=told.noise.verdict,
        machine=f"Linux {environment.kernel}, {environment.cores} × {environment.cpu_model}",
        methods=tuple(
            MethodAtPoint(each.name, each.status, each.reason, each.datapath_class)
            for each in told.methods
        ),
        figures=told.figures,
    )


def _status(points: Sequence[PointDone]) -> tuple[Status, str]:
    out = [point for point in points if point.status == "failed"]
    out = out or [point for point in points if point.status == "skipped"]
    if not out:
        return "passed", ""
    status = out[0].status
    return status, f"{len(out)} of {len(points)} points {status}: {out[0].reason}"


def _notes(points: Sequence[PointDone]) -> Iterator[str]:
    machines = sorted({point.machine for point in points if point.machine})
    if len(machines) > 1:
        yield (
            f"Measured on machines of {len(machines)} kinds: ratios are of one machine each, "
            f"figures are not comparable from point to point ({'; '.join(machines)})."
        )
    noisy = [point for point in points if point.noise == "noisy"]
    if noisy:
        yield f"The machine was noisy at {len(noisy)} of {len(points)} points."
    unknown = sum(
        figure.to_baseline is not None and figure.to_baseline.ci95 is None
        for point in points
        for figure in point.figures
    )
    if unknown:
        yield f"Ratios without an interval, for too few builds: {unknown}."


def left_s(
    took: Sequence[float], points_left: int, at_once: int, running_s: float = 0.0
) -> float | None:
    """How long the points that are left still take, from what others took; None without any.

    `running_s`: for how long those have been running that run now.
    """
    usual = stats.median(list(took))
    if usual is None or not points_left:
        return None if usual is None else 0.0
    waves = -(-points_left // max(at_once, 1))
    return waves * usual - min(running_s, usual)
