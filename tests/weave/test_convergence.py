"""Whatever happens to gossip on its way, everyone ends up knowing the same.

Four routers' topologies, without the routers: links come and go, routers restart and have forgotten
everything, messages are late, lost, repeated, overtaken.  Then everyone tells its neighbours all it
knows until nobody has news, and those who can reach each other must agree, on the truth.
"""

from __future__ import annotations

import random
from itertools import combinations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from xlab.weave import names, routes, topology
from xlab.weave.names import PeerName
from xlab.weave.topology import Link, Peer, Topology

NAMES = tuple(names.from_number(0x7A0000000000 + number) for number in range(1, 5))
PAIRS = st.sampled_from(list(combinations(NAMES, 2)))
SOMEBODY = st.sampled_from(NAMES)
#: After so many rounds in which everyone tells everything, there is no news in a chain of four.
_ROUNDS = 24


class Gossip(RuleBasedStateMachine):
    @initialize(
        seed=st.integers(0, 1000), same_short_id=st.booleans(), pairs=st.sets(PAIRS, max_size=6)
    )
    def begin(self, seed: int, same_short_id: bool, pairs: set[tuple[PeerName, PeerName]]) -> None:
        self.chance = random.Random(seed)
        self.same_short_id = same_short_id
        self.views: dict[PeerName, Topology] = {}
        self.joined: set[tuple[PeerName, PeerName]] = set()
        #: (from whom, to whom, update), in no order: TCP keeps one, but what others pass on has
        #: none.
        self.on_the_way: list[tuple[PeerName, PeerName, bytes]] = []
        for name in NAMES:
            self.views[name] = self.newborn(name)
        for pair in sorted(pairs):
            self.join(pair, established=True)
        self.settle()

    def newborn(self, name: PeerName) -> Topology:
        short_id = 7 if self.same_short_id else self.chance.randrange(4096)
        return Topology(
            Peer(name, f"h{name[-1]}", uid=self.chance.randrange(1, 1 << 64), short_id=short_id),
            chance=self.chance,
        )

    @rule(pair=PAIRS, established=st.booleans())
    def join(self, pair: tuple[PeerName, PeerName], established: bool) -> None:
        self.joined.add(pair)
        for ours, theirs in (pair, pair[::-1]):
            known = self.views[theirs].ourself
            introduced = Peer(theirs, known.nickname, known.uid, short_id=known.short_id)
            self.views[ours].introduce(introduced)
            self.views[ours].set_link(theirs, Link("10.0.0.1:6783", ours < theirs, established))

    @precondition(lambda self: self.joined)
    @rule(data=st.data())
    def part(self, data: st.DataObject) -> None:
        pair = data.draw(st.sampled_from(sorted(self.joined)))
        self.joined.remove(pair)
        for ours, theirs in (pair, pair[::-1]):
            self.views[ours].set_link(theirs, None)

    @rule(name=SOMEBODY, joined_again=st.integers(0, 3))
    def restart(self, name: PeerName, joined_again: int) -> None:
        """With fewer links than before its version is lower than what others remember."""
        self.views[name] = self.newborn(name)
        pairs = sorted(pair for pair in self.joined if name in pair)
        for pair in pairs:
            self.joined.remove(pair)
            (other,) = set(pair) - {name}
            self.views[other].set_link(name, None)
        for pair in pairs[:joined_again]:
            self.join(pair, established=True)

    @precondition(lambda self: self.joined)
    @rule(data=st.data(), everything=st.booleans())
    def tell(self, data: st.DataObject, everything: bool) -> None:
        sender, receiver = data.draw(st.sampled_from(sorted(self.joined)).flatmap(st.permutations))
        view = self.views[sender]
        chosen = view.peers.keys() if everything else {sender}
        self.on_the_way.append((sender, receiver, view.describe(chosen)))

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data(), again=st.booleans(), lost=st.booleans())
    def arrive(self, data: st.DataObject, again: bool, lost: bool) -> None:
        place = data.draw(st.integers(0, len(self.on_the_way) - 1))
        sender, receiver, update = self.on_the_way[place]
        if not again:
            del self.on_the_way[place]
        if lost:
            return
        view = self.views[receiver]
        merged = view.merge(topology.decode(update), sender=sender)
        if merged.news:
            # Passed on, as gossip is.
            self.on_the_way += [
                (receiver, other, view.describe(merged.news)) for other in self.neighbours(receiver)
            ]

    def neighbours(self, name: PeerName) -> list[PeerName]:
        return [
            other for pair in sorted(self.joined) if name in pair for other in pair if other != name
        ]

    @invariant()
    def everyone_knows_itself_and_nobody_out_of_reach(self) -> None:
        for name, view in self.views.items():
            reached = routes.next_hops(view.every_link(), name)
            assert view.ourself.links.keys() == set(self.neighbours(name))
            assert view.peers.keys() - {name} <= reached.keys()
            dict(routes.calculate(view.established_links(), name).broadcast)

    def settle(self) -> None:
        """Everyone tells its neighbours all it knows, until nobody has news."""
        for _ in range(_ROUNDS):
            before = {name: view.peers.copy() for name, view in self.views.items()}
            for pair in sorted(self.joined):
                for sender, receiver in (pair, pair[::-1]):
                    view = self.views[sender]
                    update = topology.decode(view.describe(view.peers.keys()))
                    self.views[receiver].merge(update, sender=sender)
            if before == {name: view.peers for name, view in self.views.items()}:
                return
        raise AssertionError("there is always news")

    def teardown(self) -> None:
        if not hasattr(self, "views"):
            return
        self.settle()
        graph = {name: self.neighbours(name) for name in NAMES}
        for name, view in self.views.items():
            together = {name, *routes.next_hops(graph, name)}
            assert view.peers == {other: self.views[other].ourself for other in together}
            short_ids = [peer.short_id for peer in view.peers.values()]
            assert len(set(short_ids)) == len(short_ids)


TestGossip = Gossip.TestCase
