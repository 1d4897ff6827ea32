"""The commands of an emulated host as files: a layer that lies on top of the machine's /usr.

bin/docker …          scripts that start `machine.client`
bin/sudo              runs what follows: everybody is root here
bin/ovs-vsctl         with Open vSwitch in user space: the real one, told so by `add-br`
lib/systemd/system    docker.service, as its package has it

Another layer is on top in containers, too: what wants the internet, and a lab has none.

bin/apt-get, apt      say so, and what there is instead
local/bin/curl …      the real one, and a line behind its words if it asked for a name in vain
"""

from __future__ import annotations

import shlex
import shutil
import string
import sys
from pathlib import Path

from xlab.inside.machine import client, systemd
from xlab.kernel.processes import find_program
from xlab.kernel.programs import locate
from xlab.lab.docker import DaemonOptions
from xlab.lab.lab import OUTSIDE

#: Of `Desk`, and where they are found on Debian.
_TYPED = {"docker": "bin", "weave": "bin", "systemctl": "bin", "journalctl": "bin",
          "service": "sbin", "reboot": "sbin", "poweroff": "sbin", "halt": "sbin",
          "shutdown": "sbin"}  # fmt: skip

_CLIENT = """#!/bin/sh
exec {python} -I -S {client} {command} "$@"
"""

_SUDO = """#!/bin/sh
# Whoever works in an emulated host is root.
shell=
while [ $# -gt 0 ]; do
    case $1 in
        --) shift; break ;;
        -i | -s) shell=yes; shift ;;
        -u) [ "$2" = root ] || { echo "sudo: -u $2: there is no one but root here" >&2; exit 1; }
            shift 2 ;;
        -[gpCDRTh]) shift 2 ;;
        -*) shift ;;
        *=*) export "$1"; shift ;;
        *) break ;;
    esac
done
[ $# -gt 0 ] || [ -z "$shell" ] || set -- "${SHELL:-/bin/sh}"
[ $# -gt 0 ] || { echo 'usage: sudo COMMAND' >&2; exit 1; }
exec "$@"
"""

#: `add-br NAME` on a kernel without Open vSwitch would make a bridge that forwards nothing.
_VSCTL = """#!/bin/sh
# Open vSwitch runs in user space here: a new bridge is told so, in the same transaction.
bridge= name_next=
for word; do
    shift
    case $name_next:$word in
        yes:-*) ;;
        yes:*) bridge=$word name_next= ;;
        :add-br) name_next=yes ;;
        :--) [ -z "$bridge" ] || set -- "$@" -- set bridge "$bridge" datapath_type=netdev
            bridge= ;;
    esac
    set -- "$@" "$word"
done
[ -z "$bridge" ] || set -- "$@" -- set bridge "$bridge" datapath_type=netdev
exec {real} "$@"
"""


#: Ends as apt-get does when it can't.
_APT = """#!/bin/sh
cat >&2 <<'END'
${command}: this lab is offline: nothing can be installed or updated in here.
The machine's own programs are all there: ${there} …
Outside of the lab, `apt-get install` on the machine itself adds to them.
END
exit 100
"""

#: What some people may want to install.
_WANTED = ("ip", "ping", "brctl", "ifconfig", "iptables", "tcpdump", "traceroute", "curl", "wget",
           "nc", "iperf3", "vim", "nano", "python3")  # fmt: skip

#: By the status they end with where a name can't be looked up, of their man pages.
_ASKING = {"curl": 6, "wget": 4, "ping": 2}

#: As long as no name of the internet is in its words it becomes the real program.  Otherwise that
#: has the terminal and its signals, and ends in a moment, or has found the name in /etc/hosts.
_NAMED = """#!/bin/sh
PATH=${folder}:$$PATH
name=
for word; do
    word=$${word#*://} word=$${word%%[/:?]*} word=$${word##*@}
    case $$word in
        -* | *[!A-Za-z0-9.-]*) ;;
        *.*[A-Za-z]) name=$$word ;;
    esac
done
[ -n "$$name" ] || exec ${command} "$$@"
trap : INT QUIT
${command} "$$@"
status=$$?
trap - INT QUIT
[ $$status != ${failed} ] || getent ahosts "$$name" >/dev/null 2>&1 || cat >&2 <<END
${command}: this lab is offline, and knows no name of the internet, nor $$name.
${outside} stands for the outside, and answers pings; python3 -m http.server serves pages
in a host or a container.
END
[ $$status != 130 ] || kill -INT $$$$
exit $$status
"""


def make_offline(folder: Path) -> None:
    """Fill `folder` with what is said of the internet."""
    there = ", ".join(name for name in _WANTED if locate(name))
    for command in ("apt-get", "apt"):
        text = string.Template(_APT).substitute(command=command, there=there)
        write(folder / "bin" / command, text)
    # The real ones stay where they are, with their capabilities: this place is looked in first.
    place = Path("/usr/local/bin")
    for command, failed in _ASKING.items():
        real = shutil.which(command, path=f"{place}:/usr/bin:/bin")
        if real and place.resolve() == place and Path(real).parent != place:
            text = string.Template(_NAMED).substitute(
                command=command, failed=failed, folder=Path(real).parent, outside=OUTSIDE
            )
            write(folder / "local/bin" / command, text)


def make(folder: Path, *, userspace: bool) -> None:
    """Fill `folder`; `userspace` is about Open vSwitch."""
    for command, place in _TYPED.items():
        python, program = shlex.quote(sys.executable), shlex.quote(str(Path(client.__file__)))
        text = _CLIENT.format(python=python, client=program, command=command)
        write(folder / place / command, text)
    write(folder / "bin/sudo", _SUDO)
    unit = folder / "lib/systemd/system/docker.service"
    unit.parent.mkdir(parents=True)
    unit.write_text(systemd.unit_for(DaemonOptions()))
    if userspace:
        real = folder / "lib/xlab/ovs-vsctl"
        real.parent.mkdir(parents=True)
        shutil.copy(find_program("ovs-vsctl"), real)
        write_vsctl(folder / "bin/ovs-vsctl", real="/usr/lib/xlab/ovs-vsctl")


def write_vsctl(file: Path, *, real: str) -> None:
    """An `ovs-vsctl` whose new bridges are in user space; `real` is the program it becomes."""
    write(file, _VSCTL.format(real=shlex.quote(real)))


def write(file: Path, text: str) -> None:
    """A program that is this text."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
