"""What ended a program in a lab that stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xlab.cli._streams import print_error

if TYPE_CHECKING:
    from xlab.outside.running_lab import RunningLab


def say_if_ended(lab: RunningLab, node: str, status: int) -> None:
    """A program that was killed may have been killed with its lab, or with its host."""
    import signal

    if status != 128 + signal.SIGKILL:
        return
    if lab.has_ended():
        print_error(f"xlab: lab {lab.name} has ended")
    else:
        print_error(f"xlab: killed, with all of {node} perhaps: switched off, or rebooted")
