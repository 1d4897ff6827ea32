"""The kernel's netem: all conditions, by one discipline."""

from __future__ import annotations

import math

from xlab.kernel.capabilities import Capability, Machine
from xlab.lab.conditions import LinkConditions
from xlab.lab.imposers.joint import (
    FRAME_OVERHEAD_BYTES,
    UNLIMITED_BITS_PER_SECOND,
    Discipline,
    queue_bytes,
)
from xlab.lab.limits import RATE_BITS_PER_SECOND

_MOST_PACKETS = 200_000


class Netem(Discipline):
    name, place, words = "netem", 1, "all by netem"

    def needs(self, machine: Machine) -> Capability:
        return machine.netem

    def arguments(self, conditions: LinkConditions, *, mtu: int) -> str:
        """The netem discipline as tc takes it.

        A rate makes netem keep packets in order under jitter, so there is always one (sch_netem.c,
        netem_enqueue: a packet's delay then counts from that of the one before it).  netem's limit
        counts packets under way as well as those that wait.
        """
        frame_bytes = mtu + FRAME_OVERHEAD_BYTES
        rate = conditions.rate_bits_per_second or RATE_BITS_PER_SECOND[1]
        carried = conditions.rate_bits_per_second or UNLIMITED_BITS_PER_SECOND
        longest_s = ((conditions.delay_ms or 0) + (conditions.jitter_ms or 0)) / 1e3
        packets = (carried / 8 * longest_s + queue_bytes(conditions, mtu=mtu)) / frame_bytes
        words = ["netem", "limit", str(min(math.ceil(packets), _MOST_PACKETS))]
        if conditions.delay_ms:
            words += ["delay", f"{conditions.delay_ms * 1e3:.0f}us"]
            if conditions.jitter_ms:
                words += [f"{conditions.jitter_ms * 1e3:.0f}us"]
        if conditions.loss_ratio:
            words += ["loss", "random", f"{conditions.loss_ratio * 100:.7g}%"]
        if conditions.rate_bits_per_second or conditions.jitter_ms:
            words += ["rate", f"{rate:.0f}bit"]
        return " ".join(words)


IMPOSER = Netem()
