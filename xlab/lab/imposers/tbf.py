"""The kernel's token bucket filter: rates, and nothing else."""

from __future__ import annotations

from xlab.kernel.capabilities import Capability, Machine
from xlab.lab.conditions import LinkConditions
from xlab.lab.imposers.joint import FRAME_OVERHEAD_BYTES, Discipline, queue_bytes


class TokenBucket(Discipline):
    name, place, words = "tbf", 2, "rates by tbf"

    def can(self, wanted: LinkConditions) -> bool:
        return not (wanted.delay_ms or wanted.loss_ratio)

    def needs(self, machine: Machine) -> Capability:
        return machine.tbf

    def arguments(self, conditions: LinkConditions, *, mtu: int) -> str:
        """A millisecond's worth of burst, and never under two frames.

        A segment larger than the burst is cut by the kernel; a single packet that is would be
        dropped.
        """
        assert conditions.rate_bits_per_second
        rate = conditions.rate_bits_per_second
        burst = max(rate / 8 * 0.001, 2 * (mtu + FRAME_OVERHEAD_BYTES))
        limit = queue_bytes(conditions, mtu=mtu) + burst
        return f"tbf rate {rate:.0f}bit burst {burst:.0f}b limit {limit:.0f}b"


IMPOSER = TokenBucket()
