"""What can be measured, by name; light enough for the command line.

Every run has the usual probes.  The others are asked for: each takes its time, and the last of them
break what they measure.
"""

from __future__ import annotations

from collections.abc import Iterable

from xlab.errors import UsageError

#: Between two ends, in every run.
USUAL = {
    "rtt": "round trips of ping",
    "rr": "one-byte requests and replies over one TCP connection",
    "tcp": "throughput of one TCP stream, and the CPU time it costs",
    "tcp-parallel": "throughput of several TCP streams together (--streams, 4)",
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
#: Of a lab built for that alone, beside the one that is measured.
OF_ANOTHER_LAB = {
    "first-packet": "seconds from nothing until the first packet across, with nothing checked",
}
#: Of the lab as a whole; in this order, after all others.
OF_LAB = {
    "memory": "memory a host: its processes' and the kernel's",
    "control-plane": "packets and bytes on the physical links while nobody sends anything",
    "recovery": "seconds until the flow is back after a link flap, killed daemons, a host's reboot",
}
#: Those among them after which a lab is not what it was: when all else has been measured.
DISTURBING = ("recovery",)
#: What a comparison measures once in each build of its labs, when the rounds of that are done.
ONCE_A_BUILD = (*OF_ANOTHER_LAB, *DISTURBING)
ALL = {**USUAL, **BETWEEN_TWO, **OF_ANOTHER_LAB, **OF_LAB}


def beyond_usual(asked: Iterable[str]) -> tuple[str, ...]:
    """Those of `asked` that not every run has, in the order of `ALL`; "all" means every one.

    Raises UsageError, which says what there is, for an unknown name.
    """
    wanted = set(asked)
    for name in sorted(wanted - {"all"} - set(ALL)):
        raise UsageError(f"--probe {name}: no such probe; there are {', '.join(ALL)}, and all")
    return tuple(name for name in ALL if name not in USUAL and ("all" in wanted or name in wanted))
