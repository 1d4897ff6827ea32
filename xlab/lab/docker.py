"""The Docker daemon of one host, emulated: what `dockerd -b … --fixed-cidr …` does to the network.

    c1 eth0 ── veth… ┐
    c2 eth0 ── veth… ┴ br0 (or docker0) ── the host's routes, masquerading, FORWARD policy

Addresses, MACs, routes, rules and error texts are Docker's (`ipam.py` says where they were
measured).  Images are not: whatever the name, a container sees the machine's own files, read-only.
"""

from __future__ import annotations

import random
import re
import secrets
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Literal

from xlab.errors import DockerError, XlabError
from xlab.kernel import syscalls
from xlab.kernel.clock import steady
from xlab.kernel.namespaces import Namespaces
from xlab.kernel.processes import Process, shell_status
from xlab.lab import commands, ipam, machine_root
from xlab.lab.node import Node
from xlab.sandbox import sandbox
from xlab.sandbox.console import Attachable, Console

State = Literal["created", "starting", "running", "exited"]
ForwardPolicy = Literal["accept", "drop"]
#: Which containers start with the daemon: none; all; all that nobody has stopped.
RestartPolicy = Literal["no", "always", "unless-stopped"]

DEFAULT_BRIDGE = "docker0"

#: Container names as the daemon accepts them (moby, daemon/names).
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class DaemonOptions:
    """What follows `dockerd` in ExecStart; names and meanings are Docker's."""

    bridge: str | None = None
    fixed_cidr: str | None = None
    bip: str | None = None
    default_gateway: str | None = None
    mtu: int = 1500
    iptables: bool = True
    ip_forward: bool = True
    #: 26 as measured; 28 drops a fixed-cidr outside the subnet and gives random MACs.
    version: ipam.Version = 26
    #: Docker before 1.13 left the FORWARD policy alone ("accept"); since then it sets it to DROP if
    #: it was Docker that switched ip_forward on.
    forward_policy: ForwardPolicy = "accept"

    def command_line(self) -> str:
        """`dockerd` and these options."""
        options = {
            "-b": self.bridge,
            "--fixed-cidr": self.fixed_cidr,
            "--bip": self.bip,
            "--default-gateway": self.default_gateway,
            "--mtu": "" if self.mtu == 1500 else str(self.mtu),
        }
        words = ["dockerd"] + [word for pair in options.items() if pair[1] for word in pair if word]
        words += [] if self.iptables else ["--iptables=false"]
        words += [] if self.ip_forward else ["--ip-forward=false"]
        return shlex.join(words)


class Container(Node):
    """A container; a node while it runs.  Stopping it frees its address, starting it takes one."""

    def __init__(
        self, host: Node, name: str, *, image: str, command: Sequence[str], own_disk: bool = False
    ) -> None:
        """With `own_disk` it has an /etc, /var/lib, /var/log and /root of its own."""
        self.host = host
        self._own_disk = own_disk
        self.short_name = name
        self.id = secrets.token_hex(32)
        self.image = image
        self.command = tuple(command)
        self.env: dict[str, str] = {}
        #: Whether its program has a terminal, whether somebody can type, and whether it is removed
        #: when that has ended: -t, -i and --rm.
        self.tty = self.interactive = self.auto_remove = False
        self.restart_policy: RestartPolicy = "no"
        #: Whether somebody has stopped it since it was started last.
        self.stopped_by_hand = False
        #: Its program, if that has a console; the last one, when it has ended.
        self.program: Attachable | None = None
        self.state: State = "created"
        self.exit_code = 0
        #: Whether its program has, where nobody stopped it; until it is started again.
        self.ended_by_itself = False
        self.created = self.started = self.finished = Moment.now()
        self.interface_address: IPv4Interface | None = None
        self.mac = ""
        #: The other end of its eth0, on the host.
        self.host_interface = ""
        #: Called with the first process when that has ended.
        self.on_exit: Callable[[Container, Process], None] = lambda *_: None
        self._lock = threading.Lock()
        self._is_on = False
        self.name = f"{host.name}/{name}"
        self.hostname = self.id[:12]

    def entered(self) -> AbstractContextManager[None]:
        self._require_running()
        return super().entered()

    def new_console(self) -> Console:
        """What its program may read and write when it is started the next time."""
        return Console(tty=self.tty, stdin=self.interactive)

    def start_main_process(self, console: Console | None = None) -> None:
        """Start the command, if there is one, as process 1; when it ends the container stops.

        One that never had a console needs none: nobody can attach to it.
        """
        if not self.command:
            return
        if self.program and not console:
            with self.new_console() as another:
                self.start_main_process(another)
            return
        env = console.environment | self.env if console else {}
        with self._lock:
            process = self._init = self._start_first_process(
                self.command, console=console, env={**env, "HOSTNAME": self.hostname}
            )
        if console:
            console.opened()
            self.program = Attachable(process, console)
        threading.Thread(target=self._follow, args=(process,), daemon=True).start()

    def _follow(self, process: Process) -> None:
        self.exit_code = shell_status(process.wait(threading.TIMEOUT_MAX))
        if self.program and self.program.process is process:
            self.program.console.ended()
        self.on_exit(self, process)

    @property
    def starts_with_daemon(self) -> bool:
        """By its restart policy; one that was never started does not."""
        return self.state == "exited" and (
            self.restart_policy == "always"
            or (self.restart_policy == "unless-stopped" and not self.stopped_by_hand)
        )

    def is_run_by(self, process: Process) -> bool:
        """Whether `process` is the container's first process, and not that of an earlier start."""
        return self._init is process

    def inhabited(self) -> Namespaces:
        self._require_running()
        return super().inhabited()

    def _furnish(self) -> None:
        # Before the private folders are mounted: they must stay writable.
        with self.entered():
            if self._own_disk:
                rootless = sandbox.kind() == "rootless"
                assert self.interface_address is not None
                hosts = f"127.0.0.1\tlocalhost\n{self.interface_address.ip}\t{self.hostname}\n"
                machine_root.mount(
                    self.id, hostname=self.hostname, hosts=hosts, rootless=rootless, container=True
                )
            else:
                syscalls.make_read_only("/")
        super()._furnish()

    def _require_running(self) -> None:
        if not self.host.is_on:
            raise XlabError(f"{self.host} is down, and its containers with it")
        if self.state not in ("starting", "running"):
            raise DockerError(f"Error response from daemon: container {self.id} is not running")


@dataclass(frozen=True, slots=True)
class Moment:
    """When something happened: the date to be shown, and by the steady clock, for its age."""

    date: datetime
    at_s: float

    @classmethod
    def now(cls) -> Moment:
        return cls(datetime.now(UTC), steady())

    @property
    def age_s(self) -> float:
        return steady() - self.at_s


@dataclass(frozen=True, slots=True)
class SystemContainer:
    """A program in the host's own network that `docker ps` lists."""

    short_name: str
    id: str
    image: str
    process: Process
    created: Moment


_ADJECTIVES = ("brave", "busy", "clever", "eager", "gentle", "happy", "keen", "nimble", "quiet")
_SURNAMES = (
    "cerf",
    "dijkstra",
    "hamilton",
    "hopper",
    "kahn",
    "lamarr",
    "perlman",
    "postel",
    "shannon",
)


class Docker:
    """The daemon of one host, and the client's commands as methods."""

    def __init__(self, host: Node, *, own_disks: bool = False) -> None:
        """With `own_disks` its containers have an /etc and the like of their own."""
        self.host = host
        self._own_disks = own_disks
        #: Called when the daemon has been started.
        self.on_start: Callable[[], None] = lambda: None
        self.options = DaemonOptions()
        self.bridge = ""
        self.network_id = secrets.token_hex(32)
        self._pool: ipam.BridgePool | None = None
        #: What the daemon has put into iptables; "" before its first start.
        self._rules = ""
        self._containers: dict[str, Container] = {}
        #: Containers in the host's own network, by name.
        self._system: dict[str, SystemContainer] = {}
        self._lock = threading.RLock()
        self._random = random.Random()

    # -- the daemon --------------------------------------------------------------------------------

    def start(self, options: DaemonOptions | None = None) -> None:
        """`systemctl start docker`; raises DockerError in dockerd's words if it would not start."""
        options = options or DaemonOptions()
        with commands.step(self.host.name, options.command_line()):
            self._start(options)
        for container in self.all_containers:
            if container.starts_with_daemon:
                # Docker writes why it could not into its log, and goes on.
                with suppress(XlabError):
                    self.start_container(container)
                # A minute has been waited for its shell.  The next one's may be like it.
                if container.is_mute:
                    break
        self.on_start()

    def shut_down(self) -> None:
        """`systemctl stop docker`: running containers are stopped; bridge and rules stay.

        The weave router goes on: its container has the restart policy "always".
        """
        with self._lock:
            for container in self.containers:
                self._halt(container)
            self._pool = None

    def _start(self, options: DaemonOptions) -> None:
        if options.bridge and options.bip:
            raise ipam.bridge_and_bip()
        bridge = options.bridge or DEFAULT_BRIDGE
        there = self.host.rtnl.has(bridge)
        if options.bridge and not there:
            raise ipam.missing_bridge(bridge)
        found = self.host.device_address(bridge) if there else None
        wanted = ipam.parse_bip(options.bip) if options.bip else None
        self._pool = ipam.BridgePool(
            wanted or found,
            fixed_cidr=options.fixed_cidr,
            default_gateway=options.default_gateway,
            version=options.version,
        )
        with self.host.rtnl.batch() as batch:
            if not there:
                batch.add_bridge(bridge)
            if wanted and found and found != wanted:
                batch.delete_address(bridge, found)
            if found != self._pool.bridge_address:
                batch.add_address(bridge, self._pool.bridge_address)
            batch.set_up(bridge)
        self.options, self.bridge = options, bridge
        self.network_id = secrets.token_hex(32)
        self._configure_forwarding()

    def _configure_forwarding(self) -> None:
        switched_on = False
        if self.options.ip_forward and self.host.sysctl("net.ipv4.ip_forward") == "0":
            self.host.set_sysctl("net.ipv4.ip_forward", 1)
            switched_on = True
        if not self.options.iptables:
            return
        drop = switched_on and self.options.forward_policy == "drop"
        assert self._pool is not None
        rules = _RULES.format(subnet=self._pool.subnet, bridge=self.bridge)
        text = _FIRST_RULES if not self._rules else _without(self._rules)
        self.host.configure(["iptables-restore", "--noflush"], stdin=(text + rules).encode())
        if drop:
            self.host.configure(["iptables", "-P", "FORWARD", "DROP"])
        self._rules = rules

    def crash(self) -> None:
        """The host's power has failed: nothing runs and no address is out.

        What Docker keeps on disk is still there: containers, which are "exited" now.  One without a
        restart policy must be started by somebody, once the daemon has been started again.
        """
        with self._lock:
            fallen, self._pool, self._rules = self.containers, None, ""
            self._system.clear()
            for container in fallen:
                container.state = "exited"
                container.interface_address = None
                container.close()

    def adopt(self, name: str, *, image: str, process: Process) -> None:
        """List a program that runs in the host's own network as a container (`--net=host`)."""
        self._system[name] = SystemContainer(
            name, secrets.token_hex(32), image, process, Moment.now()
        )

    def in_host_network(self) -> list[SystemContainer]:
        """What was adopted and runs."""
        return [one for one in self._system.values() if one.process.poll() is None]

    def names(self) -> list[str]:
        """The names in `docker ps`: those of programs in the host's network first."""
        system = [one.short_name for one in self.in_host_network()]
        return system + [container.short_name for container in self.containers]

    @property
    def is_running(self) -> bool:
        """Whether the daemon is."""
        return self._pool is not None

    @property
    def subnet(self) -> str:
        """Of the bridge network, while the daemon runs."""
        return str(self._running_pool().subnet)

    @property
    def range(self) -> IPv4Network:
        """Where addresses of its containers come from, while the daemon runs: --fixed-cidr."""
        pool = self._running_pool()
        host_bits = (int(pool.last) - int(pool.first)).bit_length()
        return IPv4Network((pool.first, 32 - host_bits))

    @property
    def gateway(self) -> str:
        """The default route of its containers, while the daemon runs."""
        return str(self._running_pool().gateway)

    # -- containers --------------------------------------------------------------------------------

    @property
    def all_containers(self) -> list[Container]:
        """Running or not, in the order of their creation."""
        return list(self._containers.values())

    @property
    def containers(self) -> list[Container]:
        """Running containers, in the order of their creation."""
        return [c for c in self._containers.values() if c.state == "running"]

    def create(
        self, name: str | None = None, *, image: str = "busybox", command: Sequence[str] = ()
    ) -> Container:
        """`docker create`: takes no address yet."""
        with self._lock:
            if name is None:
                name = self._unused_name()
            elif not _NAME.fullmatch(name):
                raise DockerError(
                    f"docker: Error response from daemon: Invalid container name ({name}), only "
                    "[a-zA-Z0-9][a-zA-Z0-9_.-] are allowed.",
                    exit_code=125,
                )
            if name in self._containers:
                raise DockerError(
                    f'docker: Error response from daemon: Conflict. The container name "/{name}" '
                    f'is already in use by container "{self._containers[name].id}". You have to '
                    "remove (or rename) that container to be able to reuse that name.",
                    exit_code=125,
                )
            container = Container(
                self.host, name, image=image, command=command, own_disk=self._own_disks
            )
            container.on_exit = self._exited
            self._containers[name] = container
            return container

    def run(
        self, name: str | None = None, *, image: str = "busybox", command: Sequence[str] = ()
    ) -> Container:
        """`docker run -d [--name NAME] IMAGE [COMMAND]`; without a command it just stays."""
        container = self.create(name, image=image, command=command)
        # A shell with a terminal stays, where busybox alone would end at once.
        words = ["docker", "run", "-dit", "--name", container.short_name, image, *command]
        try:
            with commands.step(self.host.name, shlex.join(words)):
                self.start_container(container)
        except DockerError as error:
            # The container stays behind in the state Created, as Docker leaves it.
            raise ipam.run_error(error) from error
        return container

    def _unused_name(self) -> str:
        """Made of two words, as Docker's are; with a number when both have been used."""
        name = f"{self._random.choice(_ADJECTIVES)}_{self._random.choice(_SURNAMES)}"
        while name in self._containers:
            name += str(self._random.randrange(10))
        return name

    def start_container(
        self,
        container: Container,
        console: Console | None = None,
        *,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        """`docker start`: takes the lowest free address, which may differ from the last one.

        `prepare` is called when it has its network, before its program is started on the console,
        which is not opened if the container runs already.
        """
        with self._as_long_as_it_takes():
            if container.state == "running":
                return
            pool = self._running_pool()
            address = pool.allocate(self.network_id)
            before, container.state = container.state, "starting"
            try:
                container.boot()
                self._plug_in(container, address, pool)
                container.started = Moment.now()
                prepare()
                container.start_main_process(console)
                if container.command:
                    commands.started(container.name, container.command)
            except BaseException:
                self._unplug(container)
                container.state = before
                pool.release(address)
                raise
            container.state, container.ended_by_itself = "running", False
            container.stopped_by_hand = False

    def start_all(self) -> list[Container]:
        """`docker start $(docker ps -aq)`, in the order of their creation; returns them."""
        for container in self._containers.values():
            self.start_container(container)
        return self.containers

    def stop(self, container: Container) -> None:
        """`docker stop`: its processes end, its interface and address go."""
        with self._lock:
            container.stopped_by_hand = True
            self._halt(container)

    def _halt(self, container: Container) -> None:
        with self._lock:
            if container.state != "running":
                return
            container.state = "exited"
            container.finished = Moment.now()
            self._unplug(container)
            assert container.interface_address is not None
            self._running_pool().release(container.interface_address.ip)
            container.interface_address = None

    def restart(self, container: Container) -> None:
        """`docker restart`."""
        with self._as_long_as_it_takes():
            self.stop(container)
            self.start_container(container)

    def remove(self, container: Container, *, force: bool = False) -> None:
        """`docker rm [-f]`."""
        with self._lock:
            if container.state == "running":
                if not force:
                    raise DockerError(
                        f"Error response from daemon: cannot remove container "
                        f'"/{container.short_name}": container is running: stop the container '
                        "before removing or force remove"
                    )
                self.stop(container)
            self._containers.pop(container.short_name, None)
            if self._own_disks:
                machine_root.discard(container.id)

    def container(self, name: str) -> Container:
        """By its name or the beginning of its ID.

        The daemon looks for a name first, since one in 256 IDs begins with "c2".
        """
        if found := self._containers.get(name):
            return found
        matching = [c for c in self._containers.values() if name and c.id.startswith(name)]
        if len(matching) > 1:
            raise DockerError(
                f"Error response from daemon: Multiple IDs found with provided prefix: {name}"
            )
        if matching:
            return matching[0]
        raise DockerError(f"Error response from daemon: No such container: {name}")

    # -- plumbing ----------------------------------------------------------------------------------

    @contextmanager
    def _as_long_as_it_takes(self) -> Iterator[None]:
        """Others wait meanwhile, and whoever does when the power fails has waited in vain.

        Many who each wait a minute for a silent shell would else be before `crash`.
        """
        crashes = self.host.crashes
        with self._lock:
            if self.host.crashes != crashes:
                raise _no_daemon()
            yield

    def _running_pool(self) -> ipam.BridgePool:
        if self._pool is None:
            raise _no_daemon()
        return self._pool

    def _plug_in(self, container: Container, address: IPv4Address, pool: ipam.BridgePool) -> None:
        random_macs = self.options.version >= 28
        container.mac = ipam.random_mac(self._random) if random_macs else ipam.mac_address(address)
        container.interface_address = IPv4Interface((address, pool.subnet.prefixlen))
        container.host_interface = f"veth{secrets.token_hex(4)[:7]}"
        self.host.rtnl.now.add_veth(
            container.host_interface,
            "eth0",
            peer_namespace=container.namespaces.net,
            mtu=self.options.mtu,
            peer_mac=container.mac,
            master=self.bridge,
        )
        container.add_address("eth0", container.interface_address, gateway=pool.gateway)

    def _unplug(self, container: Container) -> None:
        """Take the container's interface away, and end what runs in it.

        The kernel frees a namespace some time after its last reference is gone; the interface must
        be gone by then, or it could still answer for an address that is handed out again.
        """
        self.host.rtnl.remove_link(container.host_interface)
        if container.is_on:  # else it could not even be booted
            container.close()

    def _exited(self, container: Container, process: Process) -> None:
        with self._lock:
            # It may have been stopped and started again before this thread heard of its end.
            if container.is_run_by(process):
                container.ended_by_itself = container.state == "running"
                self._halt(container)
                if container.auto_remove:
                    self.remove(container)


def _no_daemon() -> DockerError:
    return DockerError(
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. "
        "Is the docker daemon running?"
    )


#: DOCKER-USER is the user's: made once, and never touched again.
_FIRST_RULES = """*filter
:DOCKER-USER - [0:0]
-A DOCKER-USER -j RETURN
COMMIT
"""


def _without(rules: str) -> str:
    """What takes `rules` out of the built-in chains again; declaring a chain of ours empties it."""
    lines = [
        line.replace("-A ", "-D ", 1)
        for line in rules.splitlines()
        if not line.startswith("-A DOCKER")
    ]
    return "\n".join(lines) + "\n"


#: As `iptables-save` shows them on a host with one bridge network.
_RULES = """*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s {subnet} ! -o {bridge} -j MASQUERADE
-A DOCKER -i {bridge} -j RETURN
COMMIT
*filter
:DOCKER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o {bridge} -j DOCKER
-A FORWARD -i {bridge} ! -o {bridge} -j ACCEPT
-A FORWARD -i {bridge} -o {bridge} -j ACCEPT
COMMIT
"""
