"""Nodes: each is a machine of its own, and what runs in it ends as it says it did."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.labs import PATIENCE_S, interfaces, names_in, process_numbers, sandboxed
from xlab.errors import CapabilityError, CommandError, DeadlineError, XlabError
from xlab.kernel import namespaces, processes, reaping
from xlab.lab import node as node_module
from xlab.lab import underlay
from xlab.lab.lab import Host, Lab
from xlab.lab.network import FALLBACK_TUNNELS
from xlab.lab.node import Node


def pair() -> tuple[Node, Node]:
    """h1 10.0.0.1 ── 10.0.0.2 h2"""
    h1, h2 = Node("h1"), Node("h2")
    with h1.rtnl.batch() as batch:
        batch.add_veth("eth0", "eth0", peer_namespace=h2.namespaces.net)
    h1.add_address("eth0", "10.0.0.1/24")
    h2.add_address("eth0", "10.0.0.2/24")
    return h1, h2


def output(node: Node, *argv: str) -> str:
    return node.run(argv).stdout


# -- a machine of its own --------------------------------------------------------------------------


@sandboxed
def test_two_nodes_on_a_cable_reach_each_other() -> None:
    h1, h2 = pair()
    assert "1 received" in output(h1, "ping", "-n", "-c1", "-W5", str(h2.address))
    assert "1 received" in output(h2, "ping", "-n", "-c1", "-W5", str(h1.address))


@sandboxed
def test_the_prompt_says_who_one_is() -> None:
    h1, h2 = Node("h1"), Node("h2")
    assert output(h1, "hostname") == "h1\n"
    assert output(h2, "hostname") == "h2\n"
    output(h1, "hostname", "renamed")
    assert output(h1, "hostname") == "renamed\n"
    assert socket.gethostname() == "xlab"


@sandboxed
def test_run_and_tmp_belong_to_one_node() -> None:
    h1, h2 = Node("h1"), Node("h2")
    for folder in ("/run", "/tmp"):
        output(h1, "sh", "-c", f"echo here >{folder}/file")
        assert output(h1, "cat", f"{folder}/file") == "here\n"
        assert h2.run(["cat", f"{folder}/file"], check=False).returncode == 1
        assert not Path(folder, "file").exists()


@sandboxed
def test_sys_shows_the_nodes_own_interfaces() -> None:
    h1, h2 = pair()
    h2.add_bridge("br0")
    for node, own in ((h1, {"eth0", "lo"}), (h2, {"br0", "eth0", "lo"})):
        assert set(output(node, "ls", "/sys/class/net").split()) - FALLBACK_TUNNELS == own
    assert set(names_in("/sys/class/net")) - FALLBACK_TUNNELS == {"lo"}


@sandboxed
def test_the_very_first_command_sees_its_own_processes_only() -> None:
    """Its /proc is mounted by the node's init, which must be done with it by then."""
    for number in range(8):
        node = Node(f"h{number}")
        pid_1, init, _, *others = output(node, "ps", "-e", "-o", "pid=,comm=").split()
        assert (pid_1, init, others) == ("1", "catatonit", ["ps"])


@sandboxed
def test_processes_of_one_node_are_invisible_to_another() -> None:
    h1, h2 = Node("h1"), Node("h2")
    with h1.start(["sleep", "1000"]) as sleeper:
        assert "sleep" in output(h1, "ps", "-e", "-o", "comm=")
        assert "sleep" not in output(h2, "ps", "-e", "-o", "comm=")
        assert f"{sleeper.pid}" in names_in("/proc")  # the controller sees them all
        h1.run(["sh", "-c", "kill -9 -1"], check=False)
        assert sleeper.wait(10) == -signal.SIGKILL
    assert output(h2, "echo", "alive") == "alive\n"


@pytest.mark.parametrize("first", [True, False], ids=["at once", "later"])
@sandboxed
def test_the_machines_settings_are_out_of_reach(first: bool) -> None:
    """Also as real root, for whom /proc/sys/kernel is the real machine's."""
    nodes = [Node(f"h{number}") for number in range(8 if first else 1)]
    for node in nodes:
        if not first:
            output(node, "true")
        # It would write what is there already.
        script = "cat /proc/sys/kernel/panic >/tmp/now; cat /tmp/now >/proc/sys/kernel/panic"
        refused = node.run(["sh", "-c", script], check=False)
        assert refused.returncode != 0
        assert "Permission denied" in refused.stderr or "Read-only" in refused.stderr
        output(node, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        assert node.sysctl("net.ipv4.ip_forward") == "1"


@sandboxed
def test_sysctls_belong_to_one_network_namespace() -> None:
    h1, h2 = Node("h1"), Node("h2")
    h1.set_sysctl("net.ipv4.ip_forward", 1)
    h1.set_sysctl("net.ipv4.conf.all.rp_filter", 2)
    assert (h1.sysctl("net.ipv4.ip_forward"), h2.sysctl("net.ipv4.ip_forward")) == ("1", "0")
    assert h2.sysctl("net.ipv4.conf.all.rp_filter") == "0"
    with pytest.raises(ValueError, match=r"kernel\.panic does not belong"):
        h1.set_sysctl("kernel.panic", 1)


@sandboxed
def test_settings_of_many_nodes_are_not_mixed_up() -> None:
    """More than share an instance of proc, read through that and through the node's own /proc."""
    nodes = [Node(f"h{number}") for number in range(80)]
    for number, node in enumerate(nodes):
        node.set_sysctl("net.ipv4.ip_default_ttl", 10 + number)
    for number, node in enumerate(nodes):
        assert node.sysctl("net.ipv4.ip_default_ttl") == str(10 + number)
    for number in (0, 40, 79):
        path = "/proc/sys/net/ipv4/ip_default_ttl"
        assert output(nodes[number], "cat", path) == f"{10 + number}\n"
    with pytest.raises(FileNotFoundError):
        nodes[0].sysctl("net.ipv4.no_such_setting")


@sandboxed
def test_a_node_that_runs_nothing_has_no_mounts_of_its_own() -> None:
    node = Node("h1")
    before = node.namespaces
    output(node, "true")
    after = node.namespaces
    assert before.mnt is None
    assert after.mnt is not None
    assert os.fstat(after.mnt).st_ino != Path("/proc/self/ns/mnt").stat().st_ino


@sandboxed
def test_a_lab_is_the_same_whatever_the_machines_settings_are() -> None:
    """A new network namespace copies some of its parent's."""
    for name in ("net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter"):
        Path("/proc/sys", name).write_text("1")
    node = Node("h1")
    node.add_bridge("br0")
    assert node.sysctl("net.ipv4.ip_forward") == "0"
    assert node.sysctl("net.ipv4.conf.all.rp_filter") == "0"
    assert node.sysctl("net.ipv6.conf.br0.disable_ipv6") == "1"


@sandboxed
def test_sockets_made_inside_belong_to_the_node_for_good() -> None:
    h1, h2 = pair()
    with h2.entered():
        server = socket.create_server(("10.0.0.2", 0))
    with h1.entered():
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # The thread is home again; the sockets are not.
    assert {name for _, name in socket.if_nameindex()} - FALLBACK_TUNNELS == {"lo"}
    with server, client:
        client.connect(server.getsockname())
        connection, (peer, _) = server.accept()
        connection.close()
    assert peer == "10.0.0.1"


@sandboxed
def test_entering_can_be_nested_and_returns_after_an_error() -> None:
    h1, h2 = Node("h1"), Node("h2")
    with h1.entered():
        with h2.entered():
            assert socket.gethostname() == "h2"
        assert socket.gethostname() == "h1"
        with pytest.raises(RuntimeError), h2.entered():
            raise RuntimeError
        assert socket.gethostname() == "h1"
    assert socket.gethostname() == "xlab"


@sandboxed
def test_threads_are_in_different_nodes_at_the_same_time() -> None:
    nodes = [Node(f"h{number}") for number in range(4)]
    barrier = threading.Barrier(len(nodes), timeout=30)

    def look(node: Node) -> list[str]:
        names = []
        for _ in range(20):
            with node.entered():
                barrier.wait()
                names.append(socket.gethostname())
        return names

    with ThreadPoolExecutor(len(nodes)) as pool:
        for node, names in zip(nodes, pool.map(look, nodes), strict=True):
            assert names == [node.name] * 20


@sandboxed
def test_what_a_node_is_asked_about_its_interfaces() -> None:
    h1, _ = pair()
    assert interfaces(h1) == ["lo", "eth0"]
    assert str(h1.device_address("eth0")) == "10.0.0.1/24"
    assert h1.mac_address("eth0") == output(h1, "cat", "/sys/class/net/eth0/address").strip()
    h1.add_address("eth0", "10.0.0.9/24")
    assert str(h1.address) == "10.0.0.1"
    h1.delete_address("eth0", "10.0.0.1/24")
    with pytest.raises(XlabError, match="h1 has no address yet"):
        _ = h1.address
    with pytest.raises(OSError, match="No such device"):
        h1.device_address("eth9")


@sandboxed
def test_a_closed_node_is_gone_with_all_that_ran_in_it() -> None:
    h1, h2 = pair()
    process = h2.spawn(["sleep", "1000"])
    descriptors = len(names_in("/proc/self/fd"))
    h2.close()
    assert process.wait(10) == -signal.SIGKILL
    # Its network namespace is freed a little later, and its end of the cable with it.
    processes.wait_until(lambda: interfaces(h1) == ["lo"], timeout_s=30, awaited="the veth's end")
    # net, uts, mnt, pid, the folder of its settings and the netlink socket
    assert len(names_in("/proc/self/fd")) == descriptors - 6


@sandboxed
def test_a_plain_node_costs_no_process_and_four_descriptors() -> None:
    Node("warm-up")
    before = len(names_in("/proc/self/fd"))
    nodes = [Node(f"h{number}") for number in range(100)]
    assert len(names_in("/proc/self/fd")) == before + 4 * len(nodes)
    assert process_numbers() == {"1"}


# -- running programs ------------------------------------------------------------------------------


@sandboxed
def test_output_and_status_come_back() -> None:
    h1 = Node("h1")
    done = h1.run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 3)
    assert done.argv == ("sh", "-c", "echo out; echo err >&2; exit 3")
    assert h1.run(["cat"], stdin=b"fed in").stdout == "fed in"
    assert h1.run(["sh", "-c", "echo $LC_ALL $X"], env={"X": "y"}).stdout == "C y\n"
    assert h1.run(["printf", r"\377"]).stdout == "\ufffd"


@sandboxed
def test_a_failure_says_what_where_and_why() -> None:
    h1 = Node("h1")
    with pytest.raises(CommandError) as met:
        h1.run(["ls", "/no such folder"])
    assert str(met.value).startswith("h1: `ls '/no such folder'` ended with status 2: ls: ")
    assert (met.value.node, met.value.returncode) == ("h1", 2)


@sandboxed
def test_a_program_killed_by_a_signal_says_so() -> None:
    done = Node("h1").run(["sh", "-c", "kill -TERM $$"], check=False)
    assert done.returncode == -signal.SIGTERM


@sandboxed
def test_a_missing_program_is_a_missing_capability() -> None:
    h1 = Node("h1")
    output(h1, "true")
    before = len(names_in("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(CapabilityError, match="`no-such-program` is not installed"):
            h1.run(["no-such-program"])
    assert len(names_in("/proc/self/fd")) <= before
    assert output(h1, "echo", "still works") == "still works\n"


@sandboxed
def test_a_folder_for_temporary_files_that_the_lab_hides_is_not_passed_on() -> None:
    """As libpam-tmpdir has it; iperf3 fails there."""
    os.environ["TMPDIR"] = "/tmp/user/1000"
    done = Node("h1").run(["sh", "-c", "echo $TMPDIR; echo found >$TMPDIR/file; cat /tmp/file"])
    assert done.stdout == "/tmp\nfound\n"


@sandboxed
def test_what_lies_in_the_way_on_the_path_is_no_program() -> None:
    """A folder of that name, like one on the path that may not be searched, gives EACCES."""
    Path("/run/bin/no-such-program").mkdir(parents=True)
    os.environ["PATH"] = f"/run/bin:{os.environ['PATH']}"  # of this sandbox's pid 1
    with pytest.raises(CapabilityError, match="`no-such-program` is not installed"):
        Node("h1").run(["no-such-program"])


@sandboxed
def test_a_file_that_cannot_be_executed() -> None:
    h1 = Node("h1")
    output(h1, "touch", "/tmp/plain")
    before = len(names_in("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(XlabError, match="/tmp/plain"):
            h1.run(["/tmp/plain"])
    assert len(names_in("/proc/self/fd")) <= before


@sandboxed
def test_what_does_not_end_in_time_is_killed() -> None:
    h1 = Node("h1")
    output(h1, "true")
    with pytest.raises(CommandError) as met:
        h1.run(["sh", "-c", "echo waiting >&2; exec sleep 1000"], timeout_s=0.2)
    assert "did not end within 0.2 s: waiting" in str(met.value)
    assert re.search(r"waited for, by process: \d+ b'\w+' [SR] in ", met.value.__notes__[0])
    assert met.value.returncode is None
    assert "sleep" not in output(h1, "ps", "-e", "-o", "comm=")


@sandboxed
def test_what_prints_without_end_is_killed() -> None:
    """Its output is in pid 1's memory."""
    node = Node("h1")
    for script in ("head -c 65M /dev/zero; exec sleep 60", "head -c 65M /dev/zero >&2"):
        with pytest.raises(XlabError, match="printed more than 64 MiB"):
            node.run(["sh", "-c", script], timeout_s=30, check=False)
    assert node.run(["pgrep", "sleep"], check=False).stdout == ""


@sandboxed
def test_a_host_whose_shell_never_answers_is_given_up() -> None:
    """It is what a node's first process is started with, and a host may change it."""
    host = Lab(underlay.describe(None, hosts=2), own_disks=True).hosts[0]
    silent = "printf '#!/bin/bash\\nsleep 60\\n' >/tmp/sh; chmod +x /tmp/sh"
    host.run(["bash", "-c", f"{silent}; mount --bind /tmp/sh /usr/bin/sh"])
    host.kill_all()
    node_module._FIRST_PROCESS_S = 0.2
    with pytest.raises(XlabError, match=r"nothing was heard of its /bin/sh for 0\.2 s"):
        host.run(["true"])
    node_module._FIRST_PROCESS_S = 2 * PATIENCE_S
    with pytest.raises(XlabError, match="it is not tried again before the next boot"):
        host.run(["true"])  # at once
    host.close()
    host.boot()
    assert output(host, "echo", "back") == "back\n"


@sandboxed
def test_a_program_runs_while_its_context_does() -> None:
    h1 = Node("h1")
    with h1.start(["sleep", "1000"]) as process:
        assert process.poll() is None
        assert "sleep" in output(h1, "ps", "-e", "-o", "comm=")
    assert process.poll() == -signal.SIGKILL
    process.signal(signal.SIGTERM)  # to nobody


@sandboxed
def test_a_program_may_end_gracefully() -> None:
    h1 = Node("h1")
    script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done"
    with h1.start(["sh", "-c", script]) as process:
        processes.wait_until(lambda: "ready" in process.stdout(), timeout_s=30, awaited="the trap")
        process.signal(signal.SIGTERM)
        assert process.wait(30) == 7
        assert process.stdout() == "ready\nbye\n"


@sandboxed
def test_no_status_is_lost_among_many_short_programs() -> None:
    """Pid 1 reaps its own children and adopts everyone else's orphans, at the same time."""
    nodes = [Node(f"h{number}") for number in range(4)]
    for node in nodes:
        output(node, "true")
    inits = process_numbers()

    def run(number: int) -> int:
        # Each leaves an orphan behind, which pid 1 or the node's init must reap.
        script = f"(sh -c 'exit 9' &) ; exit {number % 50}"
        return nodes[number % 4].run(["sh", "-c", script], check=False).returncode

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(run, range(300))) == [number % 50 for number in range(300)]
    # An orphan may not even have begun by now; on its way out each is a zombie for a moment.
    processes.wait_until(
        lambda: process_numbers() <= inits,
        timeout_s=30,
        awaited="the end of all orphans and zombies",
    )


def zombies() -> list[str]:
    shown = subprocess.run(["ps", "-e", "-o", "stat="], capture_output=True, text=True, check=True)
    return [state for state in shown.stdout.split() if state.startswith("Z")]


#: Keeps a lease on /run/held, and says so when somebody is kept waiting by it.
LEASE = """
import fcntl, os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
fcntl.fcntl(os.open("/run/held", os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("leased", flush=True)
signal.sigwait([signal.SIGIO])
print("asked", flush=True)
signal.pause()
"""


@sandboxed
def test_a_program_whose_start_is_held_up_holds_up_no_other_host() -> None:
    """Root of a host takes a lease on it, and execve(2) waits until that is given up."""
    h1, h2 = Node("h1"), Node("h2")
    output(h1, "cp", "/bin/true", "/run/held")
    output(h2, "true")
    with ThreadPoolExecutor(1) as pool, h1.start([sys.executable, "-c", LEASE]) as holder:

        def says(word: str) -> None:
            processes.wait_until(lambda: word in holder.stdout(), timeout_s=30, awaited=word)

        says("leased")
        held = pool.submit(h1.run, ["/run/held"])
        says("asked")
        # Nobody's, as an orphan is: it may be what is being started.
        subprocess.Popen(["true"])
        processes.wait_until(lambda: zombies() != [], timeout_s=30, awaited="a zombie")
        codes = [h2.run(["sh", "-c", f"exit {n}"], check=False).returncode for n in range(5)]
        assert codes == [0, 1, 2, 3, 4]
        assert not held.done()
        assert zombies() != []
        holder.stop()
        assert held.result(30).returncode == 0
    processes.wait_until(lambda: zombies() == [], timeout_s=30, awaited="the end of all zombies")


#: Stops, while it keeps that lease, all that its host has but itself and its init.
STOPPER = LEASE.replace('print("asked"', 'os.kill(-1, signal.SIGSTOP)\nprint("asked"')


@sandboxed
@pytest.mark.parametrize(
    ("holder", "longest_s", "why"),
    [
        (STOPPER, 300.0, "it was stopped before it had begun"),
        (LEASE, 1.0, "it had not begun within 1 s"),
    ],
)
def test_a_start_that_does_not_go_on_is_ended(holder: str, longest_s: float, why: str) -> None:
    """Its starter would wait for as long as root of a host likes, and who waits for that one."""
    usual_s = reaping._LONGEST_S
    h1 = Node("h1")
    output(h1, "cp", "/bin/true", "/run/held")
    with h1.start([sys.executable, "-c", holder]) as held, ThreadPoolExecutor(1) as pool:
        processes.wait_until(lambda: "leased" in held.stdout(), timeout_s=30, awaited="a lease")
        reaping._LONGEST_S = longest_s
        started = pool.submit(h1.run, ["/run/held"])
        try:
            with pytest.raises(CommandError, match=why):
                started.result(30)
        finally:
            reaping._LONGEST_S = usual_s
            h1.run(["sh", "-c", "kill -CONT -1"])
        assert output(h1, "echo", "on") == "on\n"
    processes.wait_until(lambda: zombies() == [], timeout_s=30, awaited="the end of all zombies")


@sandboxed
def test_programs_are_started_side_by_side_in_fresh_nodes() -> None:
    """Several threads may ask for a node's first program at once: there is one init."""
    node = Node("h1")
    with ThreadPoolExecutor(8) as pool:
        shown = list(pool.map(lambda _: output(node, "ps", "-e", "-o", "comm="), range(8)))
    for listing in shown:
        names = listing.split()
        assert names.count("catatonit") == 1
        # "xlab": a fork of pid 1 that is about to execute what it was asked to.
        assert set(names) <= {"catatonit", "ps", "xlab"}


@sandboxed
def test_a_node_whose_init_was_killed_gets_a_new_one() -> None:
    node = Node("h1")
    output(node, "touch", "/run/file")
    (init,) = process_numbers() - {"1"}
    os.kill(int(init), signal.SIGKILL)
    processes.wait_until(
        lambda: init not in process_numbers(), timeout_s=30, awaited="the end of the init"
    )
    assert output(node, "hostname") == "h1\n"
    assert "file" in output(node, "ls", "/run").split()
    assert output(node, "ps", "-e", "-o", "pid=,comm=").split()[:2] == ["1", "catatonit"]


@sandboxed
def test_waiting_has_a_deadline_and_says_for_what() -> None:
    with pytest.raises(DeadlineError, match=r"waited 0\.01 s in vain for Godot"):
        processes.wait_until(lambda: False, timeout_s=0.01, awaited="Godot")


# -- configuration without an init -----------------------------------------------------------------


@sandboxed
def test_configuring_starts_no_init() -> None:
    node = Node("h1")
    assert "eth" not in node.configure(["ip", "-brief", "link"]).stdout
    assert process_numbers() == {"1"}


@sandboxed
def test_folders_of_a_node() -> None:
    node = Node("h1")
    node.make_folder("/run/openvswitch/deep")
    assert output(node, "ls", "/run/openvswitch") == "deep\n"
    assert not Path("/run/openvswitch").exists()


# -- hosts, threads, raw sockets -------------------------------------------------------------------


@sandboxed
def test_a_host_without_open_vswitch_says_so() -> None:
    host = Host("h1", 1, ovs=None, mtu=1500)
    with pytest.raises(XlabError, match="h1 runs no Open vSwitch"):
        _ = host.ovs
    assert host.daemon_pids() == []


@sandboxed
def test_the_namespaces_are_those_of_a_thread_not_of_the_process() -> None:
    """What pid 1 itself is in never changes: /proc/self is its first thread."""
    before = namespaces.current()
    node = Node("h1")
    with node.entered():
        inside = Path("/proc/thread-self/ns/net").stat().st_ino
        assert Path("/proc/self/ns/net").stat().st_ino == os.fstat(before.net).st_ino != inside
    before.close()


@sandboxed
def test_raw_sockets_work_without_being_root_outside() -> None:
    h1, h2 = pair()
    # Until linkwatch_event, a work item that waits for the lock of all links, has activated it, a
    # link drops what is sent; who pings sends again.
    output(h1, "ping", "-n", "-c1", "-w30", str(h2.address))
    with h2.entered():
        receiver = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
        receiver.bind(("eth0", 0x88B5))
    with h1.entered():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        sender.bind(("eth0", 0))
    frame = b"\xff" * 6 + bytes(6) + struct.pack("!H", 0x88B5) + b"hello".ljust(46, b".")
    with sender, receiver:
        receiver.settimeout(30)
        sender.send(frame)
        assert receiver.recv(100) == frame
