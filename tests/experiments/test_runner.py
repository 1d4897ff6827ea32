"""The runner from outside: what it refuses, what it skips, what becomes of a run in the record."""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from tests.support.fake_machine import CLAIM, PATH, PROOF, machine_with
from xlab.errors import CapabilityError, DaemonError, SandboxError, UsageError, XlabError
from xlab.experiments import runner
from xlab.kernel import capabilities, programs
from xlab.kernel.capabilities import Machine
from xlab.kernel.drivers import State
from xlab.record import record
from xlab.record.record import Node, RunRecord
from xlab.sandbox import controller, sandbox
from xlab.scenario.request import Request

Event = Mapping[str, Any]
Story = Callable[[Callable[[Event], None]], None]

NODE = Node("h1", "host", "10.211.55.3", {"eth0": "10.211.55.3/24"})


def telling(*events: Event) -> Story:
    def story(tell: Callable[[Event], None]) -> None:
        for event in events:
            tell(event)

    return story


class World:
    """A runner whose sandbox is a story: it tells events, and returns or raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, results: Path) -> None:
        self.results = results
        self.watched: list[Event] = []
        self.launched = 0
        self.asked: list[tuple[str, Any]] = []
        self.story: Story = telling(CLAIM, PATH)
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(sandbox, "launch", self._launch)
        monkeypatch.setattr(controller, "Client", self._client)
        self.has(machine_with())

    def has(self, machine: Machine) -> None:
        self._monkeypatch.setattr(capabilities, "probe", lambda: machine)

    def run(self, scenario: str = "baseline", **asked: Any) -> RunRecord:
        request = Request(scenario, **asked)
        found, self.folder = runner.run(request, results=self.results, watch=self.watched.append)
        assert record.load(self.folder) == found
        return found

    def _launch(self, *_: object, **__: object) -> _Lab:
        self.launched += 1
        return _Lab()

    def _client(self, _: object) -> SimpleNamespace:
        def call(verb: str, arguments: Any, watch: Callable[[Event], None]) -> dict[str, Any]:
            self.asked.append((verb, arguments))
            if verb == "measure":
                return {"raw": {}}
            self.story(watch)
            raw = {"ping.txt": base64.b64encode(b"64 bytes from").decode()}
            return {
                "timings": {"build": 0.25, "verify": 0.5},
                "conditions": {},
                "nodes": [dataclasses.asdict(NODE)],
                "raw": raw,
            }

        return SimpleNamespace(call=call, close=lambda: None)


class _Lab:
    channel = object()
    started_s = 0.125

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> float:
        return 0.0625


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    return World(monkeypatch, tmp_path / "results")


# -- a run that goes well --------------------------------------------------------------------------


def test_what_was_told_becomes_the_record(world: World) -> None:
    found = world.run(hosts=3, containers=1)
    assert (found.scenario, found.status, found.reason) == ("baseline", "passed", "")
    assert [claim.id for claim in found.claims] == ["h1-reaches-h2"]
    assert found.path == PROOF
    assert found.nodes == (NODE,)
    timings = found.timings_s
    assert (timings.sandbox, timings.build, timings.teardown) == (0.125, 0.25, 0.0625)
    assert timings.total > 0
    assert (found.parameters["hosts"], found.parameters["containers"]) == (3, 1)
    assert (world.folder / "raw" / "ping.txt").read_bytes() == b"64 bytes from"


def test_the_watcher_hears_all_of_it_in_order(world: World) -> None:
    world.run()
    kinds = [event["kind"] for event in world.watched]
    assert kinds == ["started", "claim", "path", "phase", "phase"]
    assert [event["phase"] for event in world.watched[-2:]] == ["measure", "teardown"]
    started = world.watched[0]
    assert (started["scenario"], started["hosts"], started["datapath"]) == (
        "baseline", 2, "linux bridge"
    )  # fmt: skip


def test_a_topology_decides_how_many_hosts_there_are(world: World) -> None:
    assert world.run(topo="tree,2,3", hosts=2).parameters["hosts"] == 9


def test_settings_are_recorded_with_their_defaults(world: World) -> None:
    found = world.run("bridge", settings={"docker": "28"})
    assert found.parameters["settings"]["docker"] == "28"
    assert found.parameters["settings"]["fixed-cidr"] == "divided"


def test_records_of_the_same_second_lie_side_by_side(world: World) -> None:
    folders = set()
    for _ in range(3):
        world.run()
        folders.add(world.folder)
    assert len(folders) == 3
    assert sorted(world.results.iterdir()) == sorted(folders)


def test_a_name_that_is_taken_at_the_last_moment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run of the same second has just written its record under the name that was free."""
    save = record.save
    taken: list[Path] = []

    def save_after_another(finished: RunRecord, folder: Path, raw: dict[str, bytes]) -> None:
        if not taken:
            taken.append(folder)
            save(finished, folder, {})
        save(finished, folder, raw)

    monkeypatch.setattr(record, "save", save_after_another)
    world.run()
    assert world.folder not in taken
    assert sorted(world.results.iterdir()) == sorted([*taken, world.folder])


def test_the_record_is_json_that_names_its_version(world: World) -> None:
    world.run()
    data = json.loads((world.folder / "run.json").read_text())
    assert next(iter(data)) == "schema_version"


# -- a run that fails ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([{**CLAIM, "holds": False, "observed": "no\nanswer"}, PATH],
         "“h1 reaches h2” (hosts) does not hold: expected a reply, observed no answer"),
        ([{**CLAIM, "holds": False}, {**CLAIM, "holds": False, "id": "2"}, CLAIM, PATH],
         "observed a reply (2 of 3 claims do not hold)"),
        ([{**CLAIM, "holds": False, "observed": "x" * 5000}, PATH], "observed " + "x" * 119 + "…"),
        ([CLAIM], "the path is not proved: it was not tried"),
        ([CLAIM, {**PATH, "proved": False}],
         "the path is not proved: expected 20 packets on the wire as plain, observed 20"),
        ([CLAIM, {**PATH, "negative_control": False, "control_detail": "goes on"}],
         "the negative control failed (goes on)"),
        ([], "the path is not proved"),
    ],
    ids=["claim", "claims", "long", "no path", "not proved", "control", "nothing"],
)  # fmt: skip
def test_what_does_not_hold_is_the_reason(world: World, events: list[Event], reason: str) -> None:
    world.story = telling(*events)
    found = world.run()
    assert found.status == "failed"
    assert reason in found.reason


@pytest.mark.parametrize(
    "error",
    [
        XlabError("h1: broken"),
        SandboxError("the lab's controller is gone"),
        DaemonError("ovs-vswitchd", node="h1", reason="has ended", log_tail="last words"),
    ],
)
def test_what_was_seen_before_it_broke_is_kept(world: World, error: XlabError) -> None:
    def story(tell: Callable[[Event], None]) -> None:
        tell(CLAIM)
        raise error

    world.story = story
    found = world.run()
    assert (found.status, found.reason) == ("failed", str(error))
    assert [claim.id for claim in found.claims] == ["h1-reaches-h2"]
    assert str(error) in (world.folder / "raw" / "error.txt").read_text()


def test_notes_become_events_of_the_record(world: World) -> None:
    world.story = telling({"kind": "note", "text": "a fallback"}, PATH)
    assert [(e.kind, e.detail) for e in world.run().events] == [("note", "a fallback")]


def test_what_the_kernel_took_beforehand_is_on_record(world: World) -> None:
    world.has(dataclasses.replace(machine_with(), waited_s=17.2))
    assert [e.kind for e in world.run().events if "waited 17 s for the kernel" in e.detail] == [
        "note"
    ]


def test_an_interrupt_passes_through_and_writes_nothing(world: World) -> None:
    def story(_: Callable[[Event], None]) -> None:
        raise KeyboardInterrupt

    world.story = story
    with pytest.raises(KeyboardInterrupt):
        world.run()
    assert list(world.results.iterdir()) == []


# -- what this machine can't -----------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["namespaces", "veth", "bridge"])
def test_without_what_every_lab_needs_it_is_skipped(world: World, missing: str) -> None:
    world.has(machine_with(**{missing: State.NO}))
    found = world.run()
    assert found.status == "skipped"
    assert found.reason == f"{missing}: {missing} is no; apt-get install it"
    assert world.launched == 0


def test_a_capability_that_turns_out_missing_inside(world: World) -> None:
    def story(_: Callable[[Event], None]) -> None:
        raise CapabilityError("`iperf3` is not installed", "apt-get install iperf3")

    world.story = story
    found = world.run()
    assert (found.status, found.reason) == (
        "skipped", "`iperf3` is not installed; apt-get install iperf3"
    )  # fmt: skip


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tool is there; asked for their versions, all say the same."""
    monkeypatch.setattr(programs, "locate", lambda _: shutil.which("true"))


@pytest.mark.parametrize(
    ("states", "datapath"),
    [
        ({}, "ovs kernel"),
        ({"ovs_datapath": State.NO}, "ovs userspace"),
        # Loading a module would change the machine.
        ({"ovs_datapath": State.LOADABLE}, "ovs userspace"),
        ({"ovs_gre": State.NO}, "ovs userspace"),
    ],
)
def test_which_datapath_open_vswitch_gets(
    world: World, installed: None, states: dict[str, State], datapath: str
) -> None:
    world.has(machine_with(**states))
    world.run("ovs-gre")
    assert world.watched[0]["datapath"] == datapath


def test_a_fallback_to_userspace_is_told(world: World, installed: None) -> None:
    world.has(machine_with(ovs_datapath=State.NO))
    found = world.run("ovs-gre")
    assert "Open vSwitch runs in user space: ovs_datapath is no" in [e.detail for e in found.events]


def test_without_any_datapath_it_is_skipped_with_the_remedy(world: World, installed: None) -> None:
    world.has(machine_with(ovs_datapath=State.NO, tun=State.NO))
    found = world.run("ovs-gre")
    assert found.status == "skipped"
    assert "ovs_datapath is no" in found.reason
    assert "tun is no; apt-get install it" in found.reason
    assert world.run("bridge").status == "passed"


def test_without_the_daemons_it_is_skipped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "locate", lambda _: None)
    found = world.run("ovs-gre")
    assert (found.status, world.launched) == ("skipped", 0)
    needed = "sudo apt-get install openvswitch-switch"
    assert found.reason == f"`ovs-vswitchd` is not installed; {needed}"


# -- what makes no sense is refused before anything exists -----------------------------------------


@pytest.mark.parametrize(
    ("scenario", "asked"),
    [
        ("bridges", {}),
        ("bridge", {"settings": {"fixed": "1"}}),
        ("bridge", {"settings": {"docker": "27"}}),
        ("bridge", {"settings": {"fixed-cidr": "notes"}, "hosts": 3}),
        ("bridge", {"hosts": 1000, "containers": 1000}),
        ("ovs-gre", {"containers": 254}),
        ("baseline", {"topo": "torus,3,3"}),
        ("baseline", {"topo": "no/such.py:Mine"}),
    ],
)
def test_nonsense_leaves_no_trace(world: World, scenario: str, asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        world.run(scenario, **asked)
    assert world.launched == 0
    assert not world.results.exists()
    assert world.watched == []


def test_results_that_cannot_be_written(world: World, tmp_path: Path) -> None:
    world.results = tmp_path / "file"
    world.results.write_text("in the way")
    with pytest.raises(OSError, match=r"exists|Not a directory"):
        world.run()
    assert world.launched == 0


def test_half_written_results_of_the_dead_are_swept(world: World) -> None:
    dead, alive = world.results / ".partial-999999999-x", world.results / ".partial-1-x"
    for folder in (dead, alive):
        folder.mkdir(parents=True)
    world.run()
    assert not dead.exists()
    assert alive.exists()


def test_a_table_of_neighbours_that_was_full_meanwhile_is_on_record(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = iter([5, 12])
    monkeypatch.setattr("xlab.kernel.limits.neighbour_overflows", lambda: next(counted))
    found = world.run("bridge")
    (noted,) = [event.detail for event in found.events if "neighbours (ARP)" in event.detail]
    assert "was full 7 times meanwhile" in noted
