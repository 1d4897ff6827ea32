"""What a person sees, on a pipe and on a terminal, told from the sample records."""

from __future__ import annotations

import importlib.util
import io
import os
import pty
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from xlab.cli.screens.run import RunScreen
from xlab.cli.screens.screen import Screen
from xlab.experiments.pace import Pace
from xlab.record.record import Claim, RunRecord
from xlab.report import tables
from xlab.scenario.request import Request


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fake = _load(Path(__file__).parents[1] / "support" / "fake_run.py")


@pytest.fixture(autouse=True)
def width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)


def shown(*records: RunRecord, stream: Any = None) -> str:
    """All that a pipe receives when these records are run one after the other."""
    stream = stream or io.StringIO()
    screen = RunScreen(Screen(stream))
    for told in records:
        with screen.running():
            for event in fake.events(told):
                screen.watch(event)
            screen.finished(told, Path("results/x"))
    if len(records) > 1:
        screen.closing(records)
    return stream.getvalue() if isinstance(stream, io.StringIO) else ""


def lines_with(output: str, *parts: str) -> list[str]:
    return [line for line in output.splitlines() if all(part in line for part in parts)]


# ----------------------------------------------------------------------------------- plain lines


def test_a_run_is_told_from_its_headline_to_its_record() -> None:
    output = shown(fake.sample("ovs-gre"))
    assert re.split(" {3,}", output.splitlines()[0]) == [
        "ovs-gre",
        "2 hosts, 2 containers each",
        "ovs 3.5.0 userspace (netdev)",
        "rootless",
    ]
    assert lines_with(output, "routes=tunnel")
    assert lines_with(output, "note", "openvswitch is not live")
    assert lines_with(output, "build", "2 hosts ✓   br0 on h1 ✓")
    assert lines_with(output, "claims", "✓ c1 reaches the other host", "before the route")
    assert lines_with(output, "all hold   built in 0.4 s, checked in 3.2 s")
    assert lines_with(output, "path", "✓ gre 20/20, gre0 cut: stops; healed: back")
    assert lines_with(output, "overhead 38 bytes, effective MTU 1462, 3 other packets")
    assert lines_with(output, "round 3", "RTT 469 µs", "TCP 1 stream 1.04 Gbit/s")
    assert lines_with(output, "TCP 1 stream", "1.08 Gbit/s", "1.04–1.10", "0.102", "0.053")
    assert lines_with(output, "result", "passed   3 of 3 claims hold", "18.9 s")
    assert lines_with(output, "record", "results/x/run.json")


@pytest.mark.parametrize("columns", [80, 100, 120, 200])
@pytest.mark.parametrize("name", ["baseline", "bridge-failed", "bridge-quick", "ovs-gre"])
def test_no_line_is_wider_than_the_screen_or_ends_in_blanks(
    monkeypatch: pytest.MonkeyPatch, columns: int, name: str
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for line in shown(fake.sample(name), fake.sample("ovs-gre-kernel")).splitlines():
        assert len(line) + len(re.findall("[无法通]", line)) <= columns
        assert line == line.rstrip()


@pytest.mark.parametrize("columns", [40, 60])
def test_on_a_narrow_screen_a_row_is_told_in_words_and_nothing_is_cut(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = io.StringIO()
    screen = Screen(stream)
    screen.table(tables.overview([fake.sample("ovs-gre")])[0])
    said = stream.getvalue()
    assert max(map(len, said.splitlines())) <= columns
    words = " ".join(said.split())
    for part in (
        "ovs-gre",
        "✓ 3/3",
        "RTT 469 µs",
        "× baseline 26.1",
        "TCP 1.08 Gbit/s",
        "gre 20/20",
    ):
        assert part in words


def test_the_stage_of_a_claim_is_whole_at_any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    told = fake.sample("bridge")
    stage = "with the route through the tunnel"
    told = replace(told, claims=(replace(told.claims[0], stage=stage),))
    for columns in (40, 60, 80, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert stage in " ".join(shown(told).split())
        assert max(map(len, shown(told).splitlines())) <= max(columns, 40)


def test_the_wider_the_screen_the_more_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    told = fake.sample("ovs-gre")
    heads = {}
    for columns in (80, 100, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        (head,) = lines_with(shown(told), "measured", "median")
        heads[columns] = re.findall(r"× \w+|95 % interval|\w+", head)
    always = ["measured", "median", "95 % interval"]
    assert heads[80] == [*always, "× control", "× baseline"]
    assert heads[100] == [*always, "× control", "interval", "× baseline", "interval"]
    assert heads[120] == [*always, "control", "baseline", *heads[100][3:]]


def test_a_broken_claim_says_what_was_expected_seen_and_what_shows_it() -> None:
    output = shown(fake.sample("bridge-failed"))
    lines = output.splitlines()
    (start,) = (i for i, line in enumerate(lines) if "✗" in line)
    assert "✗ no two containers have one address" in lines[start]
    assert [line.split(maxsplit=1) for line in lines[start + 1 : start + 4]] == [
        ["expected", "4 different addresses"],
        ["observed", "10.211.55.2 on h1/c1 and on h2/c1"],
        ["evidence", "h1: docker inspect c1; h2: docker inspect c1"],
    ]
    assert lines_with(output, "3 of 4 hold")
    assert lines_with(output, "result", "failed   1 of 4 claims does not hold")


def test_evidence_of_many_lines_keeps_its_lines_and_is_cut() -> None:
    told = fake.sample("bridge-failed")
    evidence = "h1$ ip route\n" + "\n".join(f"route {n}" for n in range(30))
    claims = (replace(told.claims[-1], evidence=evidence),)
    output = shown(replace(told, claims=claims))
    assert lines_with(output, "evidence  h1$ ip route")
    assert lines_with(output, "route 10")
    assert not lines_with(output, "route 11")
    assert lines_with(output, "… 19 more lines in run.json")


def test_a_claim_that_is_a_measurement_says_what_was_measured() -> None:
    told = fake.sample("bridge")
    claim = Claim("macs", "run", "MACs learnt by the switch", "(measured)", "6 MACs", True)
    assert lines_with(shown(replace(told, claims=(claim,))), "✓ MACs learnt by the switch: 6 MACs")


def test_a_path_that_is_not_proved_is_said_with_the_way_packets_went() -> None:
    told = fake.sample("ovs-gre")
    assert told.path
    packets = replace(told.path.underlay_packets, gre=0, none=20)
    path = replace(told.path, proved=False, underlay_packets=packets)
    output = shown(replace(told, path=path, status="failed", reason="the path is not proved"))
    assert lines_with(output, "path", "✗ NOT proved: gre 0/20, 20 plain")
    assert lines_with(output, "evidence", "raw/path.pcap")


def test_a_negative_control_that_failed_is_said() -> None:
    told = fake.sample("ovs-gre")
    assert told.path
    path = replace(told.path, negative_control=False, control_detail="gre0 cut: goes on")
    output = shown(replace(told, path=path, status="failed", reason="the control failed"))
    assert lines_with(output, "✗ gre 20/20, control FAILED: gre0 cut: goes on")


def test_a_skipped_scenario_says_the_reason_and_the_remedy() -> None:
    output = shown(fake.sample("ovs-gre-skipped"))
    assert output.splitlines()[0] == "ovs-gre"
    assert lines_with(output, "skipped", "/dev/net/tun cannot be opened", "chmod 0666 /dev/net/tun")


def test_conditions_are_told_as_asked_for_and_as_measured() -> None:
    output = shown(fake.sample("bridge-quick"))
    assert lines_with(output, "links", "rate 100 Mbit/s, delay 10.0 ms, loss 1.00 %")
    assert lines_with(output, "measured: delay 10.2 ms")
    told = fake.sample("bridge-quick")
    measured = {"rtt_ms": 21.16, "rate_bits_per_second": 45.8e6, "loss_ratio": 0.011}
    output = shown(replace(told, conditions=replace(told.conditions, measured=measured)))
    assert "measured: rtt 21.2 ms, rate 45.8 Mbit/s, loss 1.10 %" in " ".join(output.split())


def test_a_probe_that_found_nothing_out_has_failed_and_has_no_figure() -> None:
    output = shown(fake.sample("bridge-quick"))
    assert lines_with(output, "RTT ", "no figure", "–")
    assert lines_with(output, "- RTT, method: no figure, for every sample failed")


def test_control_characters_out_of_a_record_do_not_reach_the_terminal() -> None:
    told = fake.sample("bridge-failed")
    nasty = "\x1b[2Jgone\x07\r\u202e\ud800"
    claim = replace(told.claims[-1], text=nasty, stage=nasty, observed=nasty, evidence=nasty)
    output = shown(replace(told, claims=(claim,), reason=nasty, scenario=nasty), told)
    assert "gone" in output
    assert set(output) & set("\x1b\x07\r\u202e\ud800") == set()


def test_several_scenarios_end_in_one_table_for_each_class_of_datapath() -> None:
    names = ("baseline", "bridge", "ovs-gre", "bridge-failed", "ovs-gre-skipped")
    output = shown(*map(fake.sample, names))
    closing = output[output.index("\nkernel datapath\n") :]
    kernel, userspace = closing.split("\nuserspace datapath\n")
    assert lines_with(kernel, "baseline", "✓ 1/1", "17.9 µs", "20.2 Gbit/s")
    assert lines_with(kernel, "plain 20/20, eth0 detached from br0: stops; attached again: back")
    assert lines_with(kernel, "bridge", "✗ 3/4", "–")
    assert lines_with(kernel, "ovs-gre", "skipped")
    assert lines_with(userspace, "ovs-gre", "✓ 3/3", "469 µs", "26.1", "1.08 Gbit/s", "0.053")
    assert lines_with(userspace, "ovs 3.5.0 userspace (netdev)")
    assert lines_with(userspace, "- Figures of kernel and userspace datapaths do not rank methods")
    assert lines_with(userspace, "- bridge failed: “no two containers have one address”")
    assert lines_with(userspace, "- ovs-gre was skipped: /dev/net/tun cannot be opened")


def test_a_run_says_whether_the_machine_was_quiet() -> None:
    assert lines_with(shown(fake.sample("ovs-gre")), "machine", "quiet")
    one = lines_with(shown(fake.sample("bridge-quick")), "machine", "unknown   1 round of plain")
    assert one, "of one round nobody can say"


@pytest.mark.parametrize("columns", [40, 80])
def test_a_narrow_terminal_loses_no_figure(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    told = [fake.sample(name) for name in ("bridge", "ovs-gre")]
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = io.StringIO()
    RunScreen(Screen(stream)).report(told)
    output = stream.getvalue()
    assert max(map(len, output.splitlines())) <= columns
    for figure in ("29.4 µs", "469 µs", "1.08 Gbit/s", "0.053", "0.68", "✓ 4/4"):
        assert figure in output
    if columns == 40:
        assert lines_with(output, "  TCP × baseline", "0.053"), "with its name beside it"


def test_of_several_methods_each_says_which_it_is_and_how_long_all_still_take() -> None:
    stream = io.StringIO()
    requests = [
        Request(name, quick=True, duration_s=1.0, repeat=2) for name in ("baseline", "weave")
    ]
    screen = RunScreen(Screen(stream), Pace(requests))
    for name in ("baseline", "ovs-gre-skipped"):
        told = fake.sample(name)
        with screen.running():
            for event in fake.events(told):
                if event["kind"] == "step" and event["phase"] == "measure":
                    number = int(event["text"].partition(":")[0].removeprefix("round "))
                    event |= {"round": number, "step": 2, "steps": 16}
                screen.watch(event)
            screen.finished(told, Path("results/x"))
    output = stream.getvalue()
    # 2 methods, 2 rounds, 10 s each: off a terminal, too.
    assert lines_with(output, "baseline   method 1 of 2, about 50 s left")
    assert re.search(r"round 1  .* about \d+ s left", output)
    assert lines_with(output, "ovs-gre    method 2 of 2")
    assert "method" not in shown(fake.sample("baseline")).partition("\n")[0]


def test_many_steps_of_a_build_are_counted_and_not_listed() -> None:
    stream = io.StringIO()
    screen = RunScreen(Screen(stream))
    with screen.running():
        for number in range(200):
            screen.watch({"kind": "step", "phase": "build", "text": f"h{number}"})
        screen.watch({"kind": "phase", "phase": "build", "seconds": 1.0})
    assert lines_with(stream.getvalue(), "188 more ✓")
    assert not lines_with(stream.getvalue(), "h199")


# ------------------------------------------------------------------------------------ a terminal


class Terminal:
    """A pseudo-terminal: a stream to write to, and what its other end received."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        self._received: list[bytes] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def close(self) -> str:
        """All that was written, once nothing more can come."""
        if not self.stream.closed:
            self.stream.close()
            self._reader.join()
            os.close(self._master)
        return b"".join(self._received).decode()

    def _read(self) -> None:
        try:
            while chunk := os.read(self._master, 65536):
                self._received.append(chunk)
        except OSError:
            return  # EIO: the terminal has been closed


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    opened = Terminal()
    yield opened
    opened.close()


def test_a_terminal_has_colours_and_one_line_that_moves(
    monkeypatch: pytest.MonkeyPatch, terminal: Terminal
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    shown(fake.sample("bridge-failed"), fake.sample("ovs-gre"), stream=terminal.stream)
    output = terminal.close()
    assert "\x1b[32m✓" in output
    assert "\x1b[1;31m✗" in output
    assert "\x1b[?25l" in output, "the cursor was hidden"
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l"), "and is back"
    # The line that moves names the probe; it is erased, and rounds need no lines of their own.
    assert re.search(r"measure .*iperf3 h1/c1 > h2/c1.*last: ", output)
    assert "round 1  " not in output


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_line_that_moves_says_in_words_what_is_measured_and_how_long_it_takes(
    monkeypatch: pytest.MonkeyPatch, terminal: Terminal, columns: int
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    screen = RunScreen(Screen(terminal.stream), Pace([Request("bridge")]))
    with screen.running():
        screen.watch(
            {
                "kind": "step",
                "phase": "measure",
                "text": "round 1 of 3: TCP, one stream, h1/c1 > h2/c1",
                "round": 1,
                "step": 2,
                "steps": 16,
            }
        )
    output = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.close())
    (line, *_) = (line for line in re.split("[\r\n]+", output) if "about" in line)
    assert "about 2 min left" in line
    assert len(line) <= columns - 3
    assert ("TCP, one stream, h1/c1 > h2/c1" in line) == (columns > 40)
    assert "TCP, one str" in line


def test_no_thread_is_left_between_scenarios_nor_started_before_the_first_event(
    monkeypatch: pytest.MonkeyPatch, terminal: Terminal
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    before = threading.active_count()
    screen = RunScreen(Screen(terminal.stream))
    told = fake.sample("bridge")
    for _ in range(2):
        with screen.running():
            assert threading.active_count() == before
            for event in fake.events(told):
                screen.watch(event)
            assert threading.active_count() == before + 1
            # For a lab beside this one, too, the process is forked.
            screen.watch({"kind": "forking"})
            assert threading.active_count() == before
        assert threading.active_count() == before


def test_the_terminal_is_restored_when_a_run_breaks_off(
    monkeypatch: pytest.MonkeyPatch, terminal: Terminal
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    screen = RunScreen(Screen(terminal.stream))

    def run() -> None:
        with screen.running():
            screen.watch({"kind": "step", "phase": "build", "text": "h1"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    output = terminal.close()
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")


@pytest.mark.parametrize(
    "environment", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}], ids=str
)
def test_a_terminal_without_colour_or_movement_gets_the_same_facts_as_lines(
    monkeypatch: pytest.MonkeyPatch,
    terminal: Terminal,
    environment: dict[str, str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    told = fake.sample("ovs-gre")
    shown(told, stream=terminal.stream)
    output = terminal.close().replace("\r\n", "\n")
    assert "\x1b" not in output
    said = [line for line in output.splitlines() if not line.startswith("  measure ")]
    assert said == shown(told).splitlines()
    # Somebody watches, so every probe is named before it is waited for.
    assert lines_with(output, "measure", "round 2: netperf h1/c1 > h2/c1")


def test_an_encoding_without_check_marks_does_not_break_anything() -> None:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii", errors="replace") as stream:
        shown(fake.sample("ovs-gre"), stream=stream)
        stream.flush()
        assert b"RTT" in raw.getvalue()
