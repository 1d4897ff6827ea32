"""`xlab capture`, `trace`, `graph` and `top`: seeing into a lab that stays."""

from __future__ import annotations

import os
import signal
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from xlab.cli import _options as options
from xlab.cli._app import AsJson, Debug, Job, app
from xlab.cli.inside import Name
from xlab.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, BinaryIO

    from xlab.outside.running_lab import Standing
    from xlab.report.tables import Table

#: Of tcpdump interrupted though it did not catch that; else it ends by itself, with 0.
_TIME_IS_OVER = 128 + signal.SIGINT


@app.command(
    epilog="On a terminal what passes is told line by line; else it is written as pcap: "
    "xlab capture h1:eth0 | wireshark -k -i -",
)
def capture(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="NODE[:INTERFACE] [FILTER]...",
            help="h1:eth0, h1/c1, wire:s1-eth1; then what tcpdump is to let pass: -- icmp or arp.",
            autocompletion=options.complete_node,
        ),
    ],
    name: Name = None,
    write: Annotated[
        str | None,
        typer.Option(
            "--write", "-w", metavar="FILE", help="NAME.pcapng, or any other name for pcap; or -."
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-c", min=1, help="End after so many packets.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=0.001, help="End after so many seconds.")
    ] = None,
    _debug: Debug = False,
) -> Job:
    """Show or keep what passes an interface of a node; Ctrl-C ends it."""
    place, *pattern = words
    return partial(_capture, place, pattern, name, write=write, count=count, duration=duration)


@app.command(epilog="Exit status: 0 if the answer came back, else 1.")
def trace(
    source: Annotated[
        str,
        typer.Argument(metavar="FROM", help="A node: h1/c1.", autocompletion=options.complete_node),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TO", help="A node, or an address.", autocompletion=options.complete_node
        ),
    ],
    name: Name = None,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> Job:
    """Follow one ping hop by hop: encapsulation, table entries, and where and why it stops."""
    return partial(_trace, source, target, name, as_json=as_json)


def _trace(source: str, target: str, name: str | None, *, as_json: bool) -> int:
    from xlab.cli._streams import print_json
    from xlab.cli.screens.run import Screen
    from xlab.outside import running_lab

    with running_lab.find(name) as lab:
        found = lab.call("trace", {"source": source, "target": target})
    status = 0 if found["answered"] else 1
    if as_json:
        print_json({"name": lab.name, **found})
        return status
    screen = Screen(sys.stdout)
    screen.headline(f"{found['source']} > {found['target']}", found["address"])
    for label, hops in (("there", "there"), ("back", "back"), ("its ARP request", "arp")):
        if found[hops]:
            screen.said("", label)
            screen.table(_hops(found[hops]), indent=2)
    if found["answered"]:
        screen.said("result", "arrived, and its answer came back", good=True)
    else:
        what = "it arrived; its answer stopped" if found["arrived"] else "it stopped"
        screen.said("result", f"{what} at {found['stopped']}", good=False)
        for reason in found["reasons"] or ["no table and no counter says why"]:
            screen.said("", reason)
    return status


def _hops(hops: Sequence[Mapping[str, Any]]) -> Table:
    from xlab.report.tables import Column, Table

    rows = []
    for hop in hops:
        around = [hop["encapsulation"], " > ".join(hop["outer"])] if hop["outer"] else ["–"]
        if hop["peers"]:
            around.insert(1, f"{' > '.join(hop['peers'])},")
        place = f"{hop['node']}:{hop['device']}"
        rows.append(
            (
                f"{hop['time_us']:.0f}",
                f"{place} {'out' if hop['outgoing'] else 'in'}",
                " ".join(around),
                hop["decision"],
            )
        )
    columns = (
        Column("µs", right=True),
        Column("seen at"),
        Column("carried in"),
        Column("what decides", below=True),
    )
    return Table(columns, tuple(rows))


class Form(StrEnum):
    """How a graph is written."""

    TEXT = "text"
    MERMAID = "mermaid"
    SVG = "svg"


@app.command()
def graph(
    name: Name = None,
    form: Annotated[
        Form | None,
        typer.Option("--as", help="Else by the name of --output: .svg, .mmd, .json, .txt."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there.")
    ] = None,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> Job:
    """Draw a lab: addresses, bridges, tunnels and MTUs as they are just now, faults in force."""
    if as_json and form:
        raise UsageError("--json and --as are two forms: leave one out")
    option, asked = ("--json", "json") if as_json else (f"--as {form}", form)
    written_as = options.form_of(output, _FORMS, option, asked)
    return partial(_graph, name, written_as, output)


_FORMS = {".svg": Form.SVG, ".mmd": Form.MERMAID, ".mermaid": Form.MERMAID, ".json": "json"}


@app.command()
def top(
    name: Name = None,
    once: Annotated[
        bool, typer.Option("--once", help="One table; so it is, too, where there is no terminal.")
    ] = False,
    interval: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks.")] = 1.0,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> Job:
    """Show what nodes receive, send, drop and use of the CPU, live; Ctrl-C ends it."""
    return partial(_top, name, once=once, interval_s=interval, as_json=as_json)


def _top(name: str | None, *, once: bool, interval_s: float, as_json: bool) -> int:
    from xlab.outside import running_lab

    with running_lab.find(name) as lab:
        looks = _looks(lab, interval_s)
        if as_json:
            from xlab.cli._streams import print_json

            print_json({"name": lab.name, "interval_s": interval_s, "nodes": next(looks)})
        elif once or not sys.stdout.isatty():
            from xlab.cli.screens.run import Screen

            Screen(sys.stdout).table(_busy(next(looks)))
        else:
            _watch(lab.name, looks)
    return 0


def _looks(lab: Standing, interval_s: float) -> Iterator[list[dict[str, Any]]]:
    """What nodes did during each interval."""
    import time

    from xlab.lab import rates

    before = lab.call("sample", {})
    while True:
        time.sleep(interval_s)
        after = lab.call("sample", {})
        yield rates.rates(before, after)
        before = after


def _watch(name: str, looks: Iterator[list[dict[str, Any]]]) -> None:
    """On the terminal's other screen, until it is interrupted."""
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table as Grid

    try:
        with Live(console=Console(), screen=True, auto_refresh=False) as tcpdump:
            for found in looks:
                content = _busy(found)
                grid = Grid(title=f"{name}   Ctrl-C ends", title_justify="left", box=None)
                for column in content.columns:
                    grid.add_column(column.title, justify="right" if column.right else "left")
                for row in content.rows:
                    grid.add_row(*row)
                tcpdump.update(grid, refresh=True)
    except KeyboardInterrupt:
        pass  # the way it is meant to end


def _busy(found: Sequence[Mapping[str, Any]]) -> Table:
    from xlab.report import text
    from xlab.report.tables import Column, Table

    rows = []
    for node in found:
        if "cpu_percent" not in node:
            rows.append((node["name"], *([""] * 5), "" if node["up"] else "down", ""))
            continue
        rows.append(
            (
                node["name"],
                f"{node['cpu_percent']:.0f}",
                text.value("x_bits_per_second", "", node["in_bits_per_second"]),
                f"{node['in_packets_per_second']:.0f}",
                text.value("x_bits_per_second", "", node["out_bits_per_second"]),
                f"{node['out_packets_per_second']:.0f}",
                f"{node['dropped_per_second']:.0f}",
                f"{node['dropped']}",
            )
        )
    titles = ("CPU %", "in", "packets/s", "out", "packets/s", "drops/s", "dropped")
    return Table((Column("node"), *(Column(t, right=True) for t in titles)), tuple(rows))


def _graph(name: str | None, form: str, output: Path | None) -> int:
    from xlab.cli._streams import json_text, write
    from xlab.outside import running_lab
    from xlab.report import graph as drawn

    with running_lab.find(name) as lab:
        about = lab.describe()
        nodes = lab.call("network", {})
    if form == "json":
        facts = {key: about[key] for key in ("name", "scenario", "faults")}
        write(json_text({**facts, "nodes": nodes}), output)
        return 0
    shown = drawn.graph(lab.name, about["scenario"], nodes, about["faults"])
    draw = {Form.TEXT: drawn.as_text, Form.MERMAID: drawn.as_mermaid, Form.SVG: drawn.as_svg}
    write(draw[Form(form)](shown), output)
    return 0


def _capture(
    place: str,
    pattern: Sequence[str],
    name: str | None,
    *,
    write: str | None,
    count: int | None,
    duration: float | None,
) -> int:
    from xlab.kernel import tcpdump
    from xlab.kernel.processes import search_path
    from xlab.outside import running_lab
    from xlab.sandbox import entering

    node, _, interface = place.partition(":")
    told = write is None and sys.stdout.isatty()
    # As whoever it is started as: in a sandbox without root there is no user tcpdump.
    argv = ["tcpdump", "-n", "-Z", "root", "-i", interface or "any"]
    argv += ["-l", "-e"] if told else ["-U", "-w", "-"]
    argv += ["-c", str(count)] if count else []
    with running_lab.find(name) as lab:
        doors = lab.enter(node)
        if write == "-" and sys.stdout.isatty():
            raise UsageError("--write - is for a file or a pipe, not for a terminal")
        writer = None
        if not told:
            writer = _keep(None if write in (None, "-") else Path(write), place)
        elif peers := _routers(lab):
            argv.append("-x")
            writer = _through(partial(tcpdump.explain, peers=peers), os.dup(1))
        argv += ["--", *pattern]
        env = {**os.environ, "PATH": search_path()}
        status = entering.run(
            doors, argv, node=node, folder=Path("/"), env=env, duration_s=duration
        )
        if writer is not None:
            os.close(1)
            _, ended = os.waitpid(writer, 0)
            # What was not kept is worse than whatever tcpdump, or the end of its time, comes to.
            status = entering.as_a_shell_has_it(ended) or status
        return 0 if duration and status == _TIME_IS_OVER else status


def _routers(lab: Standing) -> dict[bytes, str]:
    """The hosts of weave's routers, by the names that these have among each other."""
    if not any("weave" in node.get("daemons", {}) for node in lab.describe()["nodes"]):
        return {}
    found = {node["name"]: node["router"] for node in lab.call("network", {}) if node["router"]}
    return {bytes.fromhex(r["name"].replace(":", "")): host for host, r in found.items()}


def _keep(file: Path | None, place: str) -> int:
    """Let what is captured go through a child, whose number it is, to a file outside, or on."""
    from xlab.kernel import disk, pcapng

    if file is None:
        return _through(pcapng.copy, os.dup(1), "standard output")
    descriptor = disk.create(file)
    as_pcapng = partial(pcapng.convert, interface=place)
    return _through(as_pcapng if file.suffix == ".pcapng" else pcapng.copy, descriptor, str(file))


def _through(
    convert: Callable[[BinaryIO, BinaryIO], object], descriptor: int, name: str = "the terminal"
) -> int:
    """Let standard output go through a child, whose number it is, to what `descriptor` is of.

    Each write is whole or not at all.
    """
    from xlab.kernel import syscalls

    reading, writing = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    child = syscalls.fork(lambda: _become_writer(reading, writing, descriptor, name, convert))
    for end in (reading, descriptor):
        os.close(end)
    os.dup2(writing, 1)
    os.close(writing)
    return child


def _become_writer(
    reading: int,
    writing: int,
    descriptor: int,
    name: str,
    convert: Callable[[BinaryIO, BinaryIO], object],
) -> NoReturn:
    from xlab.cli._streams import print_error
    from xlab.record.record import Whole

    status = 1
    try:
        # It ends when tcpdump does, whoever was told to end, and may write in the background.
        for each in ("INT", "TERM", "HUP", "QUIT", "TTOU"):
            signal.signal(signal.Signals[f"SIG{each}"], signal.SIG_IGN)
        os.close(writing)
        with os.fdopen(reading, "rb") as captured, Whole(descriptor, "wb") as kept:
            convert(captured, kept)
        status = 0
    except BrokenPipeError:
        status = 128 + signal.SIGPIPE  # whoever read has read enough
    except OSError as error:
        print_error(f"xlab: {name}: {error.strerror}")
    except Exception as error:  # noqa: BLE001 - nothing may return into the caller's code
        print_error(f"xlab: {error}")
    finally:
        os._exit(status)
