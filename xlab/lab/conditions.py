"""Rate, delay, jitter and loss on links.

Conditions are Mininet's: they hold for each link, in each direction.  Between two hosts at one
switch lie two links, so a delay of 10 ms makes a round trip of 40 ms, and a loss of 1 % takes 2 %
one way.

A link with conditions is cut at the switch and joined again, so that every frame passes the joint:

    h1: eth0 ──── s1-eth1  [joint]  s1-eth1q ──── s1-eth1p ── bridge s1
                 (uplink)            (inner)      (port)

    netem, tbf:   a bridge that learns nothing; a queueing discipline on uplink (towards the host)
                  and on inner (towards the switch)
    delay-line:   a process that forwards between uplink and inner (xlab/lab/delay_line.py)

Queueing disciplines act on what leaves an interface.  With two interfaces to leave by neither
direction needs ifb, mirred and a classifier, of which a kernel may lack any; and it does not matter
whether the uplink is a veth or a tap of Open vSwitch.  Nothing inside the host is touched.
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from xlab.errors import CapabilityError, DaemonError, UsageError
from xlab.kernel.processes import Process, command_line, wait_until
from xlab.lab import delay_line
from xlab.lab.limits import DELAY_MS, RATE_BITS_PER_SECOND, within

if TYPE_CHECKING:
    from xlab.kernel.capabilities import Machine
    from xlab.lab.node import Node


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
        raise UsageError(f"{text!r} is not a time: write 10ms, 1.5s or 500us")
    delay_ms = float(match[1]) * _TIME_UNITS[match[2]]
    within(f"{text!r}", delay_ms, DELAY_MS, "ms")
    return delay_ms


def parse_rate(text: str) -> float:
    """ "100mbit", "1.5 Gbit/s" in bits per second; raises UsageError.

    A unit that could mean bytes ("mbps" is megabytes to tc) is refused.
    """
    match = re.fullmatch(rf"{_NUMBER}\s*([kmgt]?)bit(?:/s|ps)?", text.strip().lower())
    if not match:
        raise UsageError(f"{text!r} is not a rate: write 10mbit, 1.5gbit or 64kbit")
    rate = float(match[1]) * _RATE_PREFIXES[match[2]]
    within(f"{text!r}", rate, RATE_BITS_PER_SECOND, "bit/s")
    return rate


def parse_loss(text: str) -> float:
    """ "1%" or "0.01" as a ratio; raises UsageError.  A bare 1 and above could mean either."""
    match = re.fullmatch(rf"{_NUMBER}\s*(%?)", text.strip())
    if not match:
        raise UsageError(f"{text!r} is not a loss: write 1% or 0.01")
    ratio = float(match[1]) / (100 if match[2] else 1)
    if ratio >= 1:
        raise UsageError(
            f"loss is {text}; the range is 0% to under 100%, as 0.5% or as a ratio, 0.005"
        )
    return ratio


def from_mininet(options: Mapping[str, Any], link: str = "a link") -> LinkConditions:
    """The conditions in the options of a Mininet link; `link` names it in a UsageError.

    `bw` is in Mbit/s, `loss` in percent, `delay` and `jitter` are tc's times: a bare number counts
    microseconds.  Options of other kinds are not looked at.
    """
    try:
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
    except UsageError as error:
        raise UsageError(f"{link}: {error}") from error


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


# -- which backend ---------------------------------------------------------------------------------


class Backend(StrEnum):
    """What imposes conditions; the value is what the record says."""

    NONE = "none"
    NETEM = "netem"
    TBF = "tbf"
    DELAY_LINE = "delay-line"


def choose_backend(conditions: LinkConditions, machine: Machine) -> Backend:
    """netem where it is live; else tbf for a rate alone, and the delay line for all the rest.

    The delay line limits rates as well: its queue is its own, whereas what it sends into a tbf is
    bounded by net.core.wmem_max, on stock kernels 208 KB, less than a long link's queue needs.
    Raises CapabilityError if the machine has none of them; conditions are never ignored.
    """
    if not conditions:
        return Backend.NONE
    if machine.netem.live:
        return Backend.NETEM
    rate_alone = not (conditions.delay_ms or conditions.loss_ratio)
    if rate_alone and machine.tbf.live:
        return Backend.TBF
    if machine.packet_sockets.usable:
        return Backend.DELAY_LINE
    raise CapabilityError(
        f"link conditions: {machine.netem.detail}, and {machine.packet_sockets.detail}",
        machine.netem.remedy,
    )


def fallback(backend: Backend, machine: Machine) -> str:
    """What to tell the user about a backend that is not the best; empty if there is nothing."""
    if backend is not Backend.DELAY_LINE:
        return ""
    remedy = f" (`{machine.netem.remedy}` for the kernel's)" if machine.netem.remedy else ""
    return (
        f"links are conditioned in user space by a delay line: {machine.netem.detail}{remedy}; "
        "it forwards about 1 Gbit/s of single packets, 10 of large segments"
    )


# -- imposing --------------------------------------------------------------------------------------

#: Segments of tunnels that the delay line cannot take.
_TUNNEL_SEGMENTATION = (
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
    "tx-gre-segmentation",
    "tx-gre-csum-segmentation",
    "tx-ipxip4-segmentation",
)
#: Segments of which one lost would be many packets lost.
_SEGMENTATION = ("tso", "gso", "gro", "tx-udp-segmentation")

#: Ethernet header and a VLAN tag.
_FRAME_OVERHEAD_BYTES = 14 + 4
_READY_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Imposed:
    """A link that has its conditions."""

    backend: Backend
    #: The interface to make a port of the switch.
    port: str
    #: The delay line, to be stopped with the lab; None for the other backends.
    line: Process | None = None
    #: What was done, as lines to paste.
    commands: tuple[str, ...] = ()
    #: Features to switch off at the host's interface (`switch_off`), or figures are wrong.
    offloads_off: tuple[str, ...] = ()

    def require_alive(self, node: str = "wire") -> None:
        """Raises DaemonError, with what it said, if the delay line has died."""
        if self.line is not None and (status := self.line.poll()) is not None:
            raise DaemonError(
                f"the delay line of {self.port}",
                node=node,
                reason=f"ended with status {status}",
                log_tail=self.line.stderr_tail(),
            )


def impose(
    wire: Node,
    uplink: str,
    conditions: LinkConditions,
    backend: Backend,
    *,
    back: LinkConditions | None = None,
    mtu: int = 1500,
) -> Imposed:
    """Put `conditions` on the link whose end `uplink` is, in both directions.

    With `back` they are those of what comes in at `uplink`, and `back` those of what leaves by it.
    `uplink` is in the switches' namespace `wire`, its other side a host or another switch; it is
    taken out of its bridge, if it has one.  The caller makes `Imposed.port`, which is up, a port of
    the switch in its stead, and calls `switch_off` for the host's own interface.  Everything made
    lives as long as `wire`, or until `lift`.  Raises CommandError if `ip`, `tc` or `ethtool` fails,
    DaemonError if the delay line does not start.
    """
    if backend is Backend.NONE:
        return Imposed(backend, uplink)
    names = _Names(uplink)
    returning = conditions if back is None else back
    offloads_off: tuple[str, ...] = ()
    if conditions.loss_ratio or returning.loss_ratio:
        offloads_off = _SEGMENTATION
    if backend is Backend.DELAY_LINE:
        offloads_off += _TUNNEL_SEGMENTATION
        argv = delay_line_argv(uplink, names.inner, conditions, back=back, mtu=mtu)
        commands = [*_batch(wire, "ip", _cut(names, mtu))]
        commands += _switch_off(wire, names.port, offloads_off)
        line = _start_line(wire, argv)
        return Imposed(backend, names.port, line, (*commands, command_line(argv)), offloads_off)
    arguments = netem_arguments if backend is Backend.NETEM else tbf_arguments
    disciplines = [
        f"qdisc replace dev {name} root {arguments(wanted, mtu=mtu)}"
        for name, wanted in ((uplink, returning), (names.inner, conditions))
        if wanted
    ]
    commands = [
        *_batch(wire, "ip", _cut(names, mtu)),
        *_batch(wire, "tc", disciplines),
        *_batch(wire, "ip", _bridge(names)),
    ]
    commands += _switch_off(wire, names.port, offloads_off)
    return Imposed(backend, names.port, None, tuple(commands), offloads_off)


def lift(wire: Node, uplink: str, imposed: Imposed) -> None:
    """Undo `impose`: the link is without conditions, `uplink` up and in no bridge, or gone."""
    if imposed.backend is Backend.NONE:
        return
    if imposed.line is not None:
        imposed.line.stop()
    else:
        own_queue = f"tc qdisc replace dev {uplink} "
        if wire.rtnl.has(uplink) and any(line.startswith(own_queue) for line in imposed.commands):
            _batch(wire, "tc", [f"qdisc del dev {uplink} root"])
        _batch(wire, "ip", [f"link del {_Names(uplink).joint}"])
    _batch(wire, "ip", [f"link del {imposed.port}"])


def switch_off(node: Node, interface: str, imposed: Imposed) -> tuple[str, ...]:
    """Switch off the offloads that would spoil the conditions, at the host's end of the link."""
    return tuple(_switch_off(node, interface, imposed.offloads_off))


class _Names:
    """The interfaces of a joint, named after the uplink where that fits into 15 characters."""

    def __init__(self, uplink: str) -> None:
        stem = uplink if len(uplink) <= 14 else f"c{zlib.crc32(uplink.encode()):08x}"
        self.uplink = uplink
        self.port = f"{stem}p"
        self.inner = f"{stem}q"
        self.joint = f"{stem}j"


def _cut(names: _Names, mtu: int) -> list[str]:
    return [
        f"link set dev {names.uplink} nomaster up",
        f"link add {names.inner} mtu {mtu} up type veth peer name {names.port} mtu {mtu}",
        f"link set dev {names.port} up",
    ]


def _bridge(names: _Names) -> list[str]:
    """A bridge of two ports that forwards everything from one to the other, as a wire does.

    An ageing time of 0 keeps it from learning: what it had learnt would be wrong as soon as a
    container moves to another host.
    """
    return [
        f"link add {names.joint} up type bridge {_WIRE_LIKE}",
        f"link set dev {names.uplink} master {names.joint}",
        f"link set dev {names.inner} master {names.joint}",
    ]


_WIRE_LIKE = "forward_delay 0 stp_state 0 ageing_time 0 mcast_snooping 0"


def _batch(node: Node, tool: str, lines: Sequence[str]) -> list[str]:
    """Run lines of `ip` or `tc` in one process; returns them as they are typed."""
    node.configure([tool, "-batch", "-"], stdin="".join(f"{line}\n" for line in lines).encode())
    return [f"{tool} {line}" for line in lines]


def _switch_off(node: Node, interface: str, features: Sequence[str]) -> list[str]:
    if not features:
        return []
    argv = ["ethtool", "-K", interface]
    for feature in features:
        argv += [feature, "off"]
    node.configure(argv)
    return [command_line(argv)]


def _start_line(wire: Node, argv: Sequence[str]) -> Process:
    line = wire.spawn(argv)

    def settled() -> bool:
        return line.poll() is not None or line.stdout().startswith("ready\n")

    wait_until(settled, timeout_s=_READY_WITHIN_S, awaited="the delay line to be ready")
    if line.poll() is not None:
        raise DaemonError(
            "the delay line",
            node=wire.name,
            reason=f"ended at once with status {line.poll()}",
            log_tail=line.stderr_tail(),
        )
    return line


def netem_arguments(conditions: LinkConditions, *, mtu: int) -> str:
    """The netem discipline as tc takes it.

    A rate makes netem keep packets in order under jitter, so there is always one (sch_netem.c,
    netem_enqueue: a packet's delay then counts from that of the one before it).  netem's limit
    counts packets under way as well as those that wait.
    """
    frame_bytes = mtu + _FRAME_OVERHEAD_BYTES
    rate = conditions.rate_bits_per_second or RATE_BITS_PER_SECOND[1]
    carried = conditions.rate_bits_per_second or _UNLIMITED_BITS_PER_SECOND
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


#: What a link without a rate is taken to carry when room is made for packets under way.
_UNLIMITED_BITS_PER_SECOND = 10e9
_MOST_PACKETS = 200_000


def tbf_arguments(conditions: LinkConditions, *, mtu: int) -> str:
    """The token bucket as tc takes it: a millisecond's worth of burst, and never under two frames.

    A segment larger than the burst is cut by the kernel; a single packet that is would be dropped.
    """
    assert conditions.rate_bits_per_second
    bytes_per_second = conditions.rate_bits_per_second / 8
    burst = max(bytes_per_second * 0.001, 2 * (mtu + _FRAME_OVERHEAD_BYTES))
    limit = queue_bytes(conditions, mtu=mtu) + burst
    return (
        f"tbf rate {conditions.rate_bits_per_second:.0f}bit burst {burst:.0f}b limit {limit:.0f}b"
    )


def queue_bytes(conditions: LinkConditions, *, mtu: int) -> float:
    """How much may wait for the rate: a round trip's worth over two such links, at least 50 ms.

    Never under 100 packets: a queue too short for a burst makes a lossy link of a slow one.
    """
    frame_bytes = mtu + _FRAME_OVERHEAD_BYTES
    if conditions.max_queue_packets:
        return float(conditions.max_queue_packets * frame_bytes)
    rate = conditions.rate_bits_per_second or _UNLIMITED_BITS_PER_SECOND
    queue_s = max(0.05, 4 * (conditions.delay_ms or 0) / 1e3)
    return max(rate / 8 * queue_s, 100.0 * frame_bytes)


def delay_line_argv(
    a: str, b: str, conditions: LinkConditions, *, back: LinkConditions | None = None, mtu: int
) -> list[str]:
    """The delay line, run as a file of its own: no site-packages, nothing of ours on its path."""
    argv = [sys.executable, "-I", "-S", delay_line.__file__, a, b]
    argv += ["--frame-bytes", str(mtu + _FRAME_OVERHEAD_BYTES)]
    argv += _delay_line_options(conditions, mtu=mtu)
    if back is not None:
        argv += ["--back", *_delay_line_options(back, mtu=mtu)]
    return argv


def _delay_line_options(conditions: LinkConditions, *, mtu: int) -> list[str]:
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
