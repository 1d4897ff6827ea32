"""What a lab answers to (`inside.verbs`), asked over a connection to its pid 1."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xlab.kernel.processes import Completed
from xlab.sandbox.containment import Limits
from xlab.sandbox.controller import Client
from xlab.sandbox.entering import Doors

if TYPE_CHECKING:
    # To import them takes half as long again as the rest that `xlab exec` needs.
    from xlab.record.judgement import Judgement
    from xlab.record.record import Claim, PathProof


@dataclass(frozen=True, slots=True)
class Status:
    """What still holds of a lab."""

    #: Those that are to last, and that packets take the method's path.
    claims: tuple[Claim, ...]
    #: With `prove`.
    path: PathProof | None
    #: What became of one that has died; empty if all live.
    dead_daemon: str
    #: Stage by stage, of a lab that somebody has typed, or that was built to a stage.
    judgement: Judgement | None = None
    #: There, what to look at: of claims that do not hold, by their id.
    look: Mapping[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        path = self.path
        proved = path is None or (path.proved and path.negative_control)
        judged = self.judgement is None or self.judgement.holds
        held = all(claim.holds for claim in self.claims)
        return proved and judged and held and not self.dead_daemon


class Told:
    """What a lab tells of itself while it is asked something."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []
        self.path: PathProof | None = None
        self.notes: list[str] = []
        #: What to look at, by the id of a claim that does not hold.
        self.look: dict[str, str] = {}

    def hear(self, event: Mapping[str, Any]) -> None:
        from xlab.record import record
        from xlab.record.record import Claim, PathProof

        fields = {name: value for name, value in event.items() if name != "kind"}
        if event["kind"] == "claim":
            self.claims.append(record.decode(Claim, fields, "claim"))
            if fields.get("look"):
                self.look[str(fields["id"])] = str(fields["look"])
        elif event["kind"] == "path":
            self.path = record.decode(PathProof, fields, "path")
        elif event["kind"] == "note":
            self.notes.append(str(event["text"]))


def status(
    client: Client,
    *,
    prove: bool,
    watch: Callable[[Mapping[str, Any]], object] = lambda _: None,
) -> Status:
    """See `Verbs.status`; `watch` is told of each claim, and of the path, as they are checked."""
    from xlab.record import record
    from xlab.record.judgement import Judgement

    told = Told()

    def hear(event: Mapping[str, Any]) -> None:
        watch(event)
        told.hear(event)

    found = client.call("status", {"prove": prove}, hear)
    judged = found.get("judgement")
    judgement = record.decode(Judgement, judged, "judgement") if judged else None
    dead = str(found["dead_daemon"])
    return Status(tuple(told.claims), told.path, dead, judgement, told.look)


def run(
    client: Client,
    node: str,
    argv: Sequence[str],
    *,
    timeout_s: float,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run a program in a node to its end, whatever its status; see `Verbs.run`."""
    arguments = {
        "node": node,
        "argv": list(argv),
        "timeout_s": timeout_s,
        "stdin": None if stdin is None else base64.b64encode(stdin).decode(),
        "env": dict(env or {}),
    }
    done = client.call("run", arguments)
    return Completed(**{**done, "argv": tuple(done["argv"])})


def enter(client: Client, node: str, *, inhabited: bool = True) -> Doors:
    """The way into a node, or with "" into the sandbox itself; see `Verbs.enter`."""
    facts, descriptors = client.call_for_descriptors(
        "enter", {"node": node, "inhabited": inhabited}
    )
    opened = dict(zip(facts["kinds"], descriptors, strict=True))
    limits = facts["limits"] and Limits(**facts["limits"])
    return Doors(opened, rootless=facts["sandbox"] == "rootless", limits=limits)
