"""What a metric's name says of its figures: which way is better, and whether they have ratios."""

from __future__ import annotations


def higher_is_better(metric: str) -> bool:
    """Bits, connections, packets per second, and the path's MTU; all else is time, loss or cost."""
    return metric.endswith("_per_second") or metric == "path_mtu_bytes"


def has_ratios(metric: str) -> bool:
    """Whether a method's figure can be set in proportion to another's.

    Of two losses near zero the one may be any multiple of the other, and so of two recoveries: a
    flow that did not stop was back after 0 s.  UDP is offered a rate that follows from TCP's.
    """
    return metric != "udp_bits_per_second" and not metric.endswith(("_ratio", "_recovery_s"))
