"""Open vSwitch on one host: its own ovsdb-server and ovs-vswitchd, configured over OVSDB.

Kernel datapath, where the kernel has it live:      eth0 is the host's veth, tunnels use its routes.
Userspace datapath elsewhere (datapath_type=netdev):

    host:  br0 ── obr0 (tap) ── gre0 ┄┄ eth0 (tap, bridge "eth0") ── p1 (tap) ··> wire: s1-eth1

Userspace tunnels find their peers only over an address that sits on a netdev bridge; the bridge is
therefore called eth0, and `dev eth0` means what it always does.  Its uplink is an internal port
moved into the switches' namespace: a veth there would overflow its packet-socket buffer.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Literal

from xlab.errors import DaemonError, DeadlineError, XlabError
from xlab.kernel import foreign, processes
from xlab.kernel.clock import Deadline
from xlab.kernel.patience import Patience
from xlab.kernel.processes import Process, wait_until
from xlab.lab import commands
from xlab.lab.node import Node
from xlab.lab.ovsdb import (
    Database,
    OvsdbError,
    first_message,
    insert,
    mapping,
    mutate,
    reference,
    select,
)

Datapath = Literal["kernel", "userspace"]

#: Outer IPv4 header, GRE header, inner Ethernet header, RFC 2784 and RFC 1701.
GRE_OVERHEAD_BYTES = 20 + 4 + 14

#: ovs-vsctl and ovs-appctl look here by themselves; /run is the host's own.
_RUN = "/run/openvswitch"
_SOCKET = f"{_RUN}/db.sock"
_DATABASE_FILE = Path(_RUN, "conf.db")
_LONGEST_CONTROL_BYTES = 1 << 20
#: A mesh of 64 hosts comes to some 100 kB.
_LONGEST_DATABASE_BYTES = 64 << 20
#: In the order in which they are started.
DAEMONS = ("ovsdb-server", "ovs-vswitchd")
_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


#: It waits until ovs-vswitchd has done it, for ever without a limit.
_VSCTL = ("ovs-vsctl", "--timeout=30")

_TUNNELS = ("gre", "vxlan", "geneve")
_PATIENCE_S = 30.0

#: What somebody sets in a row, ovs-vswitchd.conf.db(5); all else is what ovs-vswitchd tells.
_SET_OF_PORT = (
    "name", "trunks", "cvlans", "tag", "vlan_mode", "qos", "mac", "bond_mode", "lacp",
    "bond_updelay", "bond_downdelay", "bond_fake_iface", "fake_bridge", "protected",
    "other_config", "external_ids",
)  # fmt: skip
_SET_OF_INTERFACE = (
    "name", "type", "options", "mac", "mtu_request", "ofport_request", "ingress_policing_rate",
    "ingress_policing_burst", "ingress_policing_kpkts_rate", "ingress_policing_kpkts_burst",
    "bfd", "cfm_mpid", "lldp", "other_config", "external_ids",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Port:
    """An interface of a bridge, and of its port what matters here."""

    name: str
    #: "system" of what the kernel has.
    type: str
    options: Mapping[str, str]
    protected: bool
    #: Why ovs-vswitchd could not make it; "" if it could.
    error: str


@dataclass(frozen=True, slots=True)
class Bridge:
    name: str
    ports: tuple[Port, ...]
    #: Whether it speaks (R)STP, which opens loops.
    opens_loops: bool


class OpenVSwitch:
    """The Open vSwitch of one host."""

    def __init__(self, host: Node, datapath: Datapath) -> None:
        self.host = host
        self.datapath = datapath
        self._type = "" if datapath == "kernel" else "netdev"
        self._daemons: dict[str, Process] = {}
        self._database: Database | None = None
        #: conf.db, while the host is down.
        self._disk = b""
        self._numbers = 0
        #: Between `at_once` and its end: operations, and the ports that they add.
        self._collecting = False
        self._waiting: list[dict[str, Any]] = []
        self._new_ports: list[str] = []

    # -- daemons -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start both daemons on an empty database; DaemonError if one dies or does not answer."""
        userspace = self.datapath == "userspace"
        with commands.step(self.host.name, "systemctl start openvswitch-switch"):
            self._write_database(_database_template(userspace=userspace))
            for command in _making_database(str(_DATABASE_FILE), userspace=userspace):
                commands.did(self.host.name, command)
            for name in DAEMONS:
                self._start_daemon(name)

    def boot(self) -> None:
        """Start both daemons on the database that `crash` has left, in the host's new namespaces.

        ovs-vswitchd makes the bridges and ports that are in it.
        """
        self._write_database(self._disk)
        self.restart("ovs-vswitchd")

    def crash(self) -> None:
        """The daemons are dead; keep what a real host has on disk: conf.db, and nothing else.

        Where somebody has done away with it, the next start makes a new one, as the package's does.
        """
        self._disconnect()
        if self._disk and not self._daemons:
            return  # the host did not come up so far
        with self.host.entered():
            try:
                self._disk = foreign.read(_DATABASE_FILE, longest_bytes=_LONGEST_DATABASE_BYTES)
            except (FileNotFoundError, XlabError):
                self._disk = _database_template(userspace=self.datapath == "userspace")
        self._daemons.clear()

    def kill(self, name: str) -> None:
        """SIGKILL to one of `DAEMONS`; it stays dead until `restart`."""
        self._daemons[name].stop()

    def stop(self) -> None:
        """End both daemons, for good."""
        self._disconnect()
        for process in self._daemons.values():
            process.stop()

    def restart(self, name: str) -> None:
        """Start a daemon again, and wait until ovs-vswitchd, if it runs, has done what it is told.

        ovs-vswitchd.service requires ovsdb-server.service: the one starts the other.
        """
        for needed in DAEMONS[: DAEMONS.index(name) + 1]:
            if not self._runs(needed):
                self._start_daemon(needed)
        if self._runs("ovs-vswitchd") and self._runs("ovsdb-server"):
            self._await_configuration()

    def _start_daemon(self, name: str) -> None:
        options = ["--pidfile", "-vconsole:info", "-vsyslog:off", "-vfile:off"]
        if name == "ovsdb-server":
            self._disconnect()
            argv = [name, str(_DATABASE_FILE), f"--remote=punix:{_SOCKET}", *options]
            self._daemons[name] = self.host.spawn(argv, written=False)
            self._await(name, self._connect, "its socket")
            commands.started(self.host.name, argv, awaits=_SOCKET)
        else:
            # --disable-system: without it vswitchd looks the kernel's datapath up by name at its
            # start, and the kernel loads a module for whoever asks.
            only = ["--disable-system"] if self.datapath == "userspace" else []
            argv = [name, f"unix:{_SOCKET}", *only, *options]
            self._daemons[name] = self.host.spawn(argv)

    def _await_configuration(self) -> None:
        """Wait until ovs-vswitchd has done what is in the database.

        One that has lost its server asks for it again after 1, 2, 4 and then every 8 s
        (lib/reconnect.c of Open vSwitch).
        """
        self._transact([mutate("Open_vSwitch", [], "next_cfg", "+=", 1)])

        def applied() -> bool:
            (row,) = self._rows("Open_vSwitch", "next_cfg", "cur_cfg")
            return bool(row["cur_cfg"] == row["next_cfg"])

        self._await("ovs-vswitchd", applied, "its configuration")

    def _write_database(self, content: bytes) -> None:
        self.host.make_folder(_RUN)
        with self.host.entered():
            foreign.put(_DATABASE_FILE, content)

    def pids(self) -> list[int]:
        """The daemons' process numbers in the sandbox."""
        return [daemon.pid for daemon in self._daemons.values()]

    def alive(self) -> dict[str, bool]:
        """Whether each daemon runs."""
        return {name: self._runs(name) for name in DAEMONS}

    def require_alive(self) -> None:
        """DaemonError, with the tail of its log, if one of the daemons has died."""
        if any(process.poll() is not None for process in self._daemons.values()):
            raise self._blame("it was needed until the end")

    # -- configuration -----------------------------------------------------------------------------

    def add_bridge(
        self,
        name: str,
        *,
        internal_ports: Sequence[str] = (),
        mac: str | None = None,
        mtu: int | None = None,
    ) -> None:
        """`ovs-vsctl add-br NAME` (and `add-port NAME P -- set interface P type=internal` …)."""
        operations = []
        ports = []
        for port in (name, *internal_ports):
            interface = {"type": "internal"} | ({"mtu_request": mtu} if mtu else {})
            operation, new = self._port(port, interface, {})
            operations += operation
            ports.append(reference(new))
        bridge: dict[str, Any] = {"name": name, "ports": ["set", ports]}
        # In the same transaction, or the bridge first comes up on the wrong datapath.
        bridge["datapath_type"] = self._type
        if mac:
            bridge["other_config"] = mapping({"hwaddr": mac})
        symbol = self._symbol("bridge")
        operations.append(insert("Bridge", bridge, symbol))
        members = ["set", [reference(symbol)]]
        operations.append(mutate("Open_vSwitch", [], "bridges", "insert", members))
        self._transact(operations, apply=True)
        settings = [f"datapath_type={self._type}"] if self._type else []
        settings += [f'other_config:hwaddr="{mac}"'] if mac else []
        command = ["add-br", name]
        command += ["--", "set", "bridge", name, *settings] if settings else []
        for port in internal_ports:
            command += ["--", "add-port", name, port]
            command += ["--", "set", "interface", port, "type=internal"]
        for port in (name, *internal_ports) if mtu else ():
            command += ["--", "set", "interface", port, f"mtu_request={mtu}"]
        with commands.step(self.host.name, f"ovs-vsctl add-br {name}"):
            commands.did(self.host.name, [*_VSCTL, *command])

    def add_port(
        self,
        bridge: str,
        name: str,
        *,
        type: str = "",  # noqa: A002 - the name of the column
        options: Mapping[str, str] | None = None,
        protected: bool = False,
    ) -> None:
        """`ovs-vsctl add-port BRIDGE NAME -- set interface NAME type=… options:…`.

        Protected ports do not forward to each other: split horizon for a mesh of tunnels.
        """
        row: dict[str, Any] = {"type": type}
        if options:
            row["options"] = mapping(dict(options))
        operations, symbol = self._port(name, row, {"protected": True} if protected else {})
        members = ["set", [reference(symbol)]]
        operations.append(mutate("Bridge", _named(bridge), "ports", "insert", members))
        with self.at_once():
            self._waiting += operations
            self._new_ports.append(name)
        command = ["add-port", bridge, name]
        command += ["--", "set", "port", name, "protected=true"] if protected else []
        settings = [f"type={type}"] if type else []
        settings += [f"options:{key}={value}" for key, value in (options or {}).items()]
        command += ["--", "set", "interface", name, *settings] if settings else []
        with commands.step(self.host.name, " ".join(["ovs-vsctl", *command])):
            commands.did(self.host.name, [*_VSCTL, *command])

    def delete_port(self, bridge: str, name: str) -> None:
        """`ovs-vsctl del-port BRIDGE NAME`."""
        rows = self._rows("Port", "_uuid", where=_named(name))
        if not rows:
            raise XlabError(f"{self.host}: no port named {name}")
        members = ["set", [rows[0]["_uuid"]]]
        with self.at_once():
            self._waiting.append(mutate("Bridge", _named(bridge), "ports", "delete", members))
        with commands.step(self.host.name, f"ovs-vsctl del-port {bridge} {name}"):
            commands.did(self.host.name, [*_VSCTL, "del-port", bridge, name])

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Ports added and deleted in the block go into one transaction, at its end.

        `ovs-vsctl add-port … -- add-port …`: ovs-vswitchd reconfigures itself once, not each time.
        """
        if self._collecting:
            yield
            return
        self._collecting = True
        try:
            yield
            operations, self._waiting = self._waiting, []
            ports, self._new_ports = self._new_ports, []
            if operations:
                self._transact(operations, apply=True)
            self._refuse_broken(ports)
        finally:
            self._collecting = False
            self._waiting, self._new_ports = [], []

    def know_neighbours(self, bridge: str, neighbours: Mapping[IPv4Address, str]) -> None:
        """`ovs-appctl tnl/neigh/set BRIDGE ADDRESS MAC` for each: where tunnels find their peers.

        In user space ovs-vswitchd sends its own ARP requests for them.  In a mesh of n hosts that
        is one a pair, each of which n daemons take apart: n cubed.
        """
        requests = [
            {"method": "tnl/neigh/set", "params": [bridge, str(address), mac], "id": number}
            for number, (address, mac) in enumerate(neighbours.items())
        ]
        try:
            self._control(requests)
        except (OvsdbError, OSError) as error:
            raise self._blame(f"ovs-vswitchd's control socket: {error}") from error
        for address, mac in neighbours.items():
            command = ["ovs-appctl", "tnl/neigh/set", bridge, str(address), mac]
            commands.did(self.host.name, command)

    def tunnels(self) -> int:
        """How many ports are ends of tunnels."""
        # Without the name there is one row a type.
        return sum(row["type"] in _TUNNELS for row in self._rows("Interface", "name", "type"))

    def ports(self) -> list[str]:
        """Every interface with its type and options, "gre0 gre remote_ip=192.168.59.104", sorted.

        XlabError while ovsdb-server is dead.
        """
        return sorted(
            " ".join(
                [row["name"], row["type"]]
                + [f"{key}={value}" for key, value in sorted(row["options"][1])]
                + ([f"ERROR {row['error']}"] if isinstance(row["error"], str) else [])
            )
            for row in self._rows("Interface", "name", "type", "options", "error")
        )

    def bridges(self) -> list[Bridge]:
        """Every bridge and what is plugged into it, as the database has it.

        XlabError while ovsdb-server is dead.
        """
        asked = [
            select("Bridge", "name", "ports", "stp_enable", "rstp_enable"),
            select("Port", "_uuid", "interfaces", "protected"),
            select("Interface", "_uuid", "name", "type", "options", "error"),
        ]
        try:
            return _bridges(*(result["rows"] for result in self._transact(asked)))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise XlabError(f"{self.host}: Open vSwitch says what cannot be read") from error

    def take_out(self, names: Sequence[str]) -> Callable[[], None]:
        """`ovs-vsctl del-port NAME` of several at once; what is returned puts them back.

        With all that somebody has set, and under the same OpenFlow numbers, which flows may name.
        """
        found = [(name, *self._whole_port(name)) for name in names]
        self._transact(
            [
                mutate("Bridge", _known(bridge), "ports", "delete", ["set", [port["_uuid"]]])
                for _, bridge, port, _ in found
            ],
            apply=True,
        )

        def put_back() -> None:
            operations, numbers = [], []
            for _, bridge, port, interfaces in found:
                symbols = []
                for row in interfaces:
                    symbols.append(self._symbol("interface"))
                    settings = {key: row[key] for key in _SET_OF_INTERFACE if key in row}
                    if isinstance(row["ofport"], int) and row["ofport"] > 0:
                        number = {"ofport_request": row["ofport_request"]}
                        numbers.append({"op": "update", "table": "Interface",
                                        "where": _named(row["name"]), "row": number})  # fmt: skip
                        settings["ofport_request"] = row["ofport"]
                    operations.append(insert("Interface", settings, symbols[-1]))
                settings = {key: port[key] for key in _SET_OF_PORT if key in port}
                settings["interfaces"] = ["set", list(map(reference, symbols))]
                symbol = self._symbol("port")
                operations.append(insert("Port", settings, symbol))
                member = ["set", [reference(symbol)]]
                operations.append(mutate("Bridge", _known(bridge), "ports", "insert", member))
            self._transact(operations, apply=True)
            if numbers:  # a number that nobody asks for any more is kept
                self._transact(numbers, apply=True)
            self._refuse_broken(names)

        return put_back

    # -- plumbing ----------------------------------------------------------------------------------

    def _control(self, requests: Sequence[Mapping[str, Any]]) -> None:
        """Have ovs-vswitchd do all of it, as ovs-appctl would, and wait until it has.

        OvsdbError, or OSError, if it does not: whoever is root in the host decides who answers.
        """
        deadline = Deadline(_PATIENCE_S)
        with self.host.entered():
            paths = list(Path(_RUN).glob("ovs-vswitchd.*.ctl"))
            if len(paths) != 1:
                raise OvsdbError(f"there are {len(paths)}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            # Where the queue is full connect(2) waits, for ever without a limit, unix(7).
            control.setblocking(False)
            with self.host.entered():
                control.connect(str(paths[0]))
            control.settimeout(_PATIENCE_S)
            control.sendall("".join(map(json.dumps, requests)).encode())
            received = b""
            for _ in requests:
                while not (found := first_message(received)):
                    control.settimeout(max(0.001, deadline.left_s()))
                    data = control.recv(1 << 16)
                    if not data:
                        raise OvsdbError("it was closed")
                    received += data
                    if len(received) > _LONGEST_CONTROL_BYTES:
                        raise OvsdbError("an answer has no end")
                    if deadline.passed():
                        raise TimeoutError("timed out")
                answer, received = found
                if answer.get("error"):
                    raise XlabError(f"{self.host}: ovs-vswitchd: {answer['error']}")

    def _whole_port(self, name: str) -> tuple[list[str], dict[str, Any], list[dict[str, Any]]]:
        """A port's bridge, by UUID, its own row and those of its interfaces, with all columns."""
        every: list[dict[str, Any]] = [
            {"op": "select", "table": table, "where": []} for table in ("Port", "Interface")
        ]
        ports, interfaces = (result["rows"] for result in self._transact(every))
        for port in ports:
            if port["name"] != name:
                continue
            inside = set(_references(port["interfaces"]))
            for bridge in self._rows("Bridge", "_uuid", "ports"):
                if port["_uuid"][1] in _references(bridge["ports"]):
                    own = [row for row in interfaces if row["_uuid"][1] in inside]
                    return bridge["_uuid"], port, own
        raise XlabError(f"{self.host}: no port named {name}")

    def _port(
        self, name: str, interface: dict[str, Any], port: dict[str, Any]
    ) -> tuple[list[dict[str, Any]], str]:
        inner, outer = self._symbol("interface"), self._symbol("port")
        return [
            insert("Interface", {"name": name, **interface}, inner),
            insert("Port", {"name": name, "interfaces": reference(inner), **port}, outer),
        ], outer

    def _symbol(self, kind: str) -> str:
        self._numbers += 1
        return f"{kind}{self._numbers}"

    def _rows(self, table: str, *columns: str, where: Sequence[Any] = ()) -> list[dict[str, Any]]:
        (result,) = self._transact([select(table, *columns, where=where)])
        rows: list[dict[str, Any]] = result["rows"]
        return rows

    def _transact(self, operations: list[dict[str, Any]], *, apply: bool = False) -> list[Any]:
        """To `apply` it, ovs-vswitchd is waited for."""
        connection = self._connection()
        try:
            return (connection.commit if apply else connection.transact)(*operations)
        except OvsdbError as error:
            raise self._blame(str(error)) from error

    def _refuse_broken(self, interfaces: Sequence[str]) -> None:
        """vswitchd commits a port it cannot make and leaves the reason in the row's `error`."""
        errors = {row["name"]: row["error"] for row in self._rows("Interface", "name", "error")}
        for interface in interfaces:
            error = errors.get(interface)
            if isinstance(error, str) and error:
                raise XlabError(f"{self.host}: Open vSwitch: {interface}: {error}")

    def _connection(self) -> Database:
        if self._database is None:
            raise XlabError(f"{self.host}: Open vSwitch is not running")
        return self._database

    def _connect(self) -> bool:
        with self.host.entered():
            try:
                self._database = Database(
                    _SOCKET, alive=self._vswitchd_runs, patience=self._patience
                )
            except OvsdbError:
                return False
        return True

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _patience(self, timeout_s: float) -> Deadline:
        """With ovs-vswitchd, which makes interfaces."""
        daemon = self._daemons.get("ovs-vswitchd")
        return Patience(daemon.pid, timeout_s) if daemon else Deadline(timeout_s)

    def _vswitchd_runs(self) -> bool:
        return "ovs-vswitchd" not in self._daemons or self._runs("ovs-vswitchd")

    def _runs(self, name: str) -> bool:
        daemon = self._daemons.get(name)
        return daemon is not None and daemon.poll() is None

    def _await(self, daemon: str, condition: Any, awaited: str) -> None:
        process = self._daemons[daemon]

        def ready() -> bool:
            return condition() or process.poll() is not None

        try:
            wait_until(ready, timeout_s=30.0, awaited=awaited, pid=process.pid)
        except DeadlineError as error:
            raise self._blame(str(error)) from error
        if process.poll() is not None:
            raise self._blame("died at its start")

    def _blame(self, reason: str) -> DaemonError:
        """The error that names the daemon at fault: a dead one if there is one, with its log."""
        for name, process in self._daemons.items():
            if (status := process.poll()) is not None:
                return process.blamed(name, f"has ended (status {status}); {reason}")
        name = "ovs-vswitchd" if "vswitchd" in reason else "ovsdb-server"
        return self._daemons[name].blamed(name, reason)


def _bridges(
    bridges: Sequence[Mapping[str, Any]],
    ports: Sequence[Mapping[str, Any]],
    interfaces: Sequence[Mapping[str, Any]],
) -> list[Bridge]:
    port_of = {row["_uuid"][1]: row for row in ports}
    interface_of = {row["_uuid"][1]: row for row in interfaces}
    return [
        Bridge(
            str(bridge["name"]),
            tuple(
                _port(port_of[port], interface_of[interface])
                for port in _references(bridge["ports"])
                for interface in _references(port_of[port]["interfaces"])
            ),
            bridge["stp_enable"] is True or bridge["rstp_enable"] is True,
        )
        for bridge in bridges
    ]


def _port(port: Mapping[str, Any], interface: Mapping[str, Any]) -> Port:
    return Port(
        str(interface["name"]),
        str(interface["type"] or "system"),
        {str(key): str(value) for key, value in interface["options"][1]},
        port["protected"] is True,
        interface["error"] if isinstance(interface["error"], str) else "",
    )


def _references(value: list[Any]) -> list[str]:
    """UUIDs of a set, of which one stands by itself (RFC 7047, 5.1)."""
    return [value[1]] if value[0] == "uuid" else [uuid for _, uuid in value[1]]


def _named(name: str) -> list[list[str]]:
    """The condition that a row has this name."""
    return [["name", "==", name]]


def _known(uuid: list[str]) -> list[list[Any]]:
    """The condition that a row has this UUID."""
    return [["_uuid", "==", uuid]]


_template_lock = threading.Lock()
_templates: dict[bool, bytes] = {}


def _database_template(*, userspace: bool) -> bytes:
    """The bytes of a database with its one Open_vSwitch row, made once a lab by `ovsdb-tool`.

    TSO in the userspace datapath is read once, when vswitchd starts.
    """
    with _template_lock:
        if userspace not in _templates:
            path = f"/tmp/conf-{userspace}.db"
            for command in _making_database(path, userspace=userspace):
                processes.run(command, node="sandbox")
            _templates[userspace] = Path(path).read_bytes()
        return _templates[userspace]


def _making_database(path: str, *, userspace: bool) -> list[list[str]]:
    other = {"userspace-tso-enable": "true"} if userspace else {}
    row = {"op": "insert", "table": "Open_vSwitch", "row": {"other_config": mapping(other)}}
    return [
        ["ovsdb-tool", "create", path, _SCHEMA],
        ["ovsdb-tool", "transact", path, json.dumps(["Open_vSwitch", row])],
    ]
