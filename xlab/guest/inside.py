"""Pid 1's only child in the guest of the virtual clock: gets ready, is frozen, and does the work.

    import everything ── stop (here the machine is frozen, and thawed) ── read the job ── do it

A thawed machine goes on at the very instruction at which it was frozen.  What it is to do comes
through QEMU's firmware configuration, which a guest reads by itself: what arrived by an interrupt
would arrive at another virtual moment each time.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import json
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

#: Does the work: `inside(job, tell)`.  It stands above this room, so it is known by name alone.
WORK = "xlab.experiments.virtual"
JOB = "opt/xlab/job"
PORT = "told"
#: Of QEMU's pvpanic device: writing the bit stops the machine (`-action panic=pause`).
_PANIC_PORT, _PANICKED = 0x505, 1
#: mov edx, edi; mov eax, esi; out dx, al; ret
_OUT = bytes.fromhex("89fa89f0eec3")
_RNDRESEEDCRNG = 0x5207
#: Of adjtimex(2): move the time of day by what is given, in nanoseconds.
_ADJ_SETOFFSET, _ADJ_NANO = 0x0100, 0x2000
#: The golden section of a microsecond, so that any few steps spread evenly; and how often.
_STEP_NS, _STEPPING_S = 382, 0.05
#: Builds begin at different phases of whatever is periodic, less than two ticks of 4 ms apart.
_PHASE_S = 0.000_7


def main() -> int:
    work = importlib.import_module(WORK)
    work.get_ready()
    _clear_free_memory()
    stopped_at = time.monotonic_ns()
    _stop()
    leap_ns = time.monotonic_ns() - stopped_at
    subprocess.run(["insmod", "/modules/qemu_fw_cfg.ko"], check=True)
    job = json.loads(Path(f"/sys/firmware/qemu_fw_cfg/by_name/{JOB}/raw").read_bytes())
    with Path(_port()).open("wb", buffering=0) as port:

        def tell(event: dict[str, Any]) -> None:
            data = json.dumps(event).encode() + b"\n"
            while data:
                data = data[port.write(data) or 0 :]

        tell({"kind": "thawed", "leap_ns": leap_ns})
        if "seed" in job:
            _vary(int(job["seed"]))
            _spread_microseconds()
            work.inside(job, tell)
        tell({"kind": "ended"})
    return 0


def _stop() -> None:
    """Stop the machine, at this instruction; returns when it has been thawed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.iopl(3) != 0:
        raise OSError(ctypes.get_errno(), "iopl")
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(_OUT)
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_int)(address)(_PANIC_PORT, _PANICKED)
    libc.iopl(0)


def _clear_free_memory() -> None:
    """Zeros are not kept on the disk: what held the archive is full of it otherwise."""
    free_kib = next(
        int(line.split()[1])
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemFree:")
    )
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    filled = mmap.mmap(-1, max(mmap.PAGESIZE, (free_kib - (64 << 10)) << 10), flags=flags)
    filled.close()


def _vary(seed: int) -> None:
    """Another seed, another course of chance: random numbers, and the phase of what is periodic."""
    with Path("/dev/urandom").open("wb", buffering=0) as pool:
        pool.write(seed.to_bytes(8, "little"))
        fcntl.ioctl(pool, _RNDRESEEDCRNG)
    time.sleep(seed % 11 * _PHASE_S)


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2), up to what is used of it."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("unused", ctypes.c_long * 8),
        ("seconds", ctypes.c_long),
        ("fraction", ctypes.c_long),
        ("more", ctypes.c_byte * 128),
    )


def _spread_microseconds() -> None:
    """From here on the time of day is moved by a part of a microsecond, again and again.

    ping stamps what it sends in whole microseconds, and sends just after a tick: at the same
    nanosecond, in a machine that does the same each time.  All its round trips would then be
    rounded the same way, up in one frozen machine and down in the next, 2 % of the shortest.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _step_time_of_day(libc)
    if os.fork():
        return
    while True:
        time.sleep(_STEPPING_S)
        _step_time_of_day(libc)


def _step_time_of_day(libc: ctypes.CDLL) -> None:
    # Anew each time: what the kernel returns in it is the time of day.
    step = _Timex(modes=_ADJ_SETOFFSET | _ADJ_NANO, fraction=_STEP_NS)
    if libc.adjtimex(ctypes.byref(step)) < 0:
        raise OSError(ctypes.get_errno(), "adjtimex")


def _port() -> str:
    for port in Path("/sys/class/virtio-ports").iterdir():
        if (port / "name").read_text().strip() == PORT:
            return f"/dev/{port.name}"
    raise OSError(f"no port {PORT}")


if __name__ == "__main__":
    os.environ.setdefault("HOME", "/root")
    sys.exit(main())
