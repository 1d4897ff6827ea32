"""Which way from here: shortest paths over what the topology says, the same at every peer.

Everyone calculates for itself.  That works because everyone does it in the same way: breadth first,
the peers of each level in the order of their names.  So all agree on the tree along which a
broadcast from any peer spreads, and each knows its own part of it:

    forward what came from S to those neighbours that S had not reached before it reached us
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
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

    @property
    def worked_out(self) -> Mapping[PeerName, Sequence[PeerName]]:
        """Of `broadcast` what takes no time any more: of those sources that have sent any."""
        return self.broadcast.worked_out() if isinstance(self.broadcast, _Trees) else self.broadcast


def calculate(graph: Graph, ourself: PeerName) -> Routes:
    """The routes in a graph that does not change any more."""
    unicast = next_hops(graph, ourself)
    return Routes(unicast, _Trees(graph, ourself, (ourself, *sorted(unicast))))


class _Trees(Mapping[PeerName, Sequence[PeerName]]):
    """Our part of each source's tree, worked out when its first broadcast comes.

    All of them at once take peers × connections steps after each change: of 4,000 peers in a chain,
    which a gossip of 300 KB can claim, 6 s in which a router does nothing else.
    """

    def __init__(self, graph: Graph, ourself: PeerName, sources: Collection[PeerName]) -> None:
        self._graph = graph
        self._ourself = ourself
        self._trees: dict[PeerName, Sequence[PeerName] | None] = dict.fromkeys(sources)

    def __getitem__(self, source: PeerName) -> Sequence[PeerName]:
        tree = self._trees[source]
        if tree is None:
            tree = self._trees[source] = forward_to(self._graph, source, self._ourself)
        return tree

    def worked_out(self) -> Mapping[PeerName, Sequence[PeerName]]:
        return {source: tree for source, tree in self._trees.items() if tree is not None}

    def __iter__(self) -> Iterator[PeerName]:
        return iter(self._trees)

    def __len__(self) -> int:
        return len(self._trees)


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
