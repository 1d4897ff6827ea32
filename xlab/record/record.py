"""The run record: everything one run claimed, proved and measured, as plain data.

Written once, read by everything else (tables, reports, charts, gates); see `RunRecord.to_dict` for
the shape.  The schema is additive: a reader ignores fields it does not know, and fields are never
renamed or removed.  Absent figures are `None`, never zero.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import io
import json
import math
import os
import stat
import types
import typing
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from xlab.errors import RecordError, shortened
from xlab.kernel import disk
from xlab.kernel.packets import Encapsulation
from xlab.record.portrait import Portrait

SCHEMA_VERSION = 1
FILE = "run.json"

#: Of `run.json`: a thousand rounds of everything take a tenth of it.
MOST_BYTES = 256 << 20
#: Of integers, and of the depth of what the schema leaves open.
_LARGEST, _DEEPEST = (1 << 64) - 1, 32
#: Of figures, signs and zero apart: so all ratios and sums of them are finite.
_LEAST_FIGURE, _MOST_FIGURE = 1e-200, 1e100

_T = TypeVar("_T")

Status = Literal["passed", "failed", "skipped"]
DatapathClass = Literal["kernel", "userspace"]
#: Which pair of end points a measurement ran between: the method's containers, host to host through
#: from eth0 to eth0, or two plain hosts on the same switches of the same lab.
Route = Literal["method", "control", "baseline"]
ROUTES: tuple[Route, ...] = typing.get_args(Route)


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement of the tutorial, checked at the stage where the notes make it."""

    id: str
    stage: str
    text: str
    expected: str
    observed: str
    holds: bool
    #: What shows it: command and output, counters, or the name of a file under raw/.
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class UnderlayPackets:
    """Packets seen on the physical link during the proof, by encapsulation.

    Only the flow the proof itself sent is counted by kind (requests and replies, matched after NAT
    by the payload of the innermost packet); everything else on the link is `stray`.
    """

    none: int = 0
    gre: int = 0
    vxlan: int = 0
    geneve: int = 0
    sleeve: int = 0
    stray: int = 0


@dataclass(frozen=True, slots=True)
class PathProof:
    encapsulation: Encapsulation
    underlay_packets: UnderlayPackets
    #: Every packet the proof sent crossed the link, all of them in `encapsulation`.
    proved: bool
    #: Cutting the mechanism had the effect the method predicts, and healing undid it.
    negative_control: bool
    #: Outer IP packet length less inner IP packet length, in bytes; None when nothing was seen.
    overhead_bytes: int | None
    #: Largest IP packet that crosses with DF set, in bytes; None when none did.
    effective_mtu: int | None
    packets_sent: int = 0
    #: What cutting and healing did, in words.
    control_detail: str = ""
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One probe, once, between one pair of end points.  Failed samples are counted, never zero."""

    probe: str
    #: A fixed name, of xlab.record.metrics.
    metric: str
    unit: str
    #: "h1/c1 > h2/c1": sender > receiver.
    direction: str
    #: TCP streams at once.
    streams: int
    #: Which turn of all probes, and which life of the lab; from 1 on.
    round: int
    build: int
    started_at: str
    #: In `unit`; one for each echo, interval or transfer.
    samples: tuple[float, ...]
    failed_samples: int = 0
    median: float | None = None
    ci95: tuple[float, float] | None = None
    route: Route = "method"
    #: Tool, retransmits, omitted samples and whatever else the reader needs to judge the figure.
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """A fault, a recovery or a fallback."""

    at: str
    kind: str
    detail: str


Clock = Literal["real", "virtual"]


@dataclass(frozen=True, slots=True)
class VirtualMachine:
    """What figures of the virtual clock depend on, beside the code that was measured."""

    #: Equal where the digits of the same code must be.
    identity: str
    #: Of QEMU's, "max,la57=off" say.
    processor: str
    qemu: str
    #: The guest's, kernel included, by name: versions.
    packages: dict[str, str]
    python_packages: dict[str, str]
    #: From what xlab pins: with any, such figures are held against no baseline of another machine.
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Environment:
    kernel: str
    cpu_model: str
    cores: int
    #: Of 1, 5 and 15 minutes, before the lab was built.
    load: tuple[float, float, float]
    #: Its version.
    xlab: str
    #: Versions of the programs that were used.
    tools: dict[str, str]
    #: e.g. "linux bridge", "ovs 3.5.0 userspace (netdev)", "ovs 3.5.0 kernel".
    datapath: str
    container_runtime: str
    sandbox: Literal["rootless", "root"]
    congestion_control: str
    notes: tuple[str, ...] = ()
    #: "virtual": a nanosecond is an instruction of a guest's, all of one price, and seconds but for
    #: `timings_s.total` are made of those: a cost model, not a stopwatch.
    clock: Clock = "real"
    virtual: VirtualMachine | None = None

    @property
    def datapath_class(self) -> DatapathClass:
        """The two differ twentyfold for one method: never rank across them."""
        return "userspace" if "userspace" in self.datapath.lower() else "kernel"


@dataclass(frozen=True, slots=True)
class Node:
    """A host or a container, as it stood when the path had been proved."""

    #: "h1", "h1/c1".
    name: str
    kind: Literal["host", "container"]
    #: What probes send to; "" if it has none.
    address: str
    #: By interface, bridge or end of a tunnel that has one, its first: "192.168.1.1/24".
    addresses: dict[str, str]


@dataclass(frozen=True, slots=True)
class Conditions:
    """Link conditions asked for, each a link and a direction; `measured` is what they came to."""

    rate_bits_per_second: float | None = None
    delay_ms: float | None = None
    jitter_ms: float | None = None
    loss_ratio: float | None = None
    #: "none", "netem", "tbf", "delay-line" or a combination such as "tbf+delay-line".
    backend: str = "none"
    measured: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timings:
    sandbox: float = 0.0
    build: float = 0.0
    verify: float = 0.0
    measure: float = 0.0
    teardown: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class RunRecord:
    scenario: str
    status: Status
    #: Why it failed or was skipped; "" if it passed.
    reason: str
    #: In UTC, "2026-11-24T16:57:52.104+00:00" say.
    started_at: str
    #: All that was asked for: hosts, containers, the scenario's options, rounds …
    parameters: dict[str, Any]
    environment: Environment
    conditions: Conditions
    timings_s: Timings
    #: In the order in which they were checked.
    claims: tuple[Claim, ...]
    #: None where the lab was not built to its end.
    path: PathProof | None
    measurements: tuple[Measurement, ...]
    events: tuple[Event, ...] = ()
    #: Host by host, each before its containers; none where the lab was not built to its end.
    nodes: tuple[Node, ...] = ()
    #: What its scenario has of the path's encapsulation, or of what it promises without a path.
    portrait: Portrait | None = None
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        return to_document(self)


def load(path: Path) -> RunRecord:
    """Read `run.json`, given the file or its folder; raises RecordError naming file and place."""
    return load_document(path, from_dict, inside=FILE)


def from_dict(data: object) -> RunRecord:
    """A record from decoded JSON; raises RecordError naming the place, "claims[3].holds" say."""
    return from_document(RunRecord, data)


def save(record: RunRecord, folder: Path, raw: dict[str, bytes]) -> None:
    """Write `folder`/run.json and `folder`/raw/* whole or not at all: hidden, then renamed.

    Raises FileExistsError if `folder` exists, OSError if the disk refuses (nothing is left then).
    """
    files = {f"raw/{name}": content for name, content in raw.items()}
    files[FILE] = as_bytes(record.to_dict())
    disk.new_folder(folder, files, folders=["raw"], durable=[FILE])


# -- versioned documents ---------------------------------------------------------------------------
#
# A run record, a comparison, a sweep, a baseline, a scale: a dataclass whose last field,
# `schema_version`, has the only version that is read as its default.


def to_document(told: Any) -> dict[str, Any]:
    """A versioned dataclass as JSON-ready data, in the order of its fields, the version first."""
    data = dataclasses.asdict(told)
    return {"schema_version": data.pop("schema_version"), **data}


def from_document(kind: type[_T], data: object) -> _T:
    """A versioned dataclass from decoded JSON; raises RecordError naming the place."""
    if not isinstance(data, dict):
        raise RecordError("the record is not an object")
    fields = {item.name: item for item in dataclasses.fields(typing.cast(Any, kind))}
    wanted, version = fields["schema_version"].default, data.get("schema_version")
    if version != wanted:
        _refuse("schema_version", str(wanted), version)
    found: _T = decode(kind, data, "")
    return found


def load_document(path: Path, parse: Callable[[object], _T], *, inside: str = "") -> _T:
    """What `parse` makes of the JSON in a file, or in the file `inside` a folder.

    Raises RecordError, `parse`'s own too, naming the file and the place in it.
    """
    try:
        file = path / inside if path.is_dir() else path
    except OSError as error:
        raise RecordError(f"{shortened(path)}: {error.strerror}") from error
    data = read_json(file)
    try:
        return parse(data)
    except RecordError as error:
        raise RecordError(f"{file}: {error}") from error
    except RecursionError as error:
        raise RecordError(f"{file}: nested too deeply") from error


def as_bytes(data: Mapping[str, Any]) -> bytes:
    """JSON-ready data as a file of ours has it."""
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    # What UTF-8 can't say (half a surrogate pair, of a file name that is no text) JSON can.
    return f"{text}\n".encode(errors="backslashreplace")


def write_document(file: Path, data: Mapping[str, Any], *, below: Path | None = None) -> None:
    """JSON-ready data, whole or not at all, and on the disk when this returns.  Raises OSError.

    With `below`, a folder of ours, those between it and the file are made as needed.
    """
    folder = below or file.parent
    disk.write(folder, {str(file.relative_to(folder)): as_bytes(data)}, durable=True)


def append_whole(descriptor: int, data: bytes) -> None:
    """All of `data` at the end of an open file, or nothing of it where the disk is full.

    Raises OSError.  What is no file, but a pipe or a terminal, has what it took.
    """
    before = os.fstat(descriptor).st_size
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, before)
        raise


class Whole(io.FileIO):
    """An open file to append to, each `write` as `append_whole` does it."""

    def write(self, data: Any, /) -> int:
        content = bytes(data)
        append_whole(self.fileno(), content)
        return len(content)


# -- reading ---------------------------------------------------------------------------------------


def read_json(file: Path) -> Any:
    """Decoded JSON from a file of any origin; raises RecordError naming the file and the place."""
    try:
        return parse_json(read_bytes(file).decode())
    except OSError as error:
        raise RecordError(f"{shortened(file)}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"{file}: not UTF-8 text (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise RecordError(f"{file}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from error
    except ValueError as error:
        raise RecordError(f"{file}: {error}") from error
    except RecursionError as error:
        raise RecordError(f"{file}: nested too deeply") from error


def parse_json(text: str) -> Any:
    """Strict JSON; raises ValueError, JSONDecodeError where it is no JSON, or RecursionError.

    Python refuses to read integers of more than 4,300 digits, and we what is no number, and an
    object that says something twice.
    """
    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unambiguous)


def read_bytes(file: Path) -> bytes:
    """What is in a regular file: a device has no end, and a named pipe waits for a writer."""
    return read_descriptor(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))


def read_descriptor(descriptor: int) -> bytes:
    """The same of an open file, from its beginning; closes it."""
    with open(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a file")
        content = opened.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(errno.EFBIG, f"larger than {MOST_BYTES >> 20} MB")
    return content


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        times = Counter(name for name, _ in pairs)
        twice = next(name for name, count in times.items() if count > 1)
        raise ValueError(f"{twice[:80]!r} stands twice in one object")
    return found


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def decode(kind: Any, value: Any, place: str) -> Any:
    """Decoded JSON as an instance of the annotated type `kind`; RecordError names `place`."""
    if dataclasses.is_dataclass(kind):
        return _decode_object(typing.cast(type, kind), value, place)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        _refuse_unreadable(value, place)
        return value
    if origin is Literal:
        if value not in arguments:
            _refuse(place, " | ".join(map(str, arguments)), value)
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (inner,) = [a for a in arguments if a is not type(None)]
        return decode(inner, value, place)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            _refuse(place, "a list", value)
        if arguments[-1] is Ellipsis:
            return tuple(decode(arguments[0], v, f"{place}[{i}]") for i, v in enumerate(value))
        if len(value) != len(arguments):
            _refuse(place, f"a list of {len(arguments)}", value)
        return tuple(
            decode(a, v, f"{place}[{i}]")
            for i, (a, v) in enumerate(zip(arguments, value, strict=True))
        )
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            _refuse(place, "an object", value)
        return {key: decode(arguments[1], v, f"{place}.{key[:40]}") for key, v in value.items()}
    if kind is float:
        return _decode_float(value, place)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        _refuse(place, {str: "text", bool: "true or false"}.get(kind, "a number"), value)
    if kind is int and abs(value) > _LARGEST:
        _refuse(place, "a number of at most 64 bits", value)
    return value


def _refuse_unreadable(whole: Any, top: str) -> None:
    """What others keep here is theirs; but it must be possible to show, and to write again."""

    def look(value: Any, place: str, depth: int) -> None:
        if isinstance(value, dict | list | tuple):
            if not depth:
                raise RecordError(f"{top}: nested too deeply")
            if isinstance(value, dict):
                inside = [(f".{key[:40]}", inner) for key, inner in value.items()]
            else:
                inside = [(f"[{i}]", inner) for i, inner in enumerate(value)]
            for step, inner in inside:
                # Nobody reads a place that is named in more than a line or two.
                look(inner, place if len(place) > 160 else place + step, depth - 1)
        elif isinstance(value, float) and not math.isfinite(value):
            # 1e400 is proper JSON, and infinity to Python.
            _refuse(place, "a finite number", value)
        elif isinstance(value, int) and abs(value) > _LARGEST:
            _refuse(place, "a number of at most 64 bits", value)

    look(whole, top, _DEEPEST)


def _decode_float(value: Any, place: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        _refuse(place, "a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        _refuse(place, "a finite number", value)
    if number and not _LEAST_FIGURE < abs(number) < _MOST_FIGURE:
        _refuse(place, "a number that something can measure", value)
    return number


def _decode_object(kind: type, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        _refuse(place or "the record", "an object", value)
    hints = _hints(kind)
    known: dict[str, Any] = {}
    for item in dataclasses.fields(kind):
        where = f"{place}.{item.name}" if place else item.name
        if item.name in value:
            known[item.name] = decode(hints[item.name], value[item.name], where)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise RecordError(f"{where}: missing")
    return kind(**known)


@functools.cache
def _hints(kind: type) -> Mapping[str, Any]:
    # It evaluates each annotation anew, which took half of the time of reading a journal.
    return typing.get_type_hints(kind)


def _refuse(place: str, expected: str, value: Any) -> NoReturn:
    try:
        shown = json.dumps(value, default=str)
    except RecursionError:
        shown = "something nested too deeply"
    except ValueError:
        shown = "a number of thousands of digits"
    raise RecordError(f"{place}: expected {expected}, found {shown[:80]}")


# -- writing ---------------------------------------------------------------------------------------


def now() -> str:
    """The time of day as records have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def under_free_name(
    results: Path, started_at: datetime, name: str, make: Callable[[Path], None]
) -> Path:
    """Have a folder made as `results`/2026-11-24T151617Z-`name`, or with -2, -3 … behind it.

    `make` raises FileExistsError where somebody else has taken the name meanwhile.
    """
    stem = f"{started_at:%Y-%m-%dT%H%M%SZ}-{name}"
    folder, number = results / stem, 1
    while True:
        if not os.path.lexists(folder):
            with suppress(FileExistsError):
                make(folder)
                return folder
        number += 1
        folder = results / f"{stem}-{number}"
