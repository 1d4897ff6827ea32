"""Which way from here: shortest paths over what the topology says, the same at every peer.

Everyone calculates for itself.  That works because everyone does it in the same way: breadth first,
the peers of each level in the order of their names.  So all agree on the tree along which a
broadcast from any peer spreads, and each knows its own part of it:

    forward what came from S to those neighbours that S had not reached before it reached us
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from xlab.weave.names import PeerName

#: Who can send to whom.
Graph: TypeAlias = Mapping[PeerName, Collection[PeerName]]


@dataclass(frozen=True, slots=True)
class Routes:
    """What the data plane needs: over connections that both ends call established."""

    #: Destination to the neighbour that is the next hop; without ourselves.
    unicast: Mapping[PeerName, PeerName]
    #: Source to the neighbours to forward its broadcasts to; our own broadcasts under our name.
    broadcast: Mapping[PeerName, Sequence[PeerName]]


def calculate(graph: Graph, ourself: PeerName) -> Routes:
    unicast = next_hops(graph, ourself)
    sources = (ourself, *sorted(unicast))
    return Routes(unicast, {source: forward_to(graph, source, ourself) for source in sources})


def next_hops(graph: Graph, start: PeerName) -> dict[PeerName, PeerName]:
    """For each peer that can be reached, the neighbour of `start` through which."""
    hops: dict[PeerName, PeerName] = {start: start}
    level = [start]
    while level:
        following = []
        for peer in sorted(level):
            for neighbour in graph.get(peer, ()):
                if neighbour not in hops:
                    hops[neighbour] = neighbour if peer == start else hops[peer]
                    following.append(neighbour)
        level = following
    del hops[start]
    return hops


def forward_to(graph: Graph, source: PeerName, ourself: PeerName) -> list[PeerName]:
    """The neighbours that get a broadcast of `source` through us, in the order of their names."""
    ours = set(graph.get(ourself, ())) - {source}
    reached = {source}
    level = [source]
    # In a full mesh this ends after the first step, whatever the number of peers.
    while level and ours:
        following = []
        for peer in sorted(level):
            if peer == ourself:
                return sorted(ours)
            for neighbour in graph.get(peer, ()):
                if neighbour not in reached:
                    reached.add(neighbour)
                    following.append(neighbour)
            ours.difference_update(graph.get(peer, ()))
        level = following
    return []
