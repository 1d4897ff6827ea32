"""Rate, delay, jitter and loss of links: what is asked for, and how it is written.

Conditions are Mininet's: they hold for each link, in each direction.  Between two hosts at one
switch lie two links, so a delay of 10 ms makes a round trip of 40 ms, and a loss of 1 % takes 2 %
one way.  What imposes them is in `xlab/lab/imposers`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xlab.errors import UsageError, at, quoted
from xlab.lab.limits import DELAY_MS, RATE_BITS_PER_SECOND, shown, within


@dataclass(frozen=True, slots=True)
class LinkConditions:
    """What one link does to packets, in each direction; None (and 0) is not asked for.

    Raises UsageError, which says the range, for what makes no sense.  Jitter is uniform, at most as
    large as the delay, and keeps packets in order.
    """

    rate_bits_per_second: float | None = None
    delay_ms: float | None = None
    jitter_ms: float | None = None
    #: 1 is a dead link.
    loss_ratio: float | None = None
    #: Packets that may wait for the rate; None: `queue_bytes` decides.
    max_queue_packets: int | None = None

    def __post_init__(self) -> None:
        within("rate", self.rate_bits_per_second, RATE_BITS_PER_SECOND, "bit/s")
        within("delay", self.delay_ms, DELAY_MS, "ms")
        within("jitter", self.jitter_ms, (0.0, self.delay_ms or 0.0), "ms, the delay")
        within("loss", self.loss_ratio, (0.0, 1.0), "of all packets")
        within("max_queue_size", self.max_queue_packets, (1, 1_000_000), "packets")

    def __bool__(self) -> bool:
        """Whether anything is asked for: a queue alone is nothing."""
        return bool(self.rate_bits_per_second or self.delay_ms or self.loss_ratio)

    def __str__(self) -> str:
        """ "rate 20 Mbit/s, delay 5 ± 1 ms, loss 1 %"."""
        found = []
        if self.rate_bits_per_second:
            found.append(f"rate {self.rate_bits_per_second / 1e6:g} Mbit/s")
        if self.delay_ms:
            jitter = f" ± {self.jitter_ms:g}" if self.jitter_ms else ""
            found.append(f"delay {self.delay_ms:g}{jitter} ms")
        if self.loss_ratio:
            found.append(f"loss {self.loss_ratio * 100:g} %")
        return ", ".join(found)

    def overridden_by(self, other: LinkConditions) -> LinkConditions:
        """These conditions with those of `other` (the command line) where it has any.

        A delay brings its own jitter, or none: ± 5 ms beside another delay was not meant.
        """
        changes = {
            name: value
            for name, value in dataclasses.asdict(other).items()
            if value is not None or (name == "jitter_ms" and other.delay_ms is not None)
        }
        return dataclasses.replace(self, **changes)


# -- text ------------------------------------------------------------------------------------------

_NUMBER = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"

#: Milliseconds in each, as tc writes them.
_TIME_UNITS = {
    **dict.fromkeys(("s", "sec", "secs"), 1e3),
    **dict.fromkeys(("ms", "msec", "msecs"), 1.0),
    **dict.fromkeys(("us", "usec", "usecs"), 1e-3),
    **dict.fromkeys(("ns", "nsec", "nsecs"), 1e-6),
}
_RATE_PREFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


def parse_delay(text: str) -> float:
    """ "10ms", "1s", "500us" in milliseconds; raises UsageError."""
    match = re.fullmatch(rf"{_NUMBER}\s*([a-z]*)", text.strip().lower())
    if not match or match[2] not in _TIME_UNITS:
        raise UsageError(f"{quoted(text)} is not a time: write 10ms, 1.5s or 500us")
    delay_ms = float(match[1]) * _TIME_UNITS[match[2]]
    within(quoted(text), delay_ms, DELAY_MS, "ms")
    return delay_ms


def parse_rate(text: str) -> float:
    """ "100mbit", "1.5 Gbit/s" in bits per second; raises UsageError.

    A unit that could mean bytes ("mbps" is megabytes to tc) is refused.
    """
    match = re.fullmatch(rf"{_NUMBER}\s*([kmgt]?)bit(?:/s|ps)?", text.strip().lower())
    if not match:
        raise UsageError(f"{quoted(text)} is not a rate: write 10mbit, 1.5gbit or 64kbit")
    rate = float(match[1]) * _RATE_PREFIXES[match[2]]
    within(quoted(text), rate, RATE_BITS_PER_SECOND, "bit/s")
    return rate


def parse_loss(text: str) -> float:
    """ "1%" or "0.01" as a ratio; raises UsageError.  A bare 1 and above could mean either."""
    match = re.fullmatch(rf"{_NUMBER}\s*(%?)", text.strip())
    if not match:
        raise UsageError(f"{quoted(text)} is not a loss: write 1% or 0.01")
    number = float(match[1])
    ratio = number / (100 if match[2] else 1)
    if ratio >= 1:
        raise UsageError(
            f"loss is {shown(number)}{match[2]}; "
            "the range is 0% to under 100%, as 0.5% or as a ratio, 0.005"
        )
    return ratio


def from_mininet(options: Mapping[str, Any], link: str = "a link") -> LinkConditions:
    """The conditions in the options of a Mininet link; `link` names it in a UsageError.

    `bw` is in Mbit/s, `loss` in percent, `delay` and `jitter` are tc's times: a bare number counts
    microseconds.  Options of other kinds are not looked at.
    """
    with at(link):
        rate = _number(options, "bw")
        loss = _number(options, "loss")
        queue = _number(options, "max_queue_size")
        return LinkConditions(
            rate_bits_per_second=None if rate is None else rate * 1e6,
            delay_ms=_time(options, "delay"),
            jitter_ms=_time(options, "jitter"),
            loss_ratio=None if loss is None else loss / 100,
            max_queue_packets=None if queue is None else int(queue),
        )


def _number(options: Mapping[str, Any], name: str) -> float | None:
    value = options.get(name)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{name} is {repr(value)[:60]}, which is not a number")
    return number


def _time(options: Mapping[str, Any], name: str) -> float | None:
    value = options.get(name)
    if value is None:
        return None
    text = str(value)
    return parse_delay(f"{text}us" if re.fullmatch(_NUMBER, text.strip()) else text)
