"""How large a lab can be, what its links can bear, and the words for what is beyond."""

from __future__ import annotations

from xlab.errors import UsageError

#: A Linux bridge holds at most 1,023 ports (net/bridge/br_private.h, BR_MAX_PORTS).
HOSTS = (2, 1000)
CONTAINERS = (1, 1000)
#: What every IPv4 host must take whole (RFC 791) up to the largest MTU of a veth.
MTU_BYTES = (576, 65535)
RATE_BITS_PER_SECOND = (8e3, 1e12)
DELAY_MS = (0.0, 10_000.0)


def within(
    option: str, value: float | None, limits: tuple[float, float], meaning: str = ""
) -> None:
    """Refuse a value outside `limits`, both included; NaN is outside any range."""
    lowest, highest = limits
    if value is not None and not lowest <= value <= highest:
        suffix = f" {meaning}" if meaning else ""
        raise UsageError(
            f"{option} is {shown(value)}; the range is {lowest:,.15g} to {highest:,.15g}{suffix}"
        )


def shown(value: float) -> str:
    try:
        return f"{value:,.15g}"
    except OverflowError:  # an integer beyond the largest float
        return "a number of more than 300 digits"
