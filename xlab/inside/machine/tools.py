"""The commands of an emulated host as files: a layer that lies on top of the machine's /usr.

bin/docker …          scripts that start `machine.client`
bin/sudo              runs what follows: everybody is root here
bin/ovs-vsctl         with Open vSwitch in user space: the real one, told so by `add-br`
lib/systemd/system    docker.service, as its package has it
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from xlab.inside.machine import client, systemd
from xlab.kernel.processes import find_program
from xlab.lab.docker import DaemonOptions

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
