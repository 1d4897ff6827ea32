"""A new kind of fault is one class: typed, in help and completion, done, mended, and expected."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xlab.errors import UsageError
from xlab.faults import kinds
from xlab.faults.expectation import Broken, Topology
from xlab.faults.faults import Faults
from xlab.faults.kinds import Fault
from xlab.lab import underlay
from xlab.lab.lab import Host, Lab
from xlab.record.record import Event

ROOT = Path(__file__).parents[2]


def new_kind() -> type[Fault]:
    """The one class; from now on it is known."""

    @dataclass(frozen=True)
    class Mute(Fault):
        """A host whose eth0 is down."""

        host: str

        order, cure_order = "mute {host}", "unmute {host}"
        grammar = ("mute HOST", "unmute HOST")
        example = "mute h1, unmute h1"
        shakes = 9

        def found(self, topology: Topology) -> Fault:
            return Mute(kinds.one_of(self.host, topology.hosts, "host"))

        @classmethod
        def of_host(cls, host: Host) -> dict[str, Fault]:
            return {"mute_recovery_s": cls(host.name)}

        def apply(self, lab: Lab) -> None:
            lab.host_of(self.host).set_down("eth0")

        def mend(self, lab: Lab) -> None:
            lab.host_of(self.host).set_up("eth0")

        def add_to(self, broken: Broken) -> None:
            broken.links.add(self.host)

    return Mute


@pytest.fixture
def mute(monkeypatch: pytest.MonkeyPatch) -> type[Fault]:
    monkeypatch.setattr(Fault, "kinds", list(Fault.kinds))
    return new_kind()


class Stands:
    """In the place of a lab: hosts that note what is done to them."""

    def __init__(self) -> None:
        self.did: list[tuple[str, str]] = []
        self.underlay = underlay.describe("single,3", hosts=3)
        self.hosts = [self._node(name) for name in self.underlay.hosts]
        self.gateway, self.containers, self.ovs_datapath = self._node("gw"), (), None

    def _node(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(
            name=name, address=f"address of {name}", is_on=True, daemons=dict,
            weave=SimpleNamespace(exposed=[]),
            set_down=lambda device: self.did.append((name, f"{device} down")),
            set_up=lambda device: self.did.append((name, f"{device} up")),
        )  # fmt: skip

    def host_of(self, name: str) -> SimpleNamespace:
        return next(host for host in self.hosts if host.name == name)


def test_a_new_fault_is_done_and_mended_and_known_for_what_it_does(mute: type[Fault]) -> None:
    lab: Any = Stands()
    told: list[Event] = []
    faults = Faults(lab, None, tell=told.append)
    a_mute = mute.of_host(lab.hosts[1])["mute_recovery_s"]
    assert a_mute in faults.possible()

    faults.do("mute h2")
    assert faults.in_force == [a_mute]
    assert a_mute not in faults.possible()
    reached = faults.expected()
    assert (reached["h1", "h2"], reached["h2", "gw"], reached["h1", "h3"]) == (False, False, True)
    with pytest.raises(UsageError, match="`mute h2` is in force already"):
        faults.do("mute h2")

    faults.do(a_mute.cure)
    assert faults.in_force == []
    assert all(faults.expected().values())
    assert lab.did == [("h2", "eth0 down"), ("h2", "eth0 up")]
    assert [(event.kind, event.detail) for event in told] == [
        ("fault", "mute h2"), ("recovery", "unmute h2")
    ]  # fmt: skip


def test_a_new_fault_is_read_told_of_and_timed(mute: type[Fault]) -> None:
    lab: Any = Stands()
    faults = Faults(lab, None)
    assert kinds.grammar()[-2:] == ["mute HOST", "unmute HOST"]
    with pytest.raises(UsageError, match="no host 'h9'; there is: h1, h2, h3"):
        faults.do("mute h9")
    with pytest.raises(UsageError, match="'mute' is no fault; it is `mute HOST`"):
        faults.do("mute")
    with pytest.raises(UsageError, match=r"'deaf' is no fault; faults are: .*, mute HOST, unmute"):
        faults.do("deaf")
    # The recovery probe takes what can befall a host; the most shaking comes last.
    timed = kinds.of_host(lab.hosts[0])
    assert list(timed)[-1] == "mute_recovery_s"
    assert str(timed["mute_recovery_s"]) == "mute h1"


@pytest.mark.parametrize(
    ("arguments", "typed", "said"),
    [
        (["fault", "--help"], "", "mute h1, unmute h1."),
        ([], "xlab fault m", "mute"),
        ([], "xlab fault un", "unmute"),
    ],
)
def test_a_new_fault_is_in_help_and_completion(arguments: list[str], typed: str, said: str) -> None:
    program = (
        "import sys; from tests.house.test_one_place_fault import new_kind; new_kind();"
        "from xlab.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    completing = {
        "_XLAB_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(typed.count(" ")),
    }
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(completing if typed else {})},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    shown = " ".join(done.stdout.split())
    assert shown == said if typed else said in shown


def test_what_refines_a_kind_is_not_another(mute: type[Fault]) -> None:
    """Both would bear the same words, and be in force side by side."""
    before = list(Fault.kinds)
    type("Muter", (mute,), {})
    assert Fault.kinds == before
