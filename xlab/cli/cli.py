"""`xlab cli`: Mininet's command line on a lab that stays."""

from __future__ import annotations

from xlab.cli._app import command
from xlab.cli._lab_facts import say_if_ended
from xlab.cli._options import Name


@command()
def cli(*, name: Name = None) -> int:
    """Mininet's command line on a lab: pingall, h1 ip a, iperf, link s1 h1 down, dump, net."""
    from xlab.outside import mininet_cli, running_lab

    lab = running_lab.find(name)
    return mininet_cli.command_line(lab, ended=lambda status: say_if_ended(lab, "its lab", status))
