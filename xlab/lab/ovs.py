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
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xlab import processes
from xlab.errors import DaemonError, DeadlineError, XlabError
from xlab.lab.ovsdb import Database, OvsdbError, add_to_set, insert, mapping, reference
from xlab.processes import Process, wait_until

if TYPE_CHECKING:
    from xlab.lab.node import Node

Datapath = Literal["kernel", "userspace"]

#: Outer IPv4 header, GRE header, inner Ethernet header, RFC 2784 and RFC 1701.
GRE_OVERHEAD_BYTES = 20 + 4 + 14

#: ovs-vsctl and ovs-appctl look here by themselves; /run is the host's own.
_RUN = "/run/openvswitch"
_SOCKET = f"{_RUN}/db.sock"
_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


class OpenVSwitch:
    """The Open vSwitch of one host."""

    def __init__(self, host: Node, datapath: Datapath) -> None:
        self.host = host
        self.datapath = datapath
        self._type = "" if datapath == "kernel" else "netdev"
        self._daemons: dict[str, Process] = {}
        self._database: Database | None = None
        self._numbers = 0

    # -- daemons -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start both daemons on an empty database; DaemonError if one dies or does not answer."""
        template = _database_template(userspace=self.datapath == "userspace")
        self.host.make_folder(_RUN)
        with self.host.entered():
            Path(_RUN, "conf.db").write_bytes(template)
        options = ["--pidfile", "-vconsole:info", "-vsyslog:off", "-vfile:off"]
        self._daemons["ovsdb-server"] = self.host.spawn(
            ["ovsdb-server", f"{_RUN}/conf.db", f"--remote=punix:{_SOCKET}", *options]
        )
        self._await("ovsdb-server", self._connect, "its socket")
        # --disable-system: without it vswitchd looks the kernel's datapath up by name at its start,
        # and the kernel loads a module for whoever asks.
        only = ["--disable-system"] if self.datapath == "userspace" else []
        self._daemons["ovs-vswitchd"] = self.host.spawn(
            ["ovs-vswitchd", f"unix:{_SOCKET}", *only, *options]
        )

    def pids(self) -> list[int]:
        """The daemons' process numbers in the sandbox."""
        return [daemon.pid for daemon in self._daemons.values()]

    def daemon(self, name: str) -> Process:
        return self._daemons[name]

    def require_alive(self) -> None:
        """DaemonError, with the tail of its log, if one of the daemons has died."""
        if any(process.poll() is not None for process in self._daemons.values()):
            raise self._blame("it was needed until the end")

    # -- configuration -----------------------------------------------------------------------------

    def add_bridge(
        self, name: str, *, internal_ports: Sequence[str] = (), mac: str | None = None
    ) -> None:
        """`ovs-vsctl add-br NAME` (and `add-port NAME P -- set interface P type=internal` …)."""
        operations = []
        ports = []
        for port in (name, *internal_ports):
            operation, new = self._port(port, {"type": "internal"}, {})
            operations += operation
            ports.append(reference(new))
        bridge: dict[str, Any] = {"name": name, "ports": ["set", ports]}
        # In the same transaction, or the bridge first comes up on the wrong datapath.
        bridge["datapath_type"] = self._type
        if mac:
            bridge["other_config"] = mapping({"hwaddr": mac})
        symbol = self._symbol("bridge")
        operations.append(insert("Bridge", bridge, symbol))
        operations.append(add_to_set("Open_vSwitch", [], "bridges", [reference(symbol)]))
        self._commit(operations)

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
        target = [["name", "==", bridge]]
        operations.append(add_to_set("Bridge", target, "ports", [reference(symbol)]))
        self._commit(operations)
        self._refuse_broken(name)

    def delete_port(self, bridge: str, name: str) -> None:
        """`ovs-vsctl del-port BRIDGE NAME`."""
        select = {"op": "select", "table": "Port", "where": [["name", "==", name]],
                  "columns": ["_uuid"]}  # fmt: skip
        (result,) = self._transact([select])
        if not result["rows"]:
            raise XlabError(f"{self.host}: no port named {name}")
        mutation = ["ports", "delete", ["set", [result["rows"][0]["_uuid"]]]]
        self._commit(
            [{"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]],
              "mutations": [mutation]}]
        )  # fmt: skip

    def show(self) -> str:
        """What `ovs-vsctl show` prints."""
        return self.host.run(["ovs-vsctl", "--timeout=5", "show"]).stdout

    def appctl(self, *arguments: str) -> str:
        """What `ovs-appctl ARGUMENTS` prints."""
        return self.host.run(["ovs-appctl", "--timeout=5", *arguments]).stdout

    # -- plumbing ----------------------------------------------------------------------------------

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

    def _commit(self, operations: list[dict[str, Any]]) -> None:
        try:
            self._connection().commit(*operations)
        except OvsdbError as error:
            raise self._blame(str(error)) from error

    def _transact(self, operations: list[dict[str, Any]]) -> list[Any]:
        try:
            return self._connection().transact(*operations)
        except OvsdbError as error:
            raise self._blame(str(error)) from error

    def _refuse_broken(self, interface: str) -> None:
        """vswitchd commits a port it cannot make and leaves the reason in the row's `error`."""
        select = {"op": "select", "table": "Interface", "where": [["name", "==", interface]],
                  "columns": ["error", "ofport"]}  # fmt: skip
        (result,) = self._transact([select])
        for row in result["rows"]:
            if isinstance(row["error"], str) and row["error"]:
                raise XlabError(f"{self.host}: Open vSwitch: {interface}: {row['error']}")

    def _connection(self) -> Database:
        if self._database is None:
            raise XlabError(f"{self.host}: Open vSwitch is not running")
        return self._database

    def _connect(self) -> bool:
        with self.host.entered():
            try:
                self._database = Database(_SOCKET, alive=self._vswitchd_runs)
            except (FileNotFoundError, ConnectionRefusedError):
                return False
        return True

    def _vswitchd_runs(self) -> bool:
        daemon = self._daemons.get("ovs-vswitchd")
        return daemon is None or daemon.poll() is None

    def _await(self, daemon: str, condition: Any, awaited: str) -> None:
        process = self._daemons[daemon]

        def ready() -> bool:
            return condition() or process.poll() is not None

        try:
            wait_until(ready, timeout_s=30.0, awaited=awaited)
        except DeadlineError as error:
            raise self._blame(str(error)) from error
        if process.poll() is not None:
            raise self._blame("died at its start")

    def _blame(self, reason: str) -> DaemonError:
        """The error that names the daemon at fault: a dead one if there is one, with its log."""
        for name, process in self._daemons.items():
            status = process.poll()
            if status is not None:
                return DaemonError(
                    name,
                    node=str(self.host),
                    reason=f"has ended (status {status}); {reason}",
                    log_tail=process.stderr_tail(),
                )
        name = "ovs-vswitchd" if "vswitchd" in reason else "ovsdb-server"
        process = self._daemons[name]
        return DaemonError(name, node=str(self.host), reason=reason, log_tail=process.stderr_tail())


_template_lock = threading.Lock()
_templates: dict[bool, bytes] = {}


def _database_template(*, userspace: bool) -> bytes:
    """The bytes of a database with its one Open_vSwitch row, made once a lab by `ovsdb-tool`.

    TSO in the userspace datapath is read once, when vswitchd starts.
    """
    with _template_lock:
        if userspace not in _templates:
            path = f"/tmp/conf-{userspace}.db"
            other = {"userspace-tso-enable": "true"} if userspace else {}
            row = {"op": "insert", "table": "Open_vSwitch", "row": {"other_config": mapping(other)}}
            processes.run(["ovsdb-tool", "create", path, _SCHEMA], node="sandbox")
            transaction = json.dumps(["Open_vSwitch", row])
            processes.run(["ovsdb-tool", "transact", path, transaction], node="sandbox")
            _templates[userspace] = Path(path).read_bytes()
        return _templates[userspace]


def programs_present() -> bool:
    """Whether Open vSwitch is installed."""
    search = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
    return all(
        shutil.which(name, path=search)
        for name in ("ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl")
    )
