"""What bounds a lab's size: open files, each process's own, and ARP entries, the machine's."""

from __future__ import annotations

from pathlib import Path

from xlab.errors import CapabilityError

#: What is open in a lab's first process, as counted with 8 to 92 nodes while claims are checked and
#: probes run: 52 + 4 for each in the scenario that needs least, 38 + 7 in the one that needs most.
_FILES_OF_A_LAB, _FILES_OF_A_NODE, _MOST_FILES_OF_A_NODE = 48, 4, 7
#: Beside hosts and containers: the gateway, and where the cables are.
_OTHER_NODES = 2


def nodes_within(open_files: int) -> int:
    """How many hosts and containers a lab of any scenario may have under such a limit."""
    nodes = (open_files - _FILES_OF_A_LAB) // _MOST_FILES_OF_A_NODE - _OTHER_NODES
    return max(0, nodes)


def require_open_files(limit: int, nodes: int) -> None:
    """Raises CapabilityError where no lab with so many hosts and containers can be."""
    least = _FILES_OF_A_LAB + _FILES_OF_A_NODE * (nodes + _OTHER_NODES)
    if limit < least:
        lab = f"a lab with {nodes:,} hosts and containers"
        raise too_few_open_files(limit, f"{lab} needs at least {least:,}")


def too_few_open_files(limit: int, but: str) -> CapabilityError:
    """The error, with the line to paste; `but` says what the limit does not suffice for."""
    return CapabilityError(f"at most {limit:,} open files, and {but}", MORE_OPEN_FILES)


MORE_OPEN_FILES = "sudo prlimit --pid $$ --nofile=65536:65536"


def neighbour_overflows(statistics: Path = Path("/proc/net/stat/arp_cache")) -> int:
    """How often since boot an ARP entry was refused because the machine's table was full.

    The table is every namespace's, whoever fills it; only the root network namespace has the
    figures.  0 where there are none.
    """
    try:
        names, *processors = [line.split() for line in statistics.read_text().splitlines()]
        column = names.index("table_fulls")
        return sum(int(figures[column], 16) for figures in processors)
    except (OSError, ValueError, IndexError):
        return 0
