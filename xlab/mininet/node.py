"""Mininet's nodes on the lab's engine: Node, Host, NAT.

Mininet's own code                  replaced here
------------------                  -------------
cmd, sendCmd, monitor, pexec        how a program is started: `_popen`, in a node, no mnexec
startShell                          when: on first use, not when the node is made
params, config, intfs, ports        addresses and routes are set by netlink, not by ifconfig
"""

from __future__ import annotations

import errno
import functools
import getopt
import itertools
import os
import select
import signal
import subprocess
import threading
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from xlab.errors import CapabilityError, NetlinkError, UsageError, XlabError
from xlab.kernel import signals
from xlab.lab import node as engine
from xlab.lab.lab import OUTSIDE
from xlab.mininet import machine as machines
from xlab.mininet import openvswitch
from xlab.mininet.link import Link
from xlab.mininet.machine import Machine
from xlab.mininet.original import log
from xlab.mininet.original import node as original


def _of_the_shell(name: str) -> property:
    """An attribute of Mininet's nodes that is there once the shell is."""

    def read(node: Node) -> Any:
        node._start_shell_once()
        return node.__dict__[name]

    def write(node: Node, value: Any) -> None:
        node.__dict__[name] = value

    return property(read, write)


class Node(original.Node):
    """A network and a name of its own, or, not "in a namespace", the sandbox's."""

    shell = _of_the_shell("shell")
    pid = _of_the_shell("pid")
    stdin = _of_the_shell("stdin")
    stdout = _of_the_shell("stdout")
    master = _of_the_shell("master")
    slave = _of_the_shell("slave")
    pollOut = _of_the_shell("pollOut")

    #: Whether it is a switch, which forwards what comes in.
    forwards = False

    #: What Mininet does when it is made.
    _as_in_mininet = original.Node.__init__

    def __init__(
        self,
        name: str,
        inNamespace: bool = True,
        machine: engine.Node | None = None,
        **params: Any,
    ) -> None:
        #: Whether a shell may be started now: not before it is made, nor once it was terminated.
        self.alive = False
        self._owns_machine = machine is None and inNamespace
        if machine is None:
            machine = _new_machine(name) if inNamespace else machines.root()
        #: The engine's node, whose `run`, `start` and `entered` may be used as well.
        self.machine = machine
        self._as_in_mininet(name, inNamespace=inNamespace, **params)
        self.alive = True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        machines.refuse_clusters(cls)

    @classmethod
    def setup(cls) -> None:
        """Nothing to be installed or loaded."""

    # -- the shell, and other programs -------------------------------------------------------------

    def startShell(self, mnopts: str | None = None) -> None:
        """Start the shell; called by Mininet when the node is made, which is not the time."""
        if not self.alive:
            return
        self.alive = False
        try:
            super().startShell(mnopts)
            # Mininet waits for room to write as well, which there always is: no time-out would end.
            self.__dict__["pollOut"].modify(self.__dict__["stdout"], select.POLLIN)
        except BaseException:
            if self.__dict__["shell"] is None:
                for end in ("master", "slave"):
                    os.close(self.__dict__[end])
            raise
        finally:
            self.alive = True
        terminal = os.dup(self.__dict__["slave"])
        self.__dict__["shell"].then(functools.partial(self._tell_of_its_end, terminal))

    def _start_shell_once(self) -> None:
        if not self.alive:
            return
        shell = self.__dict__["shell"]
        if shell is not None and shell.poll() is not None and not self.waiting:
            # It was left, or killed with its host, which may have been switched on again since.
            self.alive = False
            self._end_shell(shell)
            self.alive = True
        if self.__dict__["shell"] is None:
            self.startShell()

    def _tell_of_its_end(self, terminal: int) -> None:
        """The shell has ended: whoever waits for its prompt would wait for ever."""
        if not self.alive:
            os.close(terminal)
            return

        def tell() -> None:
            with suppress(OSError), os.fdopen(terminal, "w") as opened:
                opened.write(f"\n*** {self.name}: its shell has ended\n{_PROMPT}")

        # Not here, where others wait for theirs: a terminal may be full, and nobody read it.
        signals.start_deaf(threading.Thread(target=tell, daemon=True))

    def sendCmd(self, *args: Any, **params: Any) -> None:
        """Send a line to the shell; what it needs of Open vSwitch is there when it runs."""
        if self._in_our_root:
            words = args[0] if len(args) == 1 else args
            openvswitch.see_to(words)
        super().sendCmd(*args, **params)

    @property
    def _in_our_root(self) -> bool:
        """Whether it sees the files of Mininet's "root": a host of a lab has its own."""
        return isinstance(self.machine, Machine | machines.Root)

    def popen(self, *args: Any, **params: Any) -> subprocess.Popen[Any]:
        """Start a program, given as words, a list or a line; with shell=True, a line of a shell.

        Other options are those of `subprocess.Popen`; its output comes by pipes unless told else.
        """
        shell = params.pop("shell", False)
        params.pop("mncmd", None)
        words = args[0] if len(args) == 1 else args
        if isinstance(words, str):
            argv = [words] if shell else words.split()
        else:
            argv = [str(word) for word in words]
        if shell:
            argv = [os.environ.get("SHELL", "/bin/sh"), "-c", " ".join(argv)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return self._popen(argv, **{**pipes, **params})

    def _popen(self, cmd: list[str], **params: Any) -> subprocess.Popen[Any]:
        """Start a program in the node; Mininet's own goes through mnexec for that."""
        argv = [str(word) for word in cmd]
        if argv[0] == "mnexec":
            _, argv = getopt.getopt(argv[1:], "cdnpa:g:r:hv")
        terminal = self.__dict__["slave"]
        if terminal is not None and params.get("stdin") == terminal:
            # The leader of a session gets the first terminal it opens as its own: with it the shell
            # has job control, and Ctrl-C reaches what runs in it.
            opened = ["/bin/sh", "-c", 'exec "$@" <>"$0" >&0 2>&1', os.ttyname(terminal)]
            argv = [*opened, "env", _SHELL_FUNCTION, *argv]
        if self._in_our_root:
            openvswitch.see_to(argv)
        popen = machines.start(self.machine, argv, **params)
        log.debug("_popen", argv, popen.pid)
        return popen

    def terminate(self) -> None:
        """End the shell and what runs in it; the node's interfaces go with the node."""
        if not self.alive:
            return
        self.alive = False
        shell = self.__dict__["shell"]
        if shell is not None:
            self._end_shell(shell)
        if self._owns_machine:
            machines.inside(self.machine.close)

    def cleanup(self) -> None:
        self.terminate()

    def _end_shell(self, shell: subprocess.Popen[Any]) -> None:
        """As when a terminal is closed: the shell passes SIGHUP on to its jobs."""
        for signum in (signal.SIGHUP, signal.SIGKILL):
            if shell.poll() is None:
                os.killpg(shell.pid, signum)
                try:
                    shell.wait(1.0)
                except subprocess.TimeoutExpired:
                    continue
        self.outToNode.pop(self.__dict__["master"], None)
        self.inToNode.pop(self.__dict__["master"], None)
        super().cleanup()

    def mountPrivateDirs(self) -> None:
        """Folders of the node's own: names, or (folder, where its contents are) as pairs."""
        for folder in self.privateDirs:
            if isinstance(folder, tuple):
                machines.make_private(self.machine, folder[0], folder[1] % self.__dict__)
            else:
                machines.make_private(self.machine, folder, None)

    def unmountPrivateDirs(self) -> None:
        """They go with the node's mount namespace."""

    # -- network -----------------------------------------------------------------------------------

    def linkTo(self, node: Any, link: Any = Link) -> Any:
        """A link to another node, of that class."""
        return link(self, node)

    def addIntf(self, intf: Any, port: int | None = None, moveIntfFn: Any = None) -> None:
        """Add an interface; one that is in Mininet's "root" moves to the node."""
        super().addIntf(intf, port=port, moveIntfFn=moveIntfFn or move_interface)

    def config(
        self,
        mac: str | None = None,
        ip: str | None = None,
        defaultRoute: Any = None,
        lo: str = "up",
        **_: Any,
    ) -> dict[str, Any]:
        """Configure the default interface; `lo` is up from the start."""
        results: dict[str, Any] = {}
        self.setParam(results, "setMAC", mac=mac)
        self.setParam(results, "setIP", ip=ip)
        self.setParam(results, "setDefaultRoute", defaultRoute=defaultRoute)
        if lo != "up":
            self.machine.set_down("lo")
        return results

    def machine_address(self) -> str | None:
        """What the engine's node is reached by; None if it has no address yet."""
        try:
            return str(self.machine.address)
        except XlabError:
            return None

    def setDefaultRoute(self, intf: Any = None) -> str:
        """An interface, or words of `ip route`: "via 10.0.0.1"."""
        text = str(intf)
        words = text.split() if " " in text else ["dev", text]
        complaint = machines.configure(self.machine, "ip", "route", "replace", "default", *words)
        if complaint:
            log.error(f"*** {self.name}: default route {' '.join(words)}: {complaint}\n")
        return complaint

    def setHostRoute(self, ip: str, intf: Any) -> str:
        """A route to one address by an interface."""
        self.machine.add_route(IPv4Network(f"{ip}/32"), dev=str(intf))
        return ""

    def setARP(self, ip: str, mac: str) -> str:
        """A permanent ARP entry, on the interface whose subnet the address is in."""
        self.set_neighbours([(ip, mac)])
        return ""

    def set_neighbours(self, entries: list[tuple[str, str]]) -> None:
        """Permanent ARP entries, (address, MAC) each; UsageError if an address is in no subnet."""
        subnets = [
            (IPv4Interface(f"{i.ip}/{i.prefixLen}").network, i.name)
            for i in self.intfs.values()
            if i.ip and i.name != "lo"
        ]
        try:
            with self.machine.rtnl.batch() as batch:
                for ip, mac in entries:
                    address = IPv4Address(ip)
                    device = next((name for net, name in subnets if address in net), None)
                    if device is None:
                        raise UsageError(f"{self.name}: {ip} is in no subnet of its interfaces")
                    batch.add_neighbour(device, address, mac)
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
            # An entry that ARP has made already; the others of the batch have been set.
            for ip, mac in entries:
                device = next(name for net, name in subnets if IPv4Address(ip) in net)
                machines.configure(
                    self.machine, "ip", "neigh", "replace", ip, "lladdr", mac, "dev", device
                )


#: Mininet's, by which it knows that a command has ended.
_PROMPT = "\x7f"

#: `mnexec -p COMMAND` in a shell's line: print the process number, as sendCmd(printPid=True) asks.
#: Bash takes a function from such a variable; dash, which starts it, would not pass on one whose
#: name is no identifier, so `env` sets it.
_SHELL_FUNCTION = (
    'BASH_FUNC_mnexec%%=() { if [ "$1" = -p ]; then shift; '
    '(printf "\\001%d\\n" "$BASHPID"; exec "$@"); '
    'else echo "mnexec: only -p is known here" >&2; return 1; fi; }'
)


def _new_machine(name: str) -> Machine:
    number = next(_numbers)
    return machines.inside(lambda: Machine(name, number, ovs=None, mtu=1500))


_numbers = itertools.count(1)


def move_interface(intf: Any, node: Any, *_: Any, **__: Any) -> bool:
    """Mininet's moveIntf: from the "root" to the node, if it is not there yet."""
    name, root = str(intf), machines.root()
    if node.machine is not root and not node.machine.rtnl.has(name):
        root.rtnl.now.move(name, node.machine.namespaces.net)
    return True


class Host(Node, original.Host):
    """A host."""


class CPULimitedHost(Host):
    """A host; limits are refused: each needs a control group of the machine, which a lab leaves be.

    Raises CapabilityError if it is given `cpu` or `cores`.
    """

    def __init__(self, name: str, sched: str = "cfs", **params: Any) -> None:
        for limit in ("cpu", "cores"):
            if params.get(limit) is not None:
                raise CapabilityError(
                    f"{name}: {limit}={params[limit]}: a limit of a host's processor time needs a "
                    "control group of the machine, which a lab does not touch",
                    "limit links instead (bw=)",
                )
        self.sched = sched
        super().__init__(name, **params)


# -- NAT -------------------------------------------------------------------------------------------


class NAT(Node):
    """Masquerades what leaves a subnet.

    "In the root namespace" it leads to the lab's outside, 198.51.100.1: there is no way out of a
    sandbox.  Nothing is written to /etc/network/interfaces, and no service restarted.
    """

    def __init__(
        self,
        name: str,
        subnet: str = "10.0.0.0/8",
        localIntf: Any = None,
        flush: bool = False,
        **params: Any,
    ) -> None:
        super().__init__(name, **params)
        self.subnet = subnet
        self.localIntf = localIntf
        self.flush = flush

    def config(self, *settings: Any, **params: Any) -> dict[str, Any]:
        results = super().config(*settings, **params)
        inner = str(self.localIntf or self.defaultIntf())
        rules = [
            ("-A", "FORWARD", "-i", inner, "-s", self.subnet, "-j", "ACCEPT"),
            ("-A", "FORWARD", "-o", inner, "-d", self.subnet, "-j", "ACCEPT"),
            ("-I", "FORWARD", "-i", inner, "-d", self.subnet, "-j", "DROP"),
            ("-t", "nat", "-A", "POSTROUTING", "-s", self.subnet, "!", "-d", self.subnet,
             "-j", "MASQUERADE"),
        ]  # fmt: skip
        if self.flush:
            rules = [("-F",), ("-t", "nat", "-F"), ("-P", "FORWARD", "DROP"), *rules]
        for rule in rules:
            complaint = machines.configure(self.machine, "iptables", *rule)
            if complaint:
                raise CapabilityError(f"{self.name}: iptables {' '.join(rule)}: {complaint}")
        self.machine.set_sysctl("net.ipv4.ip_forward", 1)
        if not self.inNamespace:
            machines.configure(self.machine, "ip", "address", "replace", str(OUTSIDE), "dev", "lo")
        return results
