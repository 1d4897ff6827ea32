"""Faults in small labs: what dies, what is there again, what is refused, and how long it takes."""

from __future__ import annotations

import errno
import os
import threading
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from tests.support import snapshot
from tests.support.descriptors import room_for
from tests.support.labs import all_pids, machine, sandboxed
from xlab.errors import DeadlineError, DockerError, UsageError, XlabError
from xlab.faults.faults import Faults
from xlab.faults.kinds import DaemonKill, HostCrash, LinkDown, Partition
from xlab.faults.recovery import measure_recovery
from xlab.kernel.processes import Process
from xlab.lab import underlay
from xlab.lab.capture import Capture
from xlab.lab.conditions import LinkConditions
from xlab.lab.docker import Container, DaemonOptions
from xlab.lab.imposers.chooser import choose
from xlab.lab.lab import Conditioned, Host, Lab
from xlab.lab.ovs import Datapath
from xlab.probes.parse import parse_ping
from xlab.record.record import Event
from xlab.scenario.scenario import Flow

ARP = b"\x08\x06"


class Story:
    """Hosts whose containers are ports of the hosts' own segment, as in the scenario bridge."""

    def __init__(
        self, spec: str = "single,3", *, ovs: Datapath | None = None, **wanted: float
    ) -> None:
        described = underlay.describe(spec, hosts=2)
        conditions = {}
        if wanted:
            asked = LinkConditions(**wanted)  # type: ignore[arg-type]
            own = Conditioned(asked, choose(asked, machine()))
            conditions = {described.uplink_of("h1").a.interface: own}
        self.lab = Lab(described, ovs=ovs, conditions=conditions)
        self.lab.give_addresses(IPv4Network("10.0.0.0/24"), first=1, gateway=254)
        self.h1, self.h2 = self.lab.hosts[0], self.lab.hosts[1]
        if not ovs:
            for host in self.lab.hosts:
                self.set_up(host)
                host.docker.run("c1")
        self.told: list[Event] = []
        flow = Flow(
            source=self.h1,
            target=self.h2,
            control=(self.h1, self.h2),
            encapsulation="none",
            watched=self.h1,
            cut=lambda: None,
            heal=lambda: None,
            cut_text="",
            after_boot=self.after_boot if not ovs else lambda _: None,
        )
        self.faults = Faults(self.lab, flow, tell=self.told.append)
        self.faults.await_expected()

    def set_up(self, host: Host) -> None:
        address = f"{host.address}/24"
        host.add_bridge("br0", mac=host.mac_address("eth0"))
        host.delete_address("eth0", address)
        host.add_to_bridge("br0", "eth0")
        host.add_address("br0", address)
        host.docker.start(DaemonOptions("br0", fixed_cidr=f"10.0.0.{32 * host.number}/27"))

    def after_boot(self, host: Host) -> None:
        self.set_up(host)
        host.docker.start_all()


# -- hosts -----------------------------------------------------------------------------------------


@sandboxed
def test_a_crash_takes_everything_and_a_reboot_brings_it_back() -> None:
    story = Story()
    c1 = story.h1.containers[0]
    port = story.lab.switch_port(story.h1)
    daemons = [node.spawn(["sleep", "1000"]) for node in (story.h1, c1)]
    before, address = snapshot.take(story.lab), c1.address

    story.faults.do("crash h1")
    assert [daemon.poll() for daemon in daemons] == [-9, -9]
    assert not any(Path(f"/proc/{pid}/comm").read_text() == "sleep\n" for pid in all_pids())
    assert story.h1.containers == []
    with pytest.raises(XlabError, match="h1 is down"):
        story.h1.run(["true"])
    with pytest.raises(XlabError, match="h1 is down"):
        story.h1.configure(["true"])
    with pytest.raises(XlabError, match="h1 is down, and its containers with it"):
        c1.run(["true"])
    with pytest.raises(DockerError, match="Is the docker daemon running"):
        story.h1.docker.start_container(c1)
    # The cable is still in the switch.
    (shown,) = [
        line for line in story.lab.wire.configure(["ip", "-o", "link"]).stdout.splitlines()
        if f" {port}" in line
    ]  # fmt: skip
    assert "NO-CARRIER" in shown
    story.faults.await_expected()

    story.faults.do("reboot h1")
    story.faults.await_expected()
    assert story.h1.containers == [c1]
    assert c1.address == address
    assert snapshot.differences(before, snapshot.take(story.lab)) == []
    assert [(event.kind, event.detail) for event in story.told] == [
        ("fault", "crash h1"), ("recovery", "reboot h1")
    ]  # fmt: skip


@sandboxed
def test_a_cable_keeps_its_conditions() -> None:
    require_slow_through_faults(Story("single,2", delay_ms=20), "crash h1")


@pytest.mark.skipif(not machine().tun.usable, reason=machine().tun.detail)
@pytest.mark.usefixtures("open_vswitch")
@sandboxed
def test_the_uplink_of_the_userspace_datapath_keeps_its_conditions() -> None:
    """It is a TAP device, and moves into the host when ovs-vswitchd starts."""
    story = Story("single,2", ovs="userspace", delay_ms=20)
    require_slow_through_faults(story, "crash h1", "kill h1 ovs-vswitchd")


def require_slow_through_faults(story: Story, *faults: str) -> None:
    def assert_slow() -> None:
        story.faults.await_expected()
        ping = story.h1.run(["ping", "-n", "-c3", "-i0.01", str(story.h2.address)], check=False)
        assert (parse_ping(ping.stdout).mean_ms or 0) >= 40, ping.stdout

    assert_slow()
    for fault in faults:
        story.faults.do(fault)
        story.faults.do("link h1 down")
        story.faults.do("partition h1 | h2")
        story.faults.mend(story.faults.in_force[0])
        # What is still broken is not mended by that.
        story.faults.await_expected()
        story.faults.mend_all()
        assert_slow()


@sandboxed
def test_the_end_of_an_earlier_life_does_not_stop_a_container() -> None:
    """A thread waits for its main process, and may hear of its end when the next one runs."""
    story = Story("single,2")
    container = story.h1.docker.run("main", command=["sleep", "1000"])
    runs_again, heard = threading.Event(), threading.Event()
    at_exit = container.on_exit

    def late(of: Container, process: Process) -> None:
        runs_again.wait()
        at_exit(of, process)
        heard.set()

    container.on_exit = late
    story.h1.docker.restart(container)
    runs_again.set()
    assert heard.wait(30)
    assert story.h1.docker.names() == ["c1", "main"]
    # The end of this life does.
    heard.clear()
    container.kill_all()
    assert heard.wait(30)
    assert story.h1.docker.names() == ["c1"]


def fails_once(where: Any, name: str) -> None:
    """The next call of a method meets EMFILE, wherever it stands in what calls it."""

    def refused(*_: Any, **__: Any) -> None:
        delattr(where, name)
        raise OSError(errno.EMFILE, "Too many open files")

    setattr(where, name, refused)


@pytest.mark.parametrize(
    ("where", "name"),
    [("h1", "boot"), ("lab", "_give_address"), ("lab", "after_boot"), ("lab", "_plug_in_anew")],
)
@sandboxed
def test_a_reboot_that_fails_can_be_ordered_again(where: str, name: str) -> None:
    story = Story("single,2", delay_ms=5)
    before = snapshot.take(story.lab)
    story.faults.do("crash h1")
    if name == "_plug_in_anew":
        story.lab.wire.rtnl.remove_link("loose1")
    at = story.h1 if where == "h1" else story.lab
    kept = at.__dict__.get(name)
    fails_once(at, name)
    with pytest.raises(OSError, match="Too many open files"):
        story.faults.do("reboot h1")
    if kept is not None:
        setattr(at, name, kept)
    assert story.faults.in_force == [HostCrash("h1")]
    with pytest.raises(UsageError, match="`crash h1` is in force already"):
        story.faults.do("crash h1")
    story.faults.do("reboot h1")
    assert story.faults.in_force == []
    story.faults.await_expected()
    assert snapshot.differences(before, snapshot.take(story.lab)) == []
    assert [event.kind for event in story.told] == ["fault", "recovery"]


@sandboxed
def test_a_reboot_for_which_there_are_too_few_descriptors_takes_none() -> None:
    story = Story("single,2")
    story.faults.do("crash h1")
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the listing is one of them
    for room in range(4):
        with room_for(room), pytest.raises(OSError, match="Too many open files"):
            story.faults.do("reboot h1")
        assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    story.faults.do("reboot h1")
    story.faults.await_expected()


@sandboxed
def test_a_partition_that_fails_to_heal_can_be_healed_again() -> None:
    story = Story("single,2")
    before = snapshot.take(story.lab)
    story.faults.do("partition h1 | h2")
    fails_once(story.lab.wire.rtnl, "batch")
    with pytest.raises(OSError, match="Too many open files"):
        story.faults.do("heal")
    story.faults.await_expected()
    story.faults.do("heal")
    story.faults.await_expected()
    assert snapshot.differences(before, snapshot.take(story.lab)) == []


# -- Open vSwitch ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("open_vswitch")
@sandboxed
def test_what_open_vswitch_was_told_outlives_its_daemons_and_its_host() -> None:
    story = Story("single,2", ovs="kernel" if machine().ovs_datapath.live else "userspace")
    story.h1.ovs.add_bridge("obr0")
    peer = {"remote_ip": str(story.h2.address)}
    if story.lab.ovs_datapath == "userspace":
        story.h1.ovs.add_port("obr0", "gre0", type="gre", options=peer)
    before = snapshot.take(story.lab)
    assert "h1 ports" in before
    for fault in ("kill h1 ovs-vswitchd", "kill h1 ovsdb-server", "crash h1"):
        story.faults.do(fault)
        story.faults.await_expected()
        story.faults.mend_all()
        story.faults.await_expected()
        assert snapshot.differences(before, snapshot.take(story.lab)) == []
    # And it listens to what it is told next.
    story.h1.ovs.add_bridge("obr1")
    assert story.h1.rtnl.has("obr1")


@pytest.mark.parametrize("name", ["_take_uplink_home", "_bring_uplink_out"])
@pytest.mark.skipif(not machine().tun.usable, reason=machine().tun.detail)
@pytest.mark.usefixtures("open_vswitch")
@sandboxed
def test_what_open_vswitch_was_told_outlives_a_start_that_fails(name: str) -> None:
    story = Story("single,2", ovs="userspace")
    story.h1.ovs.add_bridge("obr0")
    before = snapshot.take(story.lab)
    for fault in ("kill h1 ovs-vswitchd", "crash h1"):
        story.faults.do(fault)
        fails_once(story.lab, name)
        with pytest.raises(OSError, match="Too many open files"):
            story.faults.mend(story.faults.in_force[0])
        if not story.faults.in_force:  # it runs: what is wrong with its ports is another fault
            story.faults.do(fault)
        story.faults.mend_all()
        story.faults.await_expected()
        assert snapshot.differences(before, snapshot.take(story.lab)) == []


@pytest.mark.usefixtures("open_vswitch")
@sandboxed
def test_ovs_vswitchd_starts_the_server_that_it_needs() -> None:
    story = Story("single,2", ovs="kernel" if machine().ovs_datapath.live else "userspace")
    story.faults.do("kill h1 ovsdb-server")
    story.faults.do("kill h1 ovs-vswitchd")
    story.faults.do("restart h1 ovs-vswitchd")
    assert story.faults.in_force == []
    assert story.h1.daemons() == {"ovsdb-server": True, "ovs-vswitchd": True}
    # What died with its host is started with it.
    story.faults.do("kill h1 ovs-vswitchd")
    story.faults.do("crash h1")
    assert story.faults.in_force == [HostCrash("h1")]
    with pytest.raises(UsageError, match="h1 is down; `reboot h1` starts it"):
        story.faults.do("kill h1 ovs-vswitchd")
    story.faults.do("reboot h1")
    story.faults.await_expected()


# -- networks --------------------------------------------------------------------------------------


@sandboxed
def test_trunks_and_sides_of_a_tree() -> None:
    story = Story("linear,3")
    before = snapshot.take(story.lab)
    for fault in ("link s1-s2 down", "partition h1,h3 | h2,gw", "link s2-s3 down"):
        story.faults.do(fault)
        story.faults.await_expected()
    story.faults.do("heal")
    story.faults.await_expected()
    story.faults.mend_all()
    story.faults.await_expected()
    assert snapshot.differences(before, snapshot.take(story.lab)) == []


@sandboxed
def test_what_is_not_as_expected_is_named_with_the_faults() -> None:
    story = Story()
    story.faults.do("link h2 down")
    story.lab.wire.set_down(story.lab.physical_link(story.h1))
    with pytest.raises(DeadlineError) as met:
        story.faults.await_expected(timeout_s=1)
    assert "h1 does not reach gw, h1 does not reach h3, " in str(met.value)
    assert "faults in force: link h2 down" in str(met.value)
    story.lab.wire.set_up(story.lab.physical_link(story.h1))
    story.lab.wire.set_up(story.lab.physical_link(story.h2))
    with pytest.raises(DeadlineError, match="h1 reaches h2, h1 reaches h2/c1, "):
        story.faults.await_expected(timeout_s=1)


@sandboxed
def test_what_cannot_be_now_is_refused() -> None:
    story = Story()
    story.faults.do("link h1 down")
    mended = "in force: link h1 down, which `xlab fault link h1 up` mends"
    with pytest.raises(UsageError, match=f"`heal` mends `partition`, which is not .*; {mended}$"):
        story.faults.do("heal")
    story.faults.do("partition h1 | h2")
    for text, message in {
        "link h1 down": "`link h1 down` is in force already",
        "link h2 up": f"`link h2 up` mends `link h2 down`, which is not in force; {mended}; part",
        "partition h1 | h3": "there is a partition already; `heal` mends it",
        "reboot h1": "`reboot h1` mends `crash h1`, which is not in force",
        "kill h1 weave": "no daemon of h1 'weave'; there is: none",
    }.items():
        with pytest.raises(UsageError, match=message.replace("|", r"\|")):
            story.faults.do(text)
    assert len(story.faults.in_force) == 2
    story.faults.mend_all()
    assert story.faults.possible()[:4] == [LinkDown(name) for name in ("h1", "h2", "h3", "gw")]
    # Seven ways to put some hosts on the side without the gateway.
    assert sum(isinstance(fault, Partition) for fault in story.faults.possible()) == 7
    assert not any(isinstance(fault, DaemonKill) for fault in story.faults.possible())


# -- recovery --------------------------------------------------------------------------------------


class SlowToMend(LinkDown):
    """A cable that takes 0.3 s to be found."""

    __slots__ = ()

    def mend(self, lab: Lab) -> None:
        threading.Event().wait(0.3)
        super().mend(lab)


@sandboxed
def test_recovery_counts_from_the_beginning_of_mending() -> None:
    story = Story()
    felt = measure_recovery(story.faults, SlowToMend("h1"), story.h1, story.h2)
    assert felt.stopped
    assert felt.mend_s >= 0.3
    assert felt.recovery_s >= 0.3
    assert story.faults.in_force == []


@sandboxed
def test_a_flow_that_a_fault_does_not_stop_has_nothing_to_recover_from() -> None:
    story = Story()
    felt = measure_recovery(story.faults, LinkDown("gw"), story.h1, story.h2, held_s=0.3)
    assert (felt.fault, felt.stopped) == ("link gw down", False)
    assert felt.recovery_s < 0.3, "not more than a packet that the load of the machine delays"


@sandboxed
def test_what_links_lose_on_purpose_is_no_fault() -> None:
    story = Story(loss_ratio=0.1)
    felt = measure_recovery(story.faults, LinkDown("gw"), story.h1, story.h2)
    assert (felt.stopped, felt.recovery_s) == (False, 0.0)
    assert felt.shortest_gap_s == pytest.approx(0.1)
    felt = measure_recovery(story.faults, LinkDown("h2"), story.h1, story.h2)
    assert felt.stopped
    assert felt.recovery_s > 0


@pytest.mark.parametrize("crashing", ["h1", "h2"], ids=["the source's host", "the target's host"])
@sandboxed
def test_recovery_of_a_host(crashing: str) -> None:
    story = Story("single,2")
    ends = story.h1.containers[0], story.h2.containers[0]
    felt = measure_recovery(story.faults, HostCrash(crashing), *ends)
    assert felt.stopped
    assert felt.mend_s > 0
    # A container is the last that is started.
    assert felt.recovery_s > felt.mend_s / 2
    story.faults.await_expected()


@sandboxed
def test_neighbours_are_forgotten_while_nobody_answers() -> None:
    """The kernel asks who has an address once a second; here it starts all over again and again."""
    story = Story("single,2")
    with Capture(story.lab.wire, story.lab.switch_port(story.h1)) as heard:
        felt = measure_recovery(story.faults, LinkDown("h2"), story.h1, story.h2, held_s=1.0)
    assert felt.stopped
    assert sum(frame[12:14] == ARP for _, frame in heard.frames) > 5


@sandboxed
def test_a_flow_that_never_worked_is_no_recovery() -> None:
    story = Story("single,2")
    story.lab.wire.set_down(story.lab.physical_link(story.h2))
    with pytest.raises(DeadlineError, match="h1 to reach h2 before `link h1 down`"):
        measure_recovery(story.faults, LinkDown("h1"), story.h1, story.h2, timeout_s=0.5)
    assert story.faults.in_force == []
