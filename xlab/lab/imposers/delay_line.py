"""A process of ours that forwards between the two sides of the joint (xlab/lab/delay_line.py).

It limits rates as well: its queue is its own, whereas what it sends into a tbf is bounded by
net.core.wmem_max, on stock kernels 208 KB, less than a long link's queue needs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from xlab.kernel.capabilities import Capability, Machine
from xlab.kernel.processes import Process, wait_until
from xlab.lab import delay_line as program
from xlab.lab.conditions import LinkConditions
from xlab.lab.imposers.joint import FRAME_OVERHEAD_BYTES, Imposed, Imposer, Joint, queue_bytes
from xlab.lab.node import Node

_READY_WITHIN_S = 60.0


class DelayLine(Imposer):
    name, place, plain = "delay-line", 3, False
    words = "all else by a delay line in user space"
    #: It cannot take segments of tunnels.
    offloads_off = (
        "tx-udp_tnl-segmentation",
        "tx-udp_tnl-csum-segmentation",
        "tx-gre-segmentation",
        "tx-gre-csum-segmentation",
        "tx-ipxip4-segmentation",
    )

    def needs(self, machine: Machine) -> Capability:
        return machine.packet_sockets

    def is_on(self, machine: Machine) -> bool:
        # The kernel loads af_packet by itself.
        return machine.packet_sockets.usable

    def fallback(self, machine: Machine) -> str:
        remedy = f" (`{machine.netem.remedy}` for the kernel's)" if machine.netem.remedy else ""
        return (
            f"links are conditioned in user space by a delay line: {machine.netem.detail}{remedy}; "
            "it forwards about 1 Gbit/s of single packets, 10 of large segments"
        )

    def join(self, joint: Joint) -> Process:
        back = joint.outward if joint.outward != joint.inward else None
        argv = argv_of(joint.uplink, joint.inner, joint.inward, back=back, mtu=joint.mtu)
        return start(joint.wire, argv)

    def part(self, imposed: Imposed) -> None:
        assert imposed.line is not None
        imposed.line.stop()


def start(wire: Node, argv: Sequence[str]) -> Process:
    line = wire.spawn(argv)

    def settled() -> bool:
        return line.poll() is not None or line.stdout().startswith("ready\n")

    wait_until(settled, timeout_s=_READY_WITHIN_S, awaited="the delay line to be ready")
    if line.poll() is not None:
        raise line.blamed("the delay line", f"ended at once with status {line.poll()}")
    return line


def argv_of(
    a: str, b: str, conditions: LinkConditions, *, back: LinkConditions | None = None, mtu: int
) -> list[str]:
    """The delay line, run as a file of its own: no site-packages, nothing of ours on its path."""
    argv = [sys.executable, "-I", "-S", program.__file__, a, b]
    argv += ["--frame-bytes", str(mtu + FRAME_OVERHEAD_BYTES)]
    argv += _options(conditions, mtu=mtu)
    if back is not None:
        argv += ["--back", *_options(back, mtu=mtu)]
    return argv


def _options(conditions: LinkConditions, *, mtu: int) -> list[str]:
    options = {
        "--delay-ms": conditions.delay_ms,
        "--jitter-ms": conditions.jitter_ms,
        "--loss-ratio": conditions.loss_ratio,
        "--rate-bits-per-second": conditions.rate_bits_per_second,
    }
    given = []
    for option, value in options.items():
        if value:
            given += [option, f"{value:.15g}"]
    if conditions.rate_bits_per_second:
        given += ["--queue-bytes", f"{queue_bytes(conditions, mtu=mtu):.0f}"]
    return given


IMPOSER = DelayLine()
