"""Counting: what files of /proc say."""

from __future__ import annotations

from xlab.lab import counters
from xlab.lab.counters import Counters, Traffic

#: Linux 6.12; the numbers are followed by no colon, but a long name touches them.
DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
s1-eth1:  1700      17    0    3    0     0          0         0      420      10    0    4    0     0       0          0
s1-eth1000000:18446744073709551615 4294967296    0    0    0     0          0         0        0       0    0    0    0     0       0          0
"""  # noqa: E501


def test_memory_is_read_as_the_kernel_writes_it() -> None:
    text = "Slab:             677612 kB\nHugePages_Total:       0\nPercpu:             1592 kB\n"
    assert counters.kibibytes(text) == {"Slab": 677612, "Percpu": 1592}


def test_links_are_counted_both_ways() -> None:
    counted = counters.counters(DEV)
    assert list(counted) == ["s1-eth1", "s1-eth1000000"]
    port = counted["s1-eth1"]
    assert port == Counters(1700, 17, 3, 420, 10, 4)
    assert (port.dropped, port.seen_from_beyond()) == (7, Counters(420, 10, 4, 1700, 17, 3))
    assert counted["s1-eth1000000"].in_packets == 4294967296
    assert Traffic(27, 2120).since(Traffic(20, 2000)) == Traffic(7, 120)


def test_this_process_is_counted() -> None:
    assert counters.processes() >= 1
    assert counters.descriptors() >= 3
    memory = counters.memory()
    assert min(memory.kernel, memory.processes) > 1 << 20
