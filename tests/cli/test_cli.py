"""The command line: what it understands, prints where, and ends with.

What runs here is the whole command line, with a runner that tells sample records (fake_run.py).
"""

from __future__ import annotations

import dataclasses
import errno
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.terminal import Terminal
from xlab import cli
from xlab.cli import _app
from xlab.cli._app import PANELS
from xlab.cli._findings import Finding
from xlab.errors import CapabilityError, DeadlineError, UsageError
from xlab.experiments.runner import UnwrittenError
from xlab.kernel import programs
from xlab.probes.catalog import ALL as PROBES
from xlab.record import record
from xlab.record.record import RunRecord
from xlab.scenario.request import Request

pytestmark = pytest.mark.usefixtures("same_charts_drawn_once")

ROOT = Path(__file__).parent.parent.parent
Watch = Callable[[Mapping[str, Any]], None]


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fake = _load(ROOT / "tests" / "support" / "fake_run.py")


class FakeRunner:
    """In place of xlab.experiments.runner.run: remembers requests, and tells what `tells` says."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        #: By scenario: the sample to tell, or what to raise.
        self.tells: dict[str, str | BaseException] = {}
        self.during: Callable[[], None] = lambda: None

    def run(self, request: Request, *, results: Path, watch: Watch) -> tuple[RunRecord, Path]:
        self.requests.append(request)
        told = self.tells.get(request.scenario, fake.SAMPLES.get(request.scenario, "bridge"))
        if isinstance(told, BaseException):
            raise told
        sample = fake.sample(told)
        for event in fake.events(sample):
            watch(event)
            self.during()
        folder = results / f"{len(self.requests)}-{request.scenario}"
        record.save(sample, folder, {})
        return sample, folder

    @property
    def request(self) -> Request:
        (request,) = self.requests
        return request


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeRunner]:
    made = FakeRunner()
    # Under nohup, or as a shell's background job, the tests start with signals ignored.
    usual: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    found = {number: signal.signal(number, handler) for number, handler in usual.items()}
    monkeypatch.setattr("xlab.experiments.runner.run", made.run)
    monkeypatch.setattr("xlab.scenario.catalog.names", lambda: ["baseline", "bridge", "ovs-gre"])
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    yield made
    for number, before in found.items():
        signal.signal(number, before)


Capture = pytest.CaptureFixture[str]


def json_of(capsys: Capture) -> Any:
    return json.loads(capsys.readouterr().out)


def xlab(
    *arguments: str, environment: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """The program itself, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "xlab", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        check=False,
        text=True,
        **{"capture_output": True, **options},
    )


# ---------------------------------------------------------------------------------- wrong usage


def test_help_has_the_commands_in_their_groups() -> None:
    for group, arguments in (("xlab", []), ("xlab", ["--help", "run"]), ("lab", ["lab"])):
        shown = xlab(*arguments, "--help").stdout
        rows = re.findall(r"(?m)^(\S.*):$|^  ([a-z]+) +[A-Z]", shown.partition("help  ")[2])
        panels: dict[str, list[str]] = {}
        for panel, command in rows:
            if command:
                panels[list(panels)[-1]].append(command)
            else:
                panels[panel] = []
        assert {name: tuple(commands) for name, commands in panels.items()} == PANELS[group]


def test_every_command_belongs_to_a_group() -> None:
    files = {each.stem for each in (ROOT / "xlab/cli").glob("[!_]*.py")} | {"lab"}
    assert files == {name for names in PANELS["xlab"].values() for name in names}
    files = {each.stem for each in (ROOT / "xlab/cli/lab").glob("[!_]*.py")}
    assert files == {name for names in PANELS["lab"].values() for name in names}


@pytest.mark.parametrize("words", [[], ["run"], ["lab"], ["lab", "start"]], ids=str)
def test_help_of_a_command_is_what_its_own_help_says(words: list[str], capsys: Capture) -> None:
    assert cli.main(["help", *words]) == 0
    told = capsys.readouterr().out
    assert told.startswith(" ".join(["Usage: xlab", *words]))
    assert cli.main([*words, "--help"]) == 0
    assert capsys.readouterr().out == told


def test_help_of_no_command_is_wrong_usage(capsys: Capture) -> None:
    assert cli.main(["help", "nonsense"]) == 2
    assert capsys.readouterr().err == (
        "xlab: no command is called 'nonsense'; `xlab help` shows what may be typed\n"
    )


def test_help_completes_the_names_of_commands() -> None:
    def completed(line: str) -> list[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
        return xlab(environment={"_XLAB_COMPLETE": "complete_bash", **words}).stdout.split()

    assert completed("xlab help do") == ["down", "doctor"]
    assert completed("xlab help lab su") == ["submit"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "no command is called 'nonsense'; `xlab help` shows"),
        (["9" * 5000], f"no command is called '{'9' * 99}…; `xlab help` shows"),
        (["rn"], "no command is called 'rn'; did you mean run? `xlab help` shows"),
        (["lab", "che'k"], "no command is called 'che'k'; did you mean check? `xlab help lab`"),
        (["lab", "chek"], "'chek'; did you mean check? `xlab help lab` shows"),
        (["run"], "SCENARIO is missing; `xlab help run` shows"),
        (["lab", "start"], "EXERCISE is missing; `xlab help lab start` shows"),
        (["run", "bridge", "--zzz"], "no option is called --zzz; `xlab help run` shows"),
        (
            ["run", "bridge", "--hsots", "3"],
            "called --hsots; did you mean --hosts? `xlab help run`",
        ),
        (["run", "bridge", "--hosts", "two"], "--hosts is 'two': it should be a valid integer; "),
        (["run", "bridge", "--hosts"], "option '--hosts' requires an argument; `xlab help run`"),
        (["run", "bridge", "more"], "too many arguments: more; `xlab help run`"),
        (["list", "a", "b"], "too many arguments: a b; `xlab help list`"),
        (["list", *map(str, range(9999))], "95 96…; `xlab help list`"),
        (["run", "bridge", "--hosts", "1"], "the range is 2 to 1,000"),
        (["run", "bridge", "--mtu", "100"], "the range is 576 to 65,535"),
        (["run", "bridge", "--repeat", "0"], "the range is 1 to 1,000 rounds"),
        (["run", "bridge", "--streams", "0"], "the range is 1 to 128 TCP streams"),
        (["run", "bridge", "--duration", "0"], "the range is 1 to 3,600 seconds"),
        (["run", "bridge", "--rate", "fast"], "--rate: 'fast' is not a rate: write 10mbit"),
        (["run", "bridge", "--delay", "10parsec"], "--delay: '10parsec' is not a time"),
        (["run", "bridge", "--delay", "5"], "--delay: '5' is not a time: write 10ms"),
        (["run", "bridge", "--loss", "101%"], "--loss: loss is 101%; the range is 0% to under 100"),
        (["run", "bridge", "--jitter", "1ms"], "give --delay too"),
        (["run", "bridge", "--set", "routes"], "NAME=VALUE"),
        (["run", "bridge", "--set", "=x"], "NAME=VALUE"),
        (["run", "bridge", "--set", "a=1", "--set", "a=2"], "given twice"),
        (["run", "bridge", "--topo", "single,3", "--hosts", "3"], "leave --hosts out"),
        (["run", "bridgee"], "did you mean bridge?"),
        (["run", "nowhere/x.py"], "no such scenario file: nowhere/x.py"),
        (["run", "all", "--set", "nonsense=1"], "no scenario has an option of that name"),
        (["report"], "RESULT... is missing; `xlab help report` shows"),
        (["report", "nowhere"], "nowhere: No such file or directory; `xlab run` writes to"),
        (["report", ".", "--markdown", "--json"], "exclude each other"),
        (["report", ".", "--json", "--output", "x.html"], "the name says html"),
        (["report", ".", "--output", "r.pdf"], "written as .pdf; known are .csv, .flent.gz, "),
        (
            ["graph", "-o", "lab.pdf"],
            "written as .pdf; known are .svg, .mmd, .mermaid, .json, .txt",
        ),
        (["graph", "--as", "svg", "-o", "lab.mmd"], "the name says mermaid"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_right(
    runner: FakeRunner, capsys: Capture, arguments: list[str], said: str
) -> None:
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.startswith("xlab: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert runner.requests == []


def test_results_that_cannot_be_written_are_refused_before_anything_is_built(
    runner: FakeRunner, capsys: Capture, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert cli.main(["run", "bridge", "--results", "file"]) == 2
    assert cli.main(["run", "bridge", "--results", "file/below"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "xlab: --results file: Not a directory; --results DIR writes elsewhere",
        "xlab: --results file/below: Not a directory; --results DIR writes elsewhere",
    ]
    assert runner.requests == []


# ------------------------------------------------------------------------------------------ run


def test_options_arrive_in_the_request(runner: FakeRunner) -> None:
    arguments = (
        "run ovs-gre --hosts 4 --containers 3 --mtu 9000 --rate 100mbit --delay 10ms --jitter 2ms "
        "--loss 1% --duration 5 --repeat 7 --set routes=underlay --set x=a=b --results there "
        "--probe memory --probe loaded-rtt"
    )
    assert cli.main(arguments.split()) == 0
    assert runner.request == Request(
        "ovs-gre",
        hosts=4,
        containers=3,
        mtu=9000,
        rate_bits_per_second=1e8,
        delay_ms=10.0,
        jitter_ms=2.0,
        loss_ratio=0.01,
        duration_s=5.0,
        repeat=7,
        settings={"routes": "underlay", "x": "a=b"},
        probes=("loaded-rtt", "memory"),
    )
    assert record.load(Path("there/1-ovs-gre")).scenario == "ovs-gre"


def test_what_is_not_asked_for_has_the_defaults_of_the_request(runner: FakeRunner) -> None:
    assert cli.main(["run", "bridge"]) == 0
    assert runner.request == Request("bridge")


@pytest.mark.parametrize(
    ("arguments", "duration_s", "repeat"),
    [
        ([], 1.0, 1),
        (["--duration", "3"], 3.0, 1),
        (["--repeat", "2"], 1.0, 2),
    ],
)
def test_quick_is_one_second_and_one_round_unless_they_are_given(
    runner: FakeRunner, arguments: list[str], duration_s: float, repeat: int
) -> None:
    assert cli.main(["run", "bridge", "--quick", *arguments]) == 0
    assert runner.request == Request("bridge", quick=True, duration_s=duration_s, repeat=repeat)


def test_a_topology_says_how_many_hosts_there_are(runner: FakeRunner) -> None:
    assert cli.main(["run", "bridge", "--topo", "linear,4"]) == 0
    assert runner.request == Request("bridge", topo="linear,4")


def test_all_runs_every_scenario_and_each_gets_the_settings_it_knows(runner: FakeRunner) -> None:
    assert cli.main(["run", "all", "--set", "routes=underlay", "--hosts", "3"]) == 0
    assert runner.requests == [
        Request("baseline", hosts=3),
        Request("bridge", hosts=3),
        Request("ovs-gre", hosts=3, settings={"routes": "underlay"}),
    ]


@pytest.mark.parametrize(
    ("tells", "status"),
    [
        ({}, 0),
        ({"bridge": "bridge-failed"}, 1),
        ({"ovs-gre": "ovs-gre-skipped"}, 3),
        ({"bridge": "bridge-failed", "ovs-gre": "ovs-gre-skipped"}, 1),
        ({"ovs-gre": CapabilityError("no tun", "chmod 0666 /dev/net/tun")}, 3),
        ({"bridge": DeadlineError("h1", 5.0), "ovs-gre": "ovs-gre-skipped"}, 1),
        ({"bridge": UsageError("300 containers do not fit")}, 2),
        ({"bridge": UsageError("they do not fit"), "ovs-gre": "ovs-gre-skipped"}, 2),
    ],
    ids=str,
)
def test_the_status_of_several_scenarios_is_that_of_the_worst(
    runner: FakeRunner, capsys: Capture, tells: dict[str, str | BaseException], status: int
) -> None:
    runner.tells = tells
    assert cli.main(["run", "all"]) == status
    assert len(runner.requests) == 3, "one that fails does not stop the others"
    captured = capsys.readouterr()
    assert "× control (ctrl)" in captured.out, "the closing table is there"
    errors = [str(told) for told in tells.values() if isinstance(told, BaseException)]
    for error in errors:
        assert error in captured.err


@pytest.mark.parametrize(
    ("sample", "status"),
    [("bridge", 0), ("bridge-failed", 1), ("ovs-gre-skipped", 3)],
)
def test_the_status_of_one_scenario_is_its_own(
    runner: FakeRunner, sample: str, status: int
) -> None:
    runner.tells = {"bridge": sample}
    assert cli.main(["run", "bridge"]) == status


def test_with_json_stdout_is_one_record_and_progress_goes_to_stderr(
    runner: FakeRunner, capsys: Capture
) -> None:
    assert cli.main(["run", "ovs-gre", "--json"]) == 0
    captured = capsys.readouterr()
    assert record.from_dict(json.loads(captured.out)) == fake.sample("ovs-gre")
    assert "✓ c1 reaches c3" in captured.err
    assert "无法ping通" in captured.out, "readable where the encoding allows it"


def test_with_json_several_records_are_an_array(runner: FakeRunner, capsys: Capture) -> None:
    runner.tells = {"bridge": DeadlineError("h1", 5.0)}
    assert cli.main(["run", "all", "--json"]) == 1
    names = [record.from_dict(data).scenario for data in json_of(capsys)]
    assert names == ["baseline", "ovs-gre"]


def test_what_the_disk_refuses_is_told_before_the_error(
    runner: FakeRunner, capsys: Capture
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "r/x")
    runner.tells = {"bridge": UnwrittenError(fake.sample("bridge"), full)}
    assert cli.main(["run", "bridge", "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["scenario"] == "bridge"
    assert "RTT" in told.err
    assert "record" not in told.err
    assert told.err.endswith("xlab: r/x: No space left on device\n")
    # The others are run all the same, and all are in the table at the end.
    assert cli.main(["run", "all"]) == 1
    told = capsys.readouterr()
    for scenario in ("baseline", "bridge", "ovs-gre"):
        assert re.search(rf"^{scenario} .*[✓✗]", told.out, re.MULTILINE), told.out
    assert told.err == "xlab: r/x: No space left on device\n"


# --------------------------------------------------------------------- errors, signals, streams


@pytest.mark.parametrize(
    ("arguments", "tells"),
    [
        (["run", "bridge"], CapabilityError("no iperf3")),
        (["run", "all"], "ovs-gre-skipped"),
        (["doctor"], ""),
    ],
    ids=str,
)
def test_where_programs_are_missing_what_installs_them_is_named(
    runner: FakeRunner,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    tells: str | BaseException,
) -> None:
    runner.tells = {"bridge": tells} if tells else {}
    missing = {"iperf3", "ovs-vswitchd", "ovsdb-server", "netperf"}
    monkeypatch.setattr("xlab.cli._findings.findings", lambda: [LACKING])
    monkeypatch.setattr(programs, "locate", lambda name: None if name in missing else "/bin/true")
    line = "missing: iperf3, openvswitch-switch; to install: xlab setup\n"
    assert cli.main(arguments) == 3
    assert capsys.readouterr().err.endswith(line)
    monkeypatch.setattr(programs, "locate", lambda name: None if name == "netperf" else "/bin/true")
    assert cli.main(arguments) == 3
    assert "missing:" not in capsys.readouterr().err, "there is another meter"


@pytest.mark.parametrize("arguments", [["run", "bridge", "--debug"], ["--debug", "run", "bridge"]])
@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (DeadlineError("the tunnel", 5.0), 1, "xlab: waited 5 s in vain for the tunnel"),
        (CapabilityError("no tun", "chmod it"), 3, "xlab: no tun; chmod it"),
        (OSError(errno.ENOSPC, "No space left on device", "r/x"), 1, "xlab: r/x: No space left"),
        (ZeroDivisionError("division by zero"), 1, "xlab: ZeroDivisionError: division by zero"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_an_error_is_one_line_and_with_debug_a_traceback_as_well(
    runner: FakeRunner,
    capsys: Capture,
    arguments: list[str],
    error: BaseException,
    status: int,
    said: str,
) -> None:
    runner.tells = {"bridge": error}
    assert cli.main(["run", "bridge"]) == status
    captured = capsys.readouterr()
    assert captured.err.startswith(said)
    assert len(captured.err.splitlines()) == 1
    assert cli.main(arguments) == status
    captured = capsys.readouterr()
    assert captured.err.startswith("Traceback")
    assert captured.err.splitlines()[-1].startswith(said)


def test_debug_shows_the_traceback_that_came_from_within_the_sandbox(
    runner: FakeRunner, capsys: Capture
) -> None:
    error = DeadlineError("the tunnel", 5.0)
    error.add_note("far traceback")
    runner.tells = {"bridge": error}
    cli.main(["run", "bridge", "--debug"])
    assert "far traceback" in capsys.readouterr().err


def test_what_an_error_quotes_cannot_control_the_terminal(
    runner: FakeRunner, capsys: Capture
) -> None:
    runner.tells = {"bridge": DeadlineError("\x1b[2J\x07", 5.0)}
    assert cli.main(["run", "bridge"]) == 1
    assert not set(capsys.readouterr().err) & set("\x1b\x07")


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "interrupted by SIGTERM"),
        (signal.SIGHUP, 129, "interrupted by SIGHUP"),
    ],
)
def test_signals_reach_the_runner_as_an_exception_and_end_the_run(
    runner: FakeRunner, capsys: Capture, number: signal.Signals, status: int, said: str
) -> None:
    raised: list[BaseException] = []

    def interrupt() -> None:
        try:
            signal.raise_signal(number)
        except BaseException as error:
            raised.append(error)
            raise

    runner.during = interrupt
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert cli.main(["run", "all"]) == status
    assert len(raised) == len(runner.requests) == 1, "no further scenario is run"
    assert isinstance(raised[0], KeyboardInterrupt)
    assert capsys.readouterr().err.splitlines() == [said]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_several_signals_at_once_are_one_interrupt(
    runner: FakeRunner, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python tells with a traceback of one that it has noted and finds ignored by the kernel."""
    lost: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lost.append)

    def interrupt() -> None:
        numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        for number in numbers:
            # To this thread: one that numpy has started does not hold them off.
            signal.pthread_kill(threading.get_ident(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)

    runner.during = interrupt
    assert cli.main(["run", "all"]) in (130, 143, 129)
    assert len(runner.requests) == 1
    assert capsys.readouterr().err.startswith("interrupted")
    assert lost == []


def test_what_a_closed_terminal_refuses_while_it_is_taken_down_changes_nothing(
    runner: FakeRunner, capsys: Capture
) -> None:
    def hang_up() -> None:
        try:
            signal.raise_signal(signal.SIGHUP)
        finally:
            raise OSError(errno.EIO, "Input/output error")

    runner.during = hang_up
    assert cli.main(["run", "all"]) == 129
    assert capsys.readouterr().err == "interrupted by SIGHUP\n"


def test_a_hangup_that_is_ignored_stays_ignored(runner: FakeRunner) -> None:
    """As under nohup."""
    runner.during = lambda: signal.raise_signal(signal.SIGHUP)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert cli.main(["run", "bridge"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_reader_that_goes_away_ends_a_run_without_a_word(
    runner: FakeRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The run is broken off where its progress can no longer be shown, past the runner's nets."""
    read, write = os.pipe()
    caught: list[type] = []
    tell = runner.run

    def run(request: Request, *, results: Path, watch: Watch) -> tuple[RunRecord, Path]:
        try:
            return tell(request, results=results, watch=watch)
        except Exception as error:
            caught.append(type(error))
            raise

    monkeypatch.setattr("xlab.experiments.runner.run", run)
    with os.fdopen(write, "w", encoding="utf-8", buffering=1) as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        os.close(read)
        with (tmp_path / "err").open("w", encoding="utf-8") as stderr:
            monkeypatch.setattr("sys.stderr", stderr)
            assert cli.main(["run", "all"]) == 128 + signal.SIGPIPE
    assert (tmp_path / "err").read_text(encoding="utf-8") == ""
    assert len(runner.requests) == 1
    (kind,) = caught
    assert not issubclass(kind, OSError), "the runner takes those for errors of its own"


def test_a_full_disk_behind_stdout_is_an_error_without_a_traceback() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = xlab("list", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == "xlab: No space left on device\n"


def test_a_pipe_nobody_reads_is_no_error_worth_a_word() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = xlab("list", "--json", capture_output=False, stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == ""


def test_closed_streams_are_no_error() -> None:
    def close() -> None:
        os.close(1)
        os.close(2)

    assert xlab("list", capture_output=False, preexec_fn=close).returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("latin-1", marks=pytest.mark.slow)])
def test_any_encoding_of_stdout_will_do(encoding: str) -> None:
    folder = ROOT / "tests" / "data" / "records"
    environment = {"PYTHONIOENCODING": encoding, "COLUMNS": "100"}
    table = xlab("report", str(folder), environment=environment, encoding=encoding)
    assert table.returncode == 0
    assert "+ 3/3" in table.stdout
    assert table.stderr == ""
    data = xlab("report", str(folder), "--json", environment=environment, encoding=encoding)
    assert len(json.loads(data.stdout)) == len(list(folder.glob("*/run.json")))


#: CSI in one character, an override of direction, DEL; of other planes, private, unassigned; half
#: of a character.
ACTING = "\x9b2J \u202e \x7f \U000e0041 \ue000 \u0378 \ud800"


def test_json_on_a_terminal_has_nothing_that_it_obeys(tmp_path: Path) -> None:
    """And says the same as through a pipe or in a file, where all but half characters stay."""
    (sample,) = (ROOT / "tests/data/records").glob("*Z-bridge-failed/run.json")
    data = {**json.loads(sample.read_text(encoding="utf-8")), "reason": f"äß✓\n\x1b {ACTING}"}
    file = tmp_path / "run.json"
    file.write_text(json.dumps(data), encoding="utf-8")
    argv = [sys.executable, "-P", "-m", "xlab", "report", str(file), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    piped = subprocess.run(argv, capture_output=True, check=True, env=environment).stdout.decode()
    with Terminal(argv, folder=tmp_path, environment=environment) as terminal:
        status, seen = terminal.end()
    seen = seen.replace("\r\n", "\n")
    assert status == 0
    assert [c for c in set(seen) if unicodedata.category(c).startswith("C")] == ["\n"]
    assert "äß✓\\n\\u001b \\u009b2J \\u202e \\u007f \\udb40\\udc41 \\ue000 \\u0378" in seen
    assert json.loads(seen) == json.loads(piped)
    assert f"äß✓\\n\\u001b {ACTING[:-1]}\\ud800" in piped

    argv += ["--output", str(tmp_path / "told.json")]
    with Terminal(argv, folder=tmp_path, environment=environment) as terminal:
        assert terminal.end()[0] == 0
    assert (tmp_path / "told.json").read_text(encoding="utf-8") == piped


# --------------------------------------------------------------------------------- other commands


def test_list_shows_every_scenario_with_its_options(capsys: Capture) -> None:
    assert cli.main(["list"]) == 0
    human = capsys.readouterr().out
    assert cli.main(["list", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json_of(capsys)}
    assert list(entries)[:3] == ["baseline", "bridge", "ovs-gre"]
    (routes,) = (o for o in entries["ovs-gre"]["options"] if o["name"] == "routes")
    assert (routes["default"], routes["choices"]) == ("tunnel", ["tunnel", "underlay"])
    assert Path(entries["bridge"]["file"]).is_file()
    for entry in entries.values():
        assert entry["name"] in human
        assert entry["summary"].split()[0] in human
    assert "    --set routes=tunnel|underlay\n" in human
    for name, probe in PROBES.items():
        # In whatever width there is.
        assert f" {name} {probe.about} " in f"{' '.join(human.split())} "


def test_a_probe_that_is_none_is_wrong_usage(capsys: Capture) -> None:
    assert cli.main(["run", "bridge", "--probe", "speed"]) == 2
    assert "--probe speed: no such probe; there are rtt, rr," in capsys.readouterr().err


def test_list_survives_a_broken_scenario_and_says_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios" / "odd.py").write_text("\nimport nowhere_to_be_found\n")
    (tmp_path / "scenarios" / "empty.py").write_text("")
    monkeypatch.setattr(
        "xlab.scenario.catalog.folders", lambda: (tmp_path / "scenarios", tmp_path / "labs")
    )
    assert cli.main(["list"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "odd.py:2: ModuleNotFoundError" in output
    assert cli.main(["list", "--json"]) == 0
    errors = {entry["name"]: entry["error"] for entry in json_of(capsys)}
    assert sorted(errors) == ["empty", "odd"]


def test_report_of_one_record_is_an_object_and_of_several_an_array(capsys: Capture) -> None:
    folder = ROOT / "tests" / "data" / "records"
    one = str(folder / "20250102T090015Z-bridge")
    assert cli.main(["report", one, "--json"]) == 0
    assert json_of(capsys)["scenario"] == "bridge"
    assert cli.main(["report", str(folder), "--json"]) == 0
    assert len(json_of(capsys)) == len(list(folder.glob("*/run.json")))


def test_report_writes_tables_markdown_and_json_to_stdout_or_a_file(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    folder = str(ROOT / "tests" / "data" / "records")
    for option, start in ((None, "kernel datapath"), ("--markdown", "# ✗"), ("--json", "[")):
        arguments = ["report", folder, *([option] if option else [])]
        assert cli.main(arguments) == 0
        output = capsys.readouterr().out
        assert output.startswith(start)
        assert cli.main([*arguments, "--output", "out"]) == 0
        assert capsys.readouterr().out == ""
        assert (tmp_path / "out").read_text(encoding="utf-8") == output
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("name", "start"),
    [("a.html", "<!doctype html>"), ("a.md", "# ✓"), ("a.json", "{"), ("a.txt", "scenario")],
)
def test_the_name_of_its_file_says_what_a_report_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, start: str
) -> None:
    record.save(fake.sample("bridge"), tmp_path / "results" / "a run", {})
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", "results/a run", "--output", name]) == 0
    written = (tmp_path / name).read_text(encoding="utf-8")
    assert written.startswith(start)
    if name in ("a.html", "a.md"):
        assert "results/a%20run/raw/path.pcap" in written


def test_a_run_leaves_a_page_beside_its_record_and_says_where(
    runner: FakeRunner, capsys: Capture, tmp_path: Path
) -> None:
    assert cli.main(["run", "bridge"]) == 0
    (folder,) = (tmp_path / "results").iterdir()
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["raw", "report.html", "report.md", "run.json"]
    assert f"results/{folder.name}/report.html" in capsys.readouterr().out
    assert 'href="raw/path.pcap"' in (folder / "report.html").read_text(encoding="utf-8")


def test_what_was_skipped_gets_no_page(runner: FakeRunner, tmp_path: Path) -> None:
    runner.tells = {"bridge": "ovs-gre-skipped"}
    assert cli.main(["run", "bridge"]) == 3
    (folder,) = (tmp_path / "results").iterdir()
    assert not (folder / "report.html").exists()


def test_all_scenarios_end_with_one_page_in_a_folder_of_its_own(
    runner: FakeRunner, capsys: Capture, tmp_path: Path
) -> None:
    assert cli.main(["run", "all", "--json"]) == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)) == 3
    (page,) = (tmp_path / "results").glob("*-all/report.html")
    assert f"{page.parent.name}/report.html" in captured.err
    assert sorted(path.name for path in page.parent.iterdir()) == ["report.html", "report.md"]
    told = page.read_text(encoding="utf-8")
    for record_folder in ("1-baseline", "2-bridge", "3-ovs-gre"):
        assert f'href="../{record_folder}/run.json"' in told
        assert not (tmp_path / "results" / record_folder / "report.html").exists()
    # The report's folder is none of a record, so `xlab report results/*` passes it over.
    everything = sorted(map(str, (tmp_path / "results").iterdir()))
    assert cli.main(["report", *everything]) == 0
    assert cli.main(["report", str(page.parent)]) == 2
    assert "name the folders of the records" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_leaves_the_record_and_nothing_half_written(
    runner: FakeRunner, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", "report.html")

    monkeypatch.setattr("xlab.report.forms.html.of_results", full)
    for scenario in ("bridge", "all"):
        assert cli.main(["run", scenario]) == 1
        assert "report.html: No space left on device" in capsys.readouterr().err
    results = tmp_path / "results"
    assert len(list(results.glob("*/run.json"))) == 4
    assert not list(results.glob(".*"))
    assert not list(results.glob("*-all"))


def test_report_that_cannot_be_written_leaves_nothing(capsys: Capture, tmp_path: Path) -> None:
    folder = str(ROOT / "tests" / "data" / "records")
    (tmp_path / "out").mkdir()
    assert cli.main(["report", folder, "--output", str(tmp_path / "out")]) == 1
    assert "Is a directory" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_of_all_that_lies_in_results_report_passes_over_what_is_none(
    capsys: Capture, tmp_path: Path
) -> None:
    """As the README has it: xlab report results/*"""
    record.save(fake.sample("bridge"), tmp_path / "bridge", {})
    (tmp_path / "baseline").mkdir()
    (tmp_path / "baseline" / "quick.json").write_text("{}", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("what I did", encoding="utf-8")
    (tmp_path / "quick.json").write_text('{"ratios": []}', encoding="utf-8")
    bridge, *others = (str(tmp_path / name) for name in ("bridge", *NO_RESULTS))
    assert cli.main(["report", *others, bridge, "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["scenario"] == "bridge"
    assert told.err == "".join(f"xlab: {other}: no result, passed over\n" for other in others)
    # Alone, or with no result beside it, each is an error.
    for named in ([others[0]], others):
        assert cli.main(["report", *named]) == 2
        assert "no run.json" in capsys.readouterr().err
    assert cli.main(["report", bridge, str(tmp_path / "nowhere")]) == 2
    assert "nowhere: No such file" in capsys.readouterr().err


NO_RESULTS = ("baseline", "notes.txt", "quick.json")


def test_report_names_corrupt_records_shows_the_others_and_ends_with_2(
    capsys: Capture, tmp_path: Path
) -> None:
    record.save(fake.sample("bridge"), tmp_path / "a", {})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run.json").write_text("{", encoding="utf-8")
    assert cli.main(["report", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"xlab: {tmp_path}/b/run.json:1:2: not JSON")
    assert "13.3 Gbit/s" in captured.out


SOUND = Finding("labs", True, "run as root")
LIMITED = Finding("Open vSwitch", None, "in user space", "sudo modprobe openvswitch", "ovs-gre")
LACKING = Finding("iperf3", False, "not installed", "sudo apt-get install iperf3", "every scenario")


@pytest.mark.parametrize(
    ("found", "status", "last"),
    [
        ([SOUND], 0, "Every scenario runs here."),
        ([SOUND, LIMITED], 0, "Every scenario runs here; ! marks what runs with a limit."),
        ([SOUND, LIMITED, LACKING], 3, "Not possible here: every scenario"),
    ],
)
def test_doctor_says_what_is_possible_and_gives_lines_to_paste(
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    found: list[Finding],
    status: int,
    last: str,
) -> None:
    monkeypatch.setattr("xlab.cli._findings.findings", lambda: found)
    assert cli.main(["doctor"]) == status
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[-1] == last
    for finding in found:
        assert any(finding.name in line and finding.detail in line for line in lines)
        assert not finding.remedy or finding.remedy in lines
    assert cli.main(["doctor", "--json"]) == status
    assert json_of(capsys) == [dataclasses.asdict(finding) for finding in found]


def test_doctor_examines_this_machine(capsys: Capture) -> None:
    status = cli.main(["doctor", "--json"])
    found = {entry["name"]: entry["ok"] for entry in json_of(capsys)}
    assert "labs" in found
    assert status == (3 if False in found.values() else 0)


def test_version(capsys: Capture) -> None:
    import xlab as package

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"xlab {package.__version__}\n"


def test_what_is_to_be_pasted_begins_with_what_leads_to_an_installed_program(
    tmp_path: Path,
) -> None:
    program = tmp_path / "its place" / "xlab"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom xlab.cli._app import COMMAND\nprint(COMMAND)\n")
    program.chmod(0o755)

    def told(path: str, **more: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, **more}
        return subprocess.run(
            [program], env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert told(os.defpath) == f"'{program}'"
    assert told(f"{program.parent}:{os.defpath}") == "xlab"
    assert told(os.defpath, XLAB_COMMAND="bin/xlab") == "bin/xlab"


def test_completion_for_the_calling_shell_is_shown() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m xlab --show-completion; exit $?"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_XLAB_COMPLETE=complete_bash" in done.stdout


def test_scenarios_are_completed() -> None:
    environment = {
        "_XLAB_COMPLETE": "complete_bash",
        "COMP_WORDS": "xlab run b",
        "COMP_CWORD": "2",
    }
    done = xlab(environment=environment)
    assert done.returncode == 0
    assert done.stdout.split() == ["baseline", "bridge"]


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]], ids=str)
def test_help_imports_nothing_that_takes_time(arguments: list[str]) -> None:
    """A bound on `xlab --help` that does not depend on how busy the machine is."""
    imported = imported_by(arguments, status=0)
    assert slow_among(imported) == set()
    ours = {name for name in imported if name.startswith("xlab")}
    # What only `graph` and `report` offer is not asked for by `run`.
    others = set() if arguments[0] == "run" else {"xlab.report", "xlab.report.forms"}
    assert {name for name in ours if not name.startswith("xlab.cli.")} == others | {
        "xlab",
        "xlab.cli",
        "xlab.errors",
        "xlab.faults",
        "xlab.faults.kinds",
        "xlab.kernel",
        "xlab.kernel.signals",
        "xlab.lab",
        "xlab.lab.limits",
        "xlab.record",
        "xlab.record.version",
        "xlab.scenario",
        "xlab.scenario.request",
    }


@pytest.mark.parametrize(
    "arguments",
    [
        "exec --name nobody h1 -- true",
        "shell --name nobody h1",
        "capture --name nobody h1:any",
        "status nobody",
    ],
)
def test_who_only_asks_a_lab_imports_nothing_that_builds_one(arguments: str) -> None:
    """What is typed again and again: 0.2 s of a processor to start, where it took 0.4."""
    imported = imported_by(arguments.split(), status=2)
    other_commands = {f"xlab.cli.{name}" for name in _app.commands()} - {
        f"xlab.cli.{arguments.split(maxsplit=1)[0]}"
    }
    assert other_commands & imported == set()
    if not arguments.startswith("status"):
        assert {"xlab.record.record", "xlab.report.prose"} & imported == set()
    assert "xlab.sandbox.registry" in imported
    assert slow_among(imported) <= {"rich"}
    assert {"xlab.scenario.blueprint", "xlab.experiments.runner"} & imported == set()


def imported_by(arguments: list[str], *, status: int) -> set[str]:
    program = (
        "import sys; from xlab.cli import main; status = main(sys.argv[1:]);"
        "print(*sys.modules, file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return set(done.stderr.split())


def slow_among(modules: set[str]) -> set[str]:
    slow = {"asyncio", "matplotlib", "mininet", "numpy", "pydantic", "pyroute2", "rich"}
    return {name.partition(".")[0] for name in modules} & slow


def test_intervals_are_computed_without_starting_threads(tmp_path: Path) -> None:
    """The next sandbox is forked from this process; numpy's BLAS starts threads unless told."""
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.support import fake_run; fake_run.main()\n"
        "assert 'numpy' in sys.modules\n"
        "print(Path('/proc/self/status').read_text().split('Threads:')[1].split()[0])"
    )
    environment = {name: value for name, value in os.environ.items() if "THREADS" not in name}
    done = subprocess.run(
        [sys.executable, "-c", program, "--fast", "run", "bridge"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == "1"


@pytest.mark.parametrize("words", [["run", "nosuch"], ["run", "--hsots"], ["list"]])
def test_words_stay_whole_on_a_narrow_terminal(words: list[str], tmp_path: Path) -> None:
    argv = [sys.executable, "-P", "-m", "xlab", *words]
    told = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path)
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    with Terminal(argv, folder=tmp_path, environment=environment, size=(24, 60)) as terminal:
        status, seen = terminal.end()
    assert status == told.returncode
    lines = seen.splitlines()
    assert len(lines) > 1
    # Only what is longer than a line is longer, and all words are there.
    assert not [line for line in lines if len(line) > 60 and len(line.split()) > 2]
    assert seen.split() == (told.stderr or told.stdout).split()


def test_grades_are_told_on_a_terminal_one_by_one(tmp_path: Path) -> None:
    """And the line that moves keeps none of them waiting, as it did the second."""
    for name in ("anna", "ben", "carl"):
        (tmp_path / f"{name}-01-namespaces-by-hand.tar.gz").touch()
    argv = [sys.executable, "-P", "-m", "xlab", "lab", "grade", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": ""}
    with Terminal(argv, folder=tmp_path, environment=environment, term="xterm") as terminal:
        for name in ("anna", "ben", "carl"):
            terminal.expect(f"{name}, 01: refused: it is no archive")
        status, said = terminal.end()
    assert (status, "3 refused" in said) == (0, True)
