"""What is done to a lab, written down as commands: `xlab script` makes a shell script of it.

    step       what a person types at a real machine      brctl addbr br0
    commands   what plain tools do for it here            ip link add br0 up type bridge …

Whoever changes a node says so, at the place where it is done: netlink's batches as `ip`, Open
vSwitch's transactions as `ovs-vsctl`.  While no log is kept that costs a look at a variable.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from xlab.errors import CapabilityError
from xlab.kernel.netlink import Rtnl


@dataclass(frozen=True, slots=True)
class Command:
    """A program that ran in `node` to its end, or a daemon, which goes on."""

    node: str
    argv: tuple[str, ...]
    stdin: str = ""
    daemon: bool = False
    #: What must exist before the next command; "" if nothing.
    awaits: str = ""

    def line(self) -> str:
        """For a shell in the node; several lines with what is read from standard input."""
        return as_line(self.argv, stdin=self.stdin, daemon=self.daemon)


@dataclass(frozen=True, slots=True)
class Born:
    """A node has come to be: a network namespace, its `lo` up."""

    name: str


@dataclass(frozen=True, slots=True)
class Step:
    node: str
    #: Lines for a shell of the real machine, comments among them; none for the lab's own wiring.
    typed: tuple[str, ...]
    did: list[Command | Born] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """What comes after it is claimed of what was done before it."""

    name: str
    #: Whether steps lead to it.
    built: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """What is claimed: a function of the script that checks it, and the function's arguments."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Remark:
    text: str


Entry = Step | Stage | Call | Remark


class CommandLog:
    """Everything that was done to the nodes of this process, in its order."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        #: What no plain tool can do.
        self.beyond: CapabilityError | None = None
        self.step: Step | None = None
        #: Names of nodes by what `ip` calls their namespaces here.
        self._names: dict[str, str] = {}

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)

    def born(self, name: str, namespace: int, rtnl: Rtnl) -> None:
        self._names[f"/proc/self/fd/{namespace}"] = name
        rtnl.tell = lambda command: self.did(Command(name, tuple(command.split())))
        self._record(Step(name, ()), Born(name))

    def did(self, command: Command) -> None:
        """`command` was carried out; outside of any step it is what a person types, too."""
        # What only shows changes nothing.
        if "show" in command.argv:
            return
        argv = tuple(self._names.get(word, word) for word in command.argv)
        named = dataclasses.replace(command, argv=argv)
        self._record(Step(command.node, (named.line(),)), named)

    def _record(self, own: Step, what: Command | Born) -> None:
        if self.step is None:
            self.entries.append(own)
        (self.step or own).did.append(what)


#: Pid 1 of a sandbox has one lab.
_kept: CommandLog | None = None


def keep() -> CommandLog:
    """Write down from now on what is done in this process, one thing after the other."""
    global _kept
    _kept = CommandLog()
    return _kept


def is_kept() -> bool:
    return _kept is not None


@contextmanager
def step(node: str, *typed: str, note: str = "") -> Iterator[None]:
    """What is done in the block is, at a real machine, what these lines do.

    Within another step it belongs to that one.
    """
    log = _kept
    if log is None or log.step is not None:
        yield
        return
    log.step = Step(node, typed, note=note)
    try:
        yield
    finally:
        log.add(log.step)
        log.step = None


def born(name: str, namespace: int, rtnl: Rtnl) -> None:
    """A node of that name is there; `namespace` is the descriptor of its network namespace."""
    if _kept is not None:
        _kept.born(name, namespace, rtnl)


def did(
    node: str,
    argv: Sequence[str],
    *,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """A program ran in `node` to its end."""
    if _kept is not None:
        text = (stdin or b"").decode(errors="replace")
        _kept.did(Command(node, (*_environment(env), *argv), text))


def started(
    node: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None, awaits: str = ""
) -> None:
    """A program runs in `node` from now on; it is ready when `awaits` exists."""
    if _kept is not None:
        words = (*_environment(env), *argv)
        _kept.did(Command(node, words, daemon=True, awaits=awaits))


def is_beyond(missing: str, remedy: str) -> None:
    """What was done just now can be done by no plain tool."""
    if _kept is not None and _kept.beyond is None:
        _kept.beyond = CapabilityError(missing, remedy)


def called(function: str, *words: object) -> Call:
    return Call((function, *map(str, words)))


def in_script(node: object) -> str:
    """What a script calls a node: "h1:c1" is h1/c1, since `ip netns` has each in a file."""
    return str(node).replace("/", ":")


def as_line(argv: Sequence[str], *, stdin: str, daemon: bool = False, log: str = "") -> str:
    """A command for a shell, its input behind it; a daemon's output goes to `log`."""
    line = shlex.join(argv)
    if log:
        line += f" >{shlex.quote(log)} 2>&1"
    if daemon:
        line += " &"
    elif stdin:
        end = "END"
        while end in stdin.splitlines():
            end += "_"
        line += f" <<'{end}'\n{stdin.rstrip()}\n{end}"
    return line


def _environment(env: Mapping[str, str] | None) -> list[str]:
    return ["env", *(f"{name}={value}" for name, value in env.items())] if env else []
