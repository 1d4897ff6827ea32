"""What a sweep file asks for: its axes, and the points that are their product.

    methods: [bridge, "weave:datapath=fastdp"]     as `xlab compare` names them; all if left out
    axes:
      mtu: [1500, 9000]                            hosts, mtu, rate, delay, loss, flows
      delay: [none, 5ms]
    quick: true                                    and what else `xlab compare` has options for

YAML is read for its shape alone (BaseLoader): every value stays text and is read as on the command
line, so that no value turns into a date, a truth or a number to base 60.
"""

from __future__ import annotations

import difflib
import itertools
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from xlab.errors import UsageError, at, quoted, shortened
from xlab.experiments.compare import methods as naming
from xlab.experiments.compare import plan as planning
from xlab.experiments.compare.methods import Method, whole
from xlab.lab.conditions import parse_delay, parse_loss, parse_rate
from xlab.record import record
from xlab.record.comparisons import ComparisonPlan
from xlab.record.record import Clock
from xlab.scenario import blueprint, catalog
from xlab.scenario.request import DEFAULT_DURATION_S, QUICK_DURATION_S, Request

_T = TypeVar("_T")

MOST_POINTS = 1000
#: Of values of one axis, and of the characters of any value.
_MOST_VALUES, _LONGEST = 100, 100
_MOST_BYTES = 64 << 10
#: What an axis says where nothing is imposed.
NONE = "none"


def _unless_none(read: Callable[[str], float]) -> Callable[[str], float | None]:
    return lambda said: None if said == NONE else read(said)


#: By axis, in the order in which points are named: the field of a request, and how it is read.
AXES: Mapping[str, tuple[str, Callable[[str], float | None]]] = {
    "hosts": ("hosts", whole),
    "mtu": ("mtu", whole),
    "rate": ("rate_bits_per_second", _unless_none(parse_rate)),
    "delay": ("delay_ms", _unless_none(parse_delay)),
    "loss": ("loss_ratio", _unless_none(parse_loss)),
    "flows": ("streams", whole),
}


@dataclass(frozen=True, slots=True)
class Point:
    """One comparison.  Plain data: it goes to a worker as JSON."""

    #: By axis, as the file has them; of every axis that the file names.
    values: dict[str, str]
    #: What all its methods have in common; the scenario in it means nothing.
    request: Request
    methods: tuple[str, ...]
    settings: dict[str, str]
    probes: tuple[str, ...]
    rounds: int | None = None
    most_rounds: int | None = None
    precision: float = planning.PRECISION

    @property
    def slug(self) -> str:
        """Its name, fit for a folder: "mtu=9000,delay=5ms"; "only" of a sweep without axes."""
        named = ",".join(f"{axis}={value}" for axis, value in self.values.items())
        return re.sub(r"[^A-Za-z0-9_.=,%-]+", "", named) or "only"

    def comparison(self) -> tuple[list[Method], ComparisonPlan]:
        """What is compared, and how much is measured; raises UsageError for what makes no sense."""
        chosen = naming.choose(self.methods, self.request, self.settings)
        wanted = planning.make(
            chosen,
            probes=self.probes,
            rounds=self.rounds,
            most_rounds=self.most_rounds,
            precision=self.precision,
        )
        return chosen, wanted


@dataclass(frozen=True, slots=True)
class Spec:
    """A sweep file, understood."""

    #: As the file has them, in the order of AXES.
    axes: dict[str, tuple[str, ...]]
    #: In the order in which they are to be carried out.
    points: tuple[Point, ...] = field(repr=False)

    @property
    def clock(self) -> Clock:
        """All points have the same."""
        return self.points[0].request.clock

    def numbers(self, axis: str) -> dict[str, float | None]:
        """What the values of an axis come to: hosts, bytes, bit/s, ms, a ratio, streams.

        No delay and no loss are none of them; no limit to the rate is no number.
        """
        nothing = None if axis == "rate" else 0.0
        found = {value: AXES[axis][1](value) for value in self.axes[axis]}
        return {value: nothing if n is None else n for value, n in found.items()}


def load(file: Path, descriptor: int | None = None) -> Spec:
    """Read a sweep file; raises UsageError, which names the file and the place in it.

    One that is open already, if its descriptor is given; it is closed.
    """
    if descriptor is None:
        return with_clock(file, None)[0]
    return _spec_of(file, partial(record.read_descriptor, descriptor))[0]


def with_clock(file: Path, clock: str | None) -> tuple[Spec, bytes]:
    """The same, and the file's text; with that clock, which the text then says, if one is given."""
    return _spec_of(file, partial(record.read_bytes, file), clock)


def _spec_of(file: Path, read: Callable[[], bytes], clock: str | None = None) -> tuple[Spec, bytes]:
    try:
        content = read()
    except OSError as error:
        raise UsageError(f"{shortened(file)}: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise UsageError(f"{file}: larger than {_MOST_BYTES >> 10} KiB")
    with at(str(file)):
        found = parse(content)
        if clock is None:
            return found, content
        _within("--clock", {"clock": clock})
        # What the file says of it, if it does, stands on a line of its own.
        lines = [line for line in content.splitlines() if not line.startswith(b"clock:")]
        content = b"\n".join([*lines, f"clock: {clock}".encode(), b""])
        return parse(content), content


def parse(content: bytes) -> Spec:
    """A sweep from the text of its file; raises UsageError, which names the place."""
    found = _mapping(_decoded(content), "", _KEYS)
    axes = _axes(found.get("axes", {}))
    common = _common(found)
    points = [_point(dict(zip(axes, values, strict=True)), *common) for values in _product(axes)]
    if "jitter" in found and all(point.request.jitter_ms is None for point in points):
        raise UsageError("jitter: it varies a delay, and no point has one: give axes.delay")
    _require_sense(points)
    # Drift of the machine must not look like the effect of an axis.  Seeded, so that whoever goes
    # on with a sweep has the same order, and sorted first, so that it does not hang on the file's.
    points.sort(key=lambda point: point.slug)
    random.Random(len(points)).shuffle(points)
    return Spec(axes, tuple(points))


# -- the shape of the file -------------------------------------------------------------------------

_KEYS = (
    "methods", "axes", "containers", "jitter", "set", "probe", "quick", "repeat", "most",
    "precision", "duration", "clock",
)  # fmt: skip


def _decoded(content: bytes) -> Any:
    import yaml

    class Loader(yaml.BaseLoader):
        """Constructs text, lists and mappings, and nothing that stands in a mapping twice."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            found: set[str] = set()
            for key, _ in node.value:
                said = str(key.value)
                if said in found:
                    line = key.start_mark.line + 1
                    raise UsageError(f"line {line}: {quoted(said)} stands here twice")
                found.add(said)
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(content, Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UsageError(f"{line}{(error.problem or 'no YAML')[:200]}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"no YAML: {str(error).splitlines()[0][:200]}") from error
    except RecursionError as error:
        raise UsageError("nested too deeply") from error


def _mapping(value: Any, place: str, known: Sequence[str]) -> dict[str, Any]:
    where = f"{place}: " if place else ""
    if not isinstance(value, dict):
        raise UsageError(f"{where}a mapping is wanted, KEY: VALUE on each line")
    for key in value:
        if key not in known:
            guess = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {guess[0]}?" if guess else f"there are {', '.join(known)}"
            raise UsageError(f"{where}there is no {quoted(str(key))}; {hint}")
    return value


def _texts(value: Any, place: str) -> tuple[str, ...]:
    """A list of text; one alone may stand without its brackets."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value:
        raise UsageError(f"{place}: a list is wanted, [A, B]")
    return tuple(_text(item, f"{place}[{number}]") for number, item in enumerate(value))


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{place}: a value is wanted")
    if len(value) > _LONGEST:
        raise UsageError(f"{place}: more than {_LONGEST} characters")
    return value.strip()


def _read(value: Any, place: str, read: Callable[[str], _T]) -> _T:
    said = _text(value, place)
    with at(place):
        return read(said)


# -- axes ------------------------------------------------------------------------------------------


def _axes(value: Any) -> dict[str, tuple[str, ...]]:
    given = _mapping(value, "axes", tuple(AXES))
    axes = {}
    for axis, (name, read) in AXES.items():
        if axis not in given:
            continue
        place = f"axes.{axis}"
        values = _texts(given[axis], place)
        if len(values) > _MOST_VALUES:
            raise UsageError(f"{place}: {len(values)} values; at most {_MOST_VALUES}")
        numbers: list[float | None] = []
        for number, said in enumerate(values):
            where = f"{place}[{number}]"
            amount = _read(said, where, read)
            _within(where, {name: amount})
            if amount in numbers:
                raise UsageError(f"{where}: {said} stands there already")
            numbers.append(amount)
        axes[axis] = values
    return axes


def _product(axes: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, ...]]:
    count = math.prod(map(len, axes.values()))
    if count > MOST_POINTS:
        factors = " × ".join(f"{len(values)} {axis}" for axis, values in axes.items())
        raise UsageError(f"axes: {factors} make {count:,} points; at most {MOST_POINTS:,}")
    return itertools.product(*axes.values())


def _within(place: str, fields: Mapping[str, Any]) -> None:
    with at(place):
        Request("baseline", **fields)


# -- what all points have in common ----------------------------------------------------------------


def _common(found: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of the request of every point, and of every point beside its request."""

    def given(key: str, read: Callable[[str], _T], default: _T) -> _T:
        return _read(found[key], key, read) if key in found else default

    quick = given("quick", _truth, False)
    short = quick or found.get("clock") == "virtual"
    usual_s = QUICK_DURATION_S if short else DEFAULT_DURATION_S
    containers = given("containers", whole, 2)
    duration_s = given("duration", _number, usual_s)
    _within("containers", {"containers": containers})
    _within("duration", {"duration_s": duration_s})
    fields: dict[str, Any] = {
        "quick": quick,
        "containers": containers,
        "duration_s": duration_s,
    }
    if "clock" in found:
        fields["clock"] = _text(found["clock"], "clock")
        _within("clock", {"clock": fields["clock"]})
    if "jitter" in found:
        fields["jitter_ms"] = given("jitter", parse_delay, 0.0)
    return fields, {
        "methods": _methods(found["methods"]) if "methods" in found else (),
        "settings": _settings(found.get("set", {})),
        "probes": _texts(found["probe"], "probe") if "probe" in found else (),
        "rounds": given("repeat", whole, None),
        "most_rounds": given("most", whole, None),
        "precision": given("precision", planning.share, planning.PRECISION),
    }


def _methods(value: Any) -> tuple[str, ...]:
    names = _texts(value, "methods")
    for number, name in enumerate(names):
        if name != "all":
            _read(name.partition(":")[0], f"methods[{number}]", catalog.find)
    return names


def _settings(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise UsageError("set: a mapping is wanted, NAME: VALUE")
    return {_text(key, "set"): _text(said, f"set.{str(key)[:40]}") for key, said in value.items()}


def _truth(said: str) -> bool:
    words = {"true": True, "yes": True, "false": False, "no": False}
    if said.lower() not in words:
        raise UsageError(f"{quoted(said)} is neither true nor false")
    return words[said.lower()]


def _number(said: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", said):
        raise UsageError(f"{quoted(said)} is no number")
    return float(said)


# -- points ----------------------------------------------------------------------------------------


def _point(values: dict[str, str], fields: dict[str, Any], common: dict[str, Any]) -> Point:
    fields = fields | {AXES[axis][0]: AXES[axis][1](said) for axis, said in values.items()}
    # A jitter varies a delay, and is nothing where there is none.
    if not fields.get("delay_ms"):
        fields["jitter_ms"] = None
    if fields.get("streams", 1) != 1 and "tcp-parallel" not in common["probes"]:
        common = common | {"probes": (*common["probes"], "tcp-parallel")}
    with at(_named(values)):
        request = Request("baseline", **fields)
    return Point(values, request, **common)


def _named(values: Mapping[str, str]) -> str:
    return "at " + (" ".join(f"{axis}={said}" for axis, said in values.items()) or "the only point")


def _require_sense(points: Sequence[Point]) -> None:
    """Each number of hosts fits the plan of addresses of every method; conditions don't matter."""
    seen = set()
    for point in points:
        key = (point.request.hosts, point.probes)
        if key in seen:
            continue
        seen.add(key)
        with at(_named(point.values)):
            for method in point.comparison()[0]:
                blueprint.design(method.request)
