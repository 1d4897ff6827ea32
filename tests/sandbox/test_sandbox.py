"""Sandboxes: private, alone, and gone with their pid 1; attached to a caller or found by name."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.support.labs import (
    PATIENCE_S,
    ROOT,
    all_pids,
    kill,
    link_target,
    names_in,
    namespaces_of,
    process_numbers,
    run_in_sandbox,
    sandboxed,
)
from xlab.errors import (
    CapabilityError,
    CommandError,
    DockerError,
    SandboxError,
    UsageError,
)
from xlab.kernel import processes, sole_user
from xlab.kernel.processes import wait_until
from xlab.lab.node import Node
from xlab.sandbox import controller, registry, sandbox
from xlab.sandbox.launching import launch

pytestmark = pytest.mark.sandbox

#: Those that every kernel has, and some that not all have; none would change by being written.
MACHINE_SETTINGS = (
    "/proc/sys/kernel/panic",
    "/proc/sys/vm/swappiness",
    "/proc/sys/fs/file-max",
    "/proc/irq/default_smp_affinity",
    "/sys/kernel/mm/ksm/run",
    "/sys/power/pm_async",
)

InSandbox = Callable[[Callable[[], Any]], Any]


# -- inside ----------------------------------------------------------------------------------------


@sandboxed
def test_pid_1_is_the_controller_and_alone() -> None:
    assert os.getpid() == 1
    assert Path("/proc/self/comm").read_text() == "xlab\n"
    assert process_numbers() == {"1"}
    assert socket.gethostname() == "xlab"
    assert os.geteuid() == 0


@sandboxed
def test_only_a_loopback_that_is_up() -> None:
    assert socket.if_nameindex() == [(1, "lo")]
    assert names_in("/sys/class/net") == ["lo"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


@sandboxed
def test_run_and_tmp_are_private_and_empty() -> None:
    # An ordinary user's nodes have a tcpdump that stays who it is.
    wrapped = sole_user.applies() and shutil.which("tcpdump")
    assert names_in("/run") == ["lock", *(["xlab"] if wrapped else [])]
    files = [path for path in Path("/run").rglob("*") if not path.is_dir()]
    assert files == ([sole_user.FOLDER / "tcpdump"] if wrapped else [])
    shown = [path for path in Path("/tmp").rglob("*") if path.is_file()]
    # What Python itself needs stays visible where it lay.
    needed = [Path(entry).resolve() for entry in (*sys.path, sys.prefix) if entry]
    assert [path for path in shown if not any(path.is_relative_to(n) for n in needed)] == []


def test_what_is_written_there_never_gets_out(in_sandbox: InSandbox) -> None:
    registry = [f"/tmp/xlab-{uuid.uuid4()}", f"/run/xlab-{uuid.uuid4()}"]

    def write() -> list[bool]:
        for name in registry:
            Path(name).touch()
        return [Path(name).exists() for name in registry]

    assert in_sandbox(write) == [True, True]
    assert [Path(name).exists() for name in registry] == [False, False]


def test_kept_folders_are_visible_and_nothing_else(below_tmp: Path) -> None:
    kept, hidden = below_tmp / "kept", below_tmp / "hidden"
    for folder in (kept, hidden):
        folder.mkdir()
        (folder / "file").write_text("here")

    def look() -> list[bool]:
        (kept / "reply").write_text("there")
        return [(kept / "file").exists(), (hidden / "file").exists()]

    assert run_in_sandbox(look, keep=[kept]) == [True, False]
    assert (kept / "reply").read_text() == "there"


@sandboxed
def test_the_machines_own_settings_are_read_only() -> None:
    """Also as real root, for whom all of /proc and /sys but the network's are the machine's."""
    for path in MACHINE_SETTINGS:
        if Path(path).exists():
            with pytest.raises(OSError, match=r"denied|Read-only|not permitted"):
                Path(path).write_text(Path(path).read_text())
    # The network's belong to the sandbox.
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"


@sandboxed
def test_control_groups_are_there_to_be_read() -> None:
    """The machine's, and of an ordinary user those which the machine has left to them."""
    look = ["find", "/sys/fs/cgroup", "-mindepth", "1"]
    node = Node("anyone")
    for namespaces in (None, node.inhabited()):
        found = processes.run(look, node="anyone", namespaces=namespaces).stdout
        writable = processes.run([*look, "-writable"], node="anyone", namespaces=namespaces).stdout
        assert found
        assert writable == ""


@sandboxed
def test_what_would_harm_the_machine_is_out_of_reach() -> None:
    """Modules, the clock, the kernel's log: whatever a lab executes cannot regain these."""
    bounding = next(
        int(line.split()[1], 16)
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("CapBnd:")
    )
    # In a user namespace they are about nothing but the namespace.
    if Path("/proc/self/uid_map").read_text().split()[2] == "4294967295":
        sys_module, sys_rawio, sys_boot, sys_time, mknod, syslog = 16, 17, 22, 25, 27, 34
        forbidden = (sys_module, sys_rawio, sys_boot, sys_time, mknod, syslog)
        assert [number for number in forbidden if bounding >> number & 1] == []
    done = subprocess.run(["date", "-s", "2001-01-01"], capture_output=True, text=True, check=False)
    assert "not permitted" in done.stderr


@sandboxed
def test_no_disk_of_the_machine_can_be_written_to() -> None:
    """`dd of=/dev/sda` in an emulated host, typed by root: rootless labs have no right to it."""
    if Path("/proc/self/uid_map").read_text().split()[2] == "4294967295":
        assert [path for path in Path("/dev").rglob("*") if path.is_block_device()] == []
        unwanted = {"mem", "kmsg", "console", "tty1", "log"}
        assert not unwanted & {path.name for path in Path("/dev").iterdir()}
    # What programs want is there.
    Path("/dev/null").write_text("nowhere")
    with Path("/dev/urandom").open("rb") as random:
        assert len(random.read(4)) == 4
    controlling, terminal = os.openpty()
    assert os.ttyname(terminal).startswith("/dev/pts/")
    os.close(controlling)
    os.close(terminal)


@sandboxed
def test_shared_memory_is_the_labs_own() -> None:
    assert list(Path("/dev/shm").iterdir()) == []
    Path("/dev/shm/mark").touch()


def test_what_a_lab_left_in_shared_memory_is_gone(in_sandbox: InSandbox) -> None:
    name = f"xlab-{os.getpid()}"

    def leave() -> None:
        Path("/dev/shm", name).touch()

    in_sandbox(leave)
    assert not Path("/dev/shm", name).exists()


def test_a_story_may_fail(in_sandbox: InSandbox) -> None:
    def false() -> None:
        assert 1 + 1 == 3, "sums"

    with pytest.raises(AssertionError, match="sums") as failed:
        in_sandbox(false)
    assert "in false" in failed.value.__notes__[0]


#: Makes a sandbox, or tries to; Ctrl-C is pressed while it forks.
_FORKS = """
import os, signal
from xlab.kernel import trial
from xlab.sandbox import sandbox

signal.signal(signal.SIGINT, signal.default_int_handler)
os.register_at_fork(after_in_child=lambda: os.killpg(0, signal.SIGINT))
try:
    {made}
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize(
    "made",
    [
        "sandbox.launch(lambda *_: os._exit(0))",
        "trial.try_sandbox(rootless=os.geteuid() != 0, overlay=False)",
    ],
)
def test_ctrl_c_at_the_moment_of_a_fork_interrupts_the_caller_alone(made: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _FORKS.format(made=made)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("interrupted\n", "", 0)


def test_a_launcher_that_is_killed_is_an_error_not_a_hang(
    monkeypatch: pytest.MonkeyPatch, in_sandbox: InSandbox
) -> None:
    def killed(*_: object, **__: object) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("nobody survives that")

    monkeypatch.setattr(sandbox, "_send", killed)
    with pytest.raises(SandboxError, match="SIGKILL ended its launcher"):
        in_sandbox(lambda: None)
    os.waitpid(-1, 0)  # pid 1, which has not had our word


def test_nothing_in_a_lab_is_deaf_to_signals(in_sandbox: InSandbox) -> None:
    blocked = ["grep", "SigBlk", "/proc/self/status"]
    said = in_sandbox(lambda: processes.run(blocked, node="lab").stdout)
    assert int(said.split()[1], 16) == 0


# -- errors cross over ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        UsageError("no such thing"),
        CapabilityError("`ip` is not installed", "apt-get install iproute2"),
        CommandError(["ip", "link"], node="h1", returncode=2, stderr="bad"),
        DockerError("Conflict.", exit_code=125),
    ],
)
def test_errors_keep_class_text_and_exit_status(error: Exception, in_sandbox: InSandbox) -> None:
    def broken() -> None:
        raise error

    with pytest.raises(type(error)) as met:
        in_sandbox(broken)
    assert str(met.value) == str(error)
    assert getattr(met.value, "exit_status") == getattr(error, "exit_status")  # noqa: B009
    assert "in broken" in met.value.__notes__[0]


def test_a_capability_error_keeps_its_remedy(in_sandbox: InSandbox) -> None:
    def broken() -> None:
        raise CapabilityError("`ip` is not installed", "apt-get install iproute2")

    with pytest.raises(CapabilityError) as met:
        in_sandbox(broken)
    assert met.value.missing == "`ip` is not installed"
    assert met.value.remedy == "apt-get install iproute2"


def test_any_other_exception_is_named(in_sandbox: InSandbox) -> None:
    with pytest.raises(SandboxError, match="ZeroDivisionError: "):
        in_sandbox(lambda: 1 // 0)


def test_the_death_of_pid_1_is_an_error_not_a_hang(in_sandbox: InSandbox) -> None:
    with pytest.raises(SandboxError, match="controller is gone"):
        in_sandbox(lambda: os._exit(9))


def test_events_come_before_the_result() -> None:
    def count(arguments: Any, emit: controller.Emit) -> int:
        for number in range(arguments["to"]):
            emit({"number": number})
        return int(arguments["to"])

    heard: list[Any] = []
    with (
        launch(lambda: {"count": count}) as lab,
        closing(controller.Client(lab.channel)) as client,
    ):
        assert client.call("count", {"to": 3}, watch=heard.append) == 3
        assert client.call("count", {"to": 1}, watch=heard.append) == 1
        with pytest.raises(SandboxError, match="does not know how to"):
            client.call("no such verb", {})
    assert heard == [{"number": 0}, {"number": 1}, {"number": 2}, {"number": 0}]


def test_the_caller_keeps_no_child_no_descriptor_and_no_namespace(in_sandbox: InSandbox) -> None:
    descriptors, namespaces = names_in("/proc/self/fd"), namespaces_of(os.getpid())
    for _ in range(3):
        in_sandbox(lambda: None)
    assert names_in("/proc/self/fd") == descriptors
    assert namespaces_of(os.getpid()) == namespaces
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# -- detached ------------------------------------------------------------------------------------

#: Leaves a lab behind: prints its pid 1's number, as seen here, and ends.
_LAUNCHER = """
import os, resource, sys, threading, time, types
from xlab.sandbox import controller, sandbox
def serve(channel, listener):
    handlers = {
        "pid": lambda arguments, emit: os.getpid(),
        "echo": lambda arguments, emit: arguments,
        "host": lambda arguments, emit: make(arguments["name"]),
        "cramp": lambda arguments, emit: cramp(arguments["what"]),
        "refused": lambda arguments, emit: refused.wait(),
        "relax": lambda arguments, emit: relax(),
    }
    controller.serve(handlers, channel, listener)
nodes = {}
def make(name):
    from xlab.lab.node import Node
    nodes[name] = Node(name)
    return sorted(nodes)
def cramp(what):
    if what == "threads":
        threading.Thread.start = refuse
    else:
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
def refuse(_):
    raise RuntimeError("can't start new thread")
def relax():
    threading.Thread.start = start
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
def pause(seconds):
    refused.set()
    time.sleep(seconds)
refused, controller.time = threading.Event(), types.SimpleNamespace(sleep=pause)
start, before = threading.Thread.start, resource.getrlimit(resource.RLIMIT_NOFILE)
said = os.dup(1)
if "--no-streams" in sys.argv:
    for stream in range(3):
        os.close(stream)
lab = sandbox.launch(serve, name=sys.argv[1])
if "--stay" in sys.argv:
    controller.Client(lab.channel).call("stay", {})
os.write(said, str(lab.pid).encode())
"""


@pytest.fixture
def detached() -> Iterator[tuple[str, int]]:
    """The name of a lab whose launcher has ended, and its pid 1."""
    name = f"test-{uuid.uuid4()}"
    pid = start_detached(name, "--stay")
    yield name, pid
    kill(pid)


def start_detached(name: str, *options: str, prefix: Sequence[str] = ()) -> int:
    launched = subprocess.run(
        [*prefix, sys.executable, "-P", "-c", _LAUNCHER, name, *options],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert launched.returncode == 0, launched.stderr
    return int(launched.stdout)


def call(lab: str, verb: str, **arguments: Any) -> Any:
    with closing(controller.Client(registry.connect(lab))) as client:
        return client.call(verb, arguments)


def await_end(pid: int) -> None:
    wait_until(
        lambda: pid not in all_pids(), timeout_s=PATIENCE_S, awaited=f"the end of process {pid}"
    )


def test_a_detached_lab_outlives_its_launcher(detached: tuple[str, int]) -> None:
    name, pid = detached
    assert pid in all_pids()
    assert call(name, "pid") == 1
    assert call(name, "echo", a=1) == {"a": 1}


def test_it_remembers_from_one_connection_to_the_next(detached: tuple[str, int]) -> None:
    name, _ = detached
    assert call(name, "host", name="h1") == ["h1"]
    assert call(name, "host", name="h2") == ["h1", "h2"]


def test_two_callers_at_once(detached: tuple[str, int]) -> None:
    name, _ = detached
    with closing(controller.Client(registry.connect(name))) as first:
        assert call(name, "echo", second=2) == {"second": 2}
        assert first.call("echo", {"first": 1}) == {"first": 1}


def test_it_survives_a_caller_that_talks_nonsense(detached: tuple[str, int]) -> None:
    name, pid = detached
    with registry.connect(name) as channel:
        channel.sendall(b"GET / HTTP/1.1\r\n")
        assert channel.recv(1) == b""
    assert call(name, "pid") == 1
    assert pid in all_pids()


def test_down_ends_it_and_its_name_is_free(detached: tuple[str, int]) -> None:
    name, pid = detached
    assert call(name, "down") is None
    await_end(pid)
    with pytest.raises(UsageError, match=f"no lab named '{name}'"):
        registry.connect(name)


def test_a_second_lab_of_the_same_name_is_refused(detached: tuple[str, int]) -> None:
    name, _ = detached

    def never(channel: socket.socket | None, listener: socket.socket | None) -> NoReturn:
        os._exit(0)

    with pytest.raises(UsageError, match=f"'{name}' is already running"):
        sandbox.launch(never, name=name)
    assert call(name, "pid") == 1


def test_the_name_is_free_again_after_a_kill(detached: tuple[str, int]) -> None:
    name, pid = detached
    kill(pid)
    await_end(pid)
    second = start_detached(name, "--stay")
    try:
        assert call(name, "pid") == 1
    finally:
        call(name, "down")
    await_end(second)


def test_labs_of_several_names_do_not_meet(detached: tuple[str, int]) -> None:
    name, _ = detached
    other = f"test-{uuid.uuid4()}"
    pid = start_detached(other, "--stay")
    try:
        assert call(name, "host", name="h1") == ["h1"]
        assert call(other, "host", name="h9") == ["h9"]
    finally:
        call(other, "down")
    await_end(pid)


def test_it_ends_with_its_launcher_that_never_said_stay() -> None:
    name = f"test-{uuid.uuid4()}"
    await_end(start_detached(name))
    with pytest.raises(UsageError, match="no lab named"):
        registry.connect(name)


def test_it_holds_nothing_of_its_launchers(detached: tuple[str, int]) -> None:
    """No terminal, no folder, no open file: the disk it was started from can be unmounted."""
    _, pid = detached
    assert link_target(f"/proc/{pid}/cwd") == "/"
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    session, terminal = int(stat[3]), int(stat[4])
    assert (session, terminal) != (os.getsid(0), 0)
    assert terminal == 0
    opened = {link_target(f"/proc/{pid}/fd/{fd}") for fd in names_in(f"/proc/{pid}/fd")}
    kinds = ("/dev/null", "/memfd:", "socket:", "pipe:", "anon_inode:", "net:", "uts:", "mnt:")
    on_disk = [path for path in opened if not path.startswith((*kinds, "pid:", "/proc"))]
    assert on_disk == []


@pytest.mark.parametrize(
    ("options", "prefix"),
    [
        # No descriptor can be given such a number any more.
        ([], ["bash", "-c", 'exec 900</dev/null; ulimit -n 256; exec "$0" "$@"']),
        # The sockets get the numbers of the streams.
        (["--no-streams"], []),
    ],
    ids=["a number above the limit", "no streams"],
)
def test_whatever_descriptors_the_launcher_has(options: list[str], prefix: list[str]) -> None:
    name = f"test-{uuid.uuid4()}"
    pid = start_detached(name, "--stay", *options, prefix=prefix)
    try:
        assert call(name, "echo", a=1) == {"a": 1}
        opened = {link_target(f"/proc/{pid}/fd/{fd}") for fd in names_in(f"/proc/{pid}/fd")}
        assert "900" not in names_in(f"/proc/{pid}/fd"), opened
        assert [link_target(f"/proc/{pid}/fd/{fd}").split(":")[0] for fd in range(3)] == [
            "/dev/null", "/memfd", "/memfd",
        ]  # fmt: skip
    finally:
        kill(pid)
    await_end(pid)


def test_running_labs_are_listed_by_name(detached: tuple[str, int]) -> None:
    name, pid = detached
    assert name in registry.running()
    kill(pid)
    await_end(pid)
    assert name not in registry.running()


@pytest.mark.parametrize("name", ["", "-x", "a/b", "a b", "é", "x" * 64, "..", "a\0b"])
def test_what_no_lab_can_be_called(name: str) -> None:
    with pytest.raises(UsageError, match="no lab can be called"):
        registry.validated(name)


def test_descriptors_come_with_an_answer(in_sandbox: InSandbox) -> None:
    del in_sandbox

    def give(arguments: Any, _: controller.Emit) -> controller.WithDescriptors:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        os.write(writing, arguments["text"].encode())
        return controller.WithDescriptors("here", [reading, writing])

    with launch(lambda: {"give": give}) as lab:
        client = controller.Client(lab.channel)
        result, descriptors = client.call_for_descriptors("give", {"text": "from inside"})
        assert (result, os.read(descriptors[0], 100)) == ("here", b"from inside")
        assert not any(os.get_inheritable(descriptor) for descriptor in descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        before = names_in("/proc/self/fd")
        assert client.call("give", {"text": "unwanted"}) == "here"
        assert names_in("/proc/self/fd") == before


def test_somebody_elses_words_are_not_heard(detached: tuple[str, int]) -> None:
    """An abstract socket has no permissions: anyone may connect."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    name, pid = detached
    stranger = f"""
import os, socket
os.setresuid(65534, 65534, 65534)
channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
channel.connect({registry.address_of(name)!r})
try:
    channel.sendall(b'{{"verb": "down", "arguments": {{}}}}\\n')
    print(channel.recv(100))
except ConnectionError:
    print(b"")
"""
    said = subprocess.run(
        ["/usr/bin/env", sys.executable, "-c", stranger],
        capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    assert said.stdout == "b''\n"
    assert call(name, "pid") == 1
    assert pid in all_pids()


def test_somebody_elses_socket_is_not_trusted() -> None:
    """Anyone may bind an abstract name."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    name = f"test-{uuid.uuid4()}"
    impostor = f"""
import os, socket, sys
os.setresuid(65534, 65534, 65534)
listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind({registry.address_of(name)!r})
listener.listen()
print("bound", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        ["/usr/bin/env", sys.executable, "-c", impostor],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "bound\n"
        said = rf"the name '{name}' is taken by somebody else's socket \(uid 65534\)"
        with pytest.raises(SandboxError, match=said):
            registry.connect(name)
        process.communicate("")


def test_a_lab_outlives_the_want_of_descriptors_and_threads(detached: tuple[str, int]) -> None:
    """Whoever connects meanwhile is answered when there are some again, or may try once more."""
    name, pid = detached
    with closing(controller.Client(registry.connect(name))) as client:
        client.call("cramp", {"what": "descriptors"})
        with registry.connect(name) as waiting:
            assert client.call("refused", {})
            client.call("relax", {})
            assert controller.Client(waiting).call("pid", {}) == 1
        client.call("cramp", {"what": "threads"})
        with registry.connect(name) as refused:
            assert refused.recv(1) == b""
        client.call("relax", {})
        assert call(name, "pid") == 1
    assert pid in all_pids()
