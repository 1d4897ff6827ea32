"""What can be measured, by name; light enough for the command line.

Every run has the usual probes.  The others are asked for: each takes its time.
"""

from __future__ import annotations

from collections.abc import Iterable

from xlab.errors import UsageError

#: Between two ends, in every run.
USUAL = {
    "rtt": "round trips of ping",
    "rr": "one-byte requests and replies over one TCP connection",
    "tcp": "throughput of one TCP stream, and the CPU time it costs",
    "tcp-parallel": "throughput of four TCP streams together",
    "udp": "what arrives, and is lost, of 90 % of that in UDP",
}
#: Between two ends, on every route.
BETWEEN_TWO = {
    "loaded-rtt": "round trips while TCP streams fill the path both ways, and just before",
    "connections": "TCP connections opened and closed a second",
    "small-packets": "the smallest UDP packets that arrive in a second",
    "message-sizes": "throughput against the size of messages, 64 bytes to 64 KiB",
    "flows": "throughput against the number of TCP streams, 1 to 8",
    "path-mtu": "the largest packet that passes, and what the method adds to each",
}
#: Of the lab as a whole, after all others.
OF_LAB = {
    "memory": "memory a host: its processes' and the kernel's",
    "control-plane": "packets and bytes on the physical links while nobody sends anything",
}
ALL = {**USUAL, **BETWEEN_TWO, **OF_LAB}


def beyond_usual(asked: Iterable[str]) -> tuple[str, ...]:
    """Those of `asked` that not every run has, in the order of `ALL`; "all" means every one.

    Raises UsageError, which says what there is, for an unknown name.
    """
    wanted = set(asked)
    for name in sorted(wanted - {"all"} - set(ALL)):
        raise UsageError(f"--probe {name}: no such probe; there are {', '.join(ALL)}, and all")
    return tuple(name for name in ALL if name not in USUAL and ("all" in wanted or name in wanted))
