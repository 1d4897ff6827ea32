"""What several commands tell of a lab that stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xlab.cli._app import COMMAND
from xlab.cli._streams import print_error

if TYPE_CHECKING:
    from xlab.cli.screens.screen import Screen
    from xlab.experiments.recorder import Recorder
    from xlab.outside.asking import Status
    from xlab.outside.running_lab import RunningLab


def faults(facts: Mapping[str, Any]) -> list[str]:
    return [f"fault: {fault}" for fault in facts["faults"]]


def say_how_to_mend(screen: Screen, lab: RunningLab, in_force: Sequence[Mapping[str, Any]]) -> None:
    """A command a fault."""
    from xlab.sandbox import registry

    for number, each in enumerate(in_force):
        cure = f"{COMMAND} fault{registry.option(lab.name)} --wait {each['cure']}"
        screen.said("" if number else "to mend", cure)


def age(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def claims_and_path(told: Recorder | Status) -> dict[str, Any]:
    """As `--json` has them."""
    from dataclasses import asdict

    return {
        "claims": [asdict(claim) for claim in told.claims],
        "path": asdict(told.path) if told.path else None,
    }


def judgement(told: Status) -> dict[str, Any]:
    """Of a lab that was typed, what `--json` has beside these, and claims with what to look at."""
    from dataclasses import asdict

    if told.judgement is None:
        return {}
    claims = [{**asdict(claim), "look": told.look.get(claim.id)} for claim in told.claims]
    judged = asdict(told.judgement)
    return {**judged, "next": judged["next"] or None, "claims": claims}


def say_if_ended(lab: RunningLab, node: str, status: int) -> None:
    """A program that was killed may have been killed with its lab, or with its host."""
    import signal

    if status != 128 + signal.SIGKILL:
        return
    if lab.has_ended():
        print_error(f"xlab: lab {lab.name} has ended")
    else:
        print_error(f"xlab: killed, with all of {node} perhaps: switched off, or rebooted")
