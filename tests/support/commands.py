"""bin/xlab as a person starts it, seen from outside.

with Command("run", "bridge", "--quick", folder=tmp_path) as command:
    wait_until(command.measures, ...)
    kill(command.daemon("ovs-vswitchd"))
    assert command.end().status == 1
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.labs import PATIENCE_S, ROOT, Marked, all_pids, but_for_waiting, comm_of
from xlab.kernel.processes import wait_until
from xlab.record import record

#: Programs that generate what is measured.
_METERS = ("iperf3", "netperf", "netserver")


@dataclass(frozen=True, slots=True)
class Ended:
    #: Minus the signal's number where one killed it.
    status: int
    stdout: str
    stderr: str


class Command(Marked):
    """One command in a folder and a session of its own; what it prints goes to files."""

    def __init__(
        self,
        *arguments: str,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        program: Sequence[str] = (str(ROOT / "bin" / "xlab"),),
        stdin: int = subprocess.DEVNULL,
        stdout: int | None = None,
    ) -> None:
        """Start it; `prefix` is what starts it in turn, `stdout` where to write in place of a file.

        Temporary files go to a folder of its own, `temporary`.
        """
        super().__init__()
        self.folder = folder
        self.arguments = arguments
        self.temporary = folder / f"tmp-{self.mark[-8:]}"
        self.temporary.mkdir(parents=True)
        self._printed = {name: folder / f"{self.mark[-8:]}.{name}" for name in ("out", "err")}
        with self._printed["out"].open("wb") as out, self._printed["err"].open("wb") as err:
            self._process = subprocess.Popen(
                [*prefix, *program, *arguments],
                cwd=folder,
                env={
                    **self.environment(),
                    "TMPDIR": str(self.temporary),
                    "COLUMNS": "100",
                    **(environment or {}),
                },
                stdin=stdin,
                stdout=out if stdout is None else stdout,
                stderr=err,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def ended(self) -> bool:
        return self._process.poll() is not None

    def end(self, patience_s: float = PATIENCE_S) -> Ended:
        """Wait for its end."""
        status = self._process.wait(patience_s)
        return Ended(status, self.printed(), but_for_waiting(self.complaints()))

    def printed(self) -> str:
        """What it has written to standard output so far."""
        return self._printed["out"].read_text(errors="replace")

    def complaints(self) -> str:
        """What it has written to standard error so far."""
        return self._printed["err"].read_text(errors="replace")

    def signal(self, number: int) -> None:
        """To the command and to what it started in the foreground, as a terminal sends it."""
        os.killpg(self.pid, number)

    def measures(self) -> bool:
        """Whether traffic is being measured just now."""
        return any(comm_of(pid) in _METERS for pid in self.processes())

    def await_alone(self) -> None:
        """Wait until no process of it is left."""
        wait_until(
            lambda: not self.processes(),
            timeout_s=PATIENCE_S,
            awaited="the end of every process of the command",
        )


def whole_records(results: Path) -> list[record.RunRecord]:
    """The records in a folder of results; fails if anything visible there is not whole."""
    records = []
    for folder in sorted(results.iterdir()) if results.exists() else []:
        if folder.name.startswith(".partial-"):
            continue
        page = folder / "report.html"
        assert not page.exists() or page.read_text().rstrip().endswith("</html>"), page
        if folder.name.endswith("-all") or "-all-" in folder.name:
            assert page.exists(), folder
            continue
        records.append(record.load(folder))
        assert (folder / "raw").is_dir()
    return records


def started_at(pid: int) -> str:
    """When a process was started: with its number this names it for good (proc(5), field 22)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    return stat.rpartition(") ")[2].split()[19]


def still_there(processes: Mapping[int, str]) -> list[int]:
    """Those of some processes, by number and start, that have not ended."""
    return [pid for pid in all_pids() if pid in processes and started_at(pid) == processes[pid]]


# -- what a command is started in ------------------------------------------------------------------

#: Without what mountinfo has of it: the number of an ordinary user, which is none in here.
REMOUNT = "mount --options-mode ignore -o remount"


def in_private(script: str, *more: str) -> list[str]:
    """Starts a command by a shell's script, in a mount namespace of its own, and `more` of them."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    namespaces = [*user, *more, "--mount", "--propagation", "private"]
    return ["unshare", *namespaces, "sh", "-c", script, "sh"]


def on_a_disk(option: str, *more: str, meanwhile: str = ":", then: str = ":") -> list[str]:
    """Starts a command in a mount namespace of its own, in which ./disk is a small one.

    The shell commands `meanwhile` and `then` see it, too, as nobody does from outside.
    """
    return in_private(
        f"mkdir -p disk && mount -t tmpfs -o {option} small disk || exit 99\n"
        f"( {meanwhile} ) & "
        f'"$@"; status=$?; {then}; exit $status',
        *more,
    )
