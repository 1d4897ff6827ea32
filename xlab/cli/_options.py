"""Options that several commands have: the shape of a lab, its links, where results go."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from xlab.errors import UsageError, XlabError, at, shortened
from xlab.faults import kinds
from xlab.scenario.request import (
    DEFAULT_DURATION_S,
    DEFAULT_ROUNDS,
    DEFAULT_STREAMS,
    QUICK_DURATION_S,
    QUICK_ROUNDS,
    Request,
    named_values,
)

# What completes a word gives all there are: typer leaves out what begins otherwise.


def complete_scenario() -> list[str]:
    from xlab.scenario import catalog

    try:
        return ["all", *catalog.names()]
    except XlabError:
        return []


def complete_lab() -> list[str]:
    from xlab.sandbox import registry

    return registry.running()


def complete_stage() -> list[str]:
    from xlab.scenario import catalog, scenario

    # What stands before an option without its value is not among the parameters.
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    try:
        known = catalog.names()
        named = next((word for word in line.split() if word in known), "")
        return list(scenario.load(catalog.find(named)).stages) if named else []
    except XlabError:
        return []


def complete_fault(context: typer.Context) -> list[str]:
    """The word that a fault, or its cure, begins with."""
    if context.params.get("words"):
        return []
    return [words.split()[0] for words in kinds.grammar()]


def complete_node(context: typer.Context) -> list[str]:
    """Nodes of the lab that runs; of several, of the one that --name says."""
    from xlab.outside import running_lab

    if context.params.get("words"):
        return []
    try:
        with running_lab.find(context.params.get("name")) as lab:
            return lab.node_names(limit_s=1.0)
    except XlabError:
        return []


Scenario = Annotated[
    str,
    typer.Argument(
        metavar="SCENARIO",
        help="A name (see xlab list), or a path to a scenario file.",
        autocompletion=complete_scenario,
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Which lab; may be left out while there is one.",
        autocompletion=complete_lab,
    ),
]
Node = Annotated[
    str,
    typer.Argument(
        metavar="NODE",
        help="A host (h1), a container (h1/c1), or the gateway (gw).",
        autocompletion=complete_node,
    ),
]
Containers = Annotated[int, typer.Option(help="Containers on each host.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The options for the shape of a lab, and for its links."""

    hosts: Annotated[int | None, typer.Option(help="Docker hosts; 2 unless --topo says.")] = None
    containers: Containers = 2
    topo: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Mininet topology of the physical network: single,3 | linear,4 | "
            "tree,depth=2,fanout=2 | file.py:Class",
        ),
    ] = None
    mtu: Annotated[int, typer.Option(help="MTU of the physical network, in bytes.")] = 1500
    rate: Annotated[
        str | None, typer.Option(metavar="RATE", help="Rate of each link: 100mbit, 1gbit.")
    ] = None
    delay: Annotated[
        str | None, typer.Option(metavar="TIME", help="Delay of each link, each way: 10ms.")
    ] = None
    jitter: Annotated[
        str | None, typer.Option(metavar="TIME", help="How far the delay varies: 2ms.")
    ] = None
    loss: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Loss of each link, each way: 1%.")
    ] = None

    def request(
        self,
        scenario: str,
        *,
        streams: int | None = None,
        settings: Sequence[str] | None = None,
        **more: Any,
    ) -> Request:
        """What is asked for; UsageError for what makes no sense.  None is not given."""
        if self.topo is not None and self.hosts is not None:
            raise UsageError("--topo says how many hosts there are: leave --hosts out")
        return Request(
            scenario=scenario,
            hosts=2 if self.hosts is None else self.hosts,
            containers=self.containers,
            topo=self.topo,
            mtu=self.mtu,
            **self._link_conditions(),
            streams=DEFAULT_STREAMS if streams is None else streams,
            settings=parse_settings(settings),
            **more,
        )

    def _link_conditions(self) -> dict[str, Any]:
        if self.rate is self.delay is self.jitter is self.loss is None:
            return {}
        from xlab.lab.conditions import parse_delay, parse_loss, parse_rate

        found: dict[str, Any] = {}
        for option, name, typed, parse in (
            ("--rate", "rate_bits_per_second", self.rate, parse_rate),
            ("--delay", "delay_ms", self.delay, parse_delay),
            ("--jitter", "jitter_ms", self.jitter, parse_delay),
            ("--loss", "loss_ratio", self.loss, parse_loss),
        ):
            with at(option):
                found[name] = None if typed is None else parse(typed)
        return found


Duration = Annotated[
    float | None,
    typer.Option(
        help=f"Seconds of each throughput probe; {DEFAULT_DURATION_S:g}, "
        f"{QUICK_DURATION_S:g} with --quick."
    ),
]
Repeat = Annotated[
    int | None,
    typer.Option(help=f"Rounds of measurement; {DEFAULT_ROUNDS}, {QUICK_ROUNDS} with --quick."),
]
Streams = Annotated[
    int | None,
    typer.Option(
        help="TCP streams at once, each way under load and where a probe has several; "
        f"{DEFAULT_STREAMS}."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="An option of the scenario; repeatable."),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there.")
]
Results = Annotated[Path, typer.Option(metavar="DIR", help="Where records are written.")]
DEFAULT_RESULTS = Path("results")
Clock = Annotated[
    str,
    typer.Option(
        metavar="real|virtual",
        help="virtual: in a guest whose clock counts instructions, with a stock kernel; the same "
        "digits however busy this machine is.",
        autocompletion=lambda: ["real", "virtual"],
    ),
]


def duration_s(duration: float | None, *, quick: bool, clock: str = "real") -> float:
    """--duration, or what is usual: of the virtual clock's figures more seconds tell no more."""
    usual = QUICK_DURATION_S if quick or clock == "virtual" else DEFAULT_DURATION_S
    return usual if duration is None else duration


def parse_settings(settings: Sequence[str] | None) -> dict[str, str]:
    return named_values(settings or [], "--set")


def form_of(output: Path | None, forms: Mapping[str, str], option: str, asked: str | None) -> str:
    """What a file is written as: what `option` says, or else the ending of its name.

    `forms` are by ending; ".txt", and no ending, is of what has no other.  UsageError for an ending
    that is none of these, or says otherwise than the option.
    """
    name = output.name.lower() if output else ""
    ending = next((each for each in forms if name.endswith(each)), Path(name).suffix)
    named = forms.get(ending)
    if asked and named and asked != named:
        raise UsageError(f"{option} does not go with {output}: the name says {named}")
    if not asked and not named and ending not in ("", ".txt"):
        known = ", ".join([*forms, ".txt"])
        raise UsageError(f"--output {output}: nothing is written as {ending}; known are {known}")
    return asked or named or "text"


_ELSEWHERE = "--results DIR writes elsewhere"


def require_writable(results: Path) -> None:
    """Find out before a run whether its record can be kept; what others left half-written goes."""
    from xlab.kernel import disk

    try:
        disk.make_folder(results)
    except OSError as error:
        raise UsageError(
            f"--results {shortened(results)}: {error.strerror}; {_ELSEWHERE}"
        ) from error
    if not os.access(results, os.W_OK | os.X_OK):
        raise UsageError(f"--results {results}: cannot be written to; {_ELSEWHERE}")
    disk.sweep(results)
