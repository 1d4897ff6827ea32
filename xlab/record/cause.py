"""Why what was built does not pass, in one sentence: what was expected first, and what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from xlab.kernel.packets import Encapsulation
from xlab.record.record import Claim, PathProof

#: Of what a tool printed: enough to see what is different; all of it stands with the claim.
_LONGEST = 120


def cause(claims: Sequence[Claim], path: PathProof | None, *, whole: bool = True) -> str:
    """ "" if all holds.  What is not built to its end (not `whole`) has no path to be proved."""
    broken = [claim for claim in claims if not claim.holds]
    reasons = []
    if broken:
        more = f" ({len(broken)} of {len(claims)} claims do not hold)" if len(broken) > 1 else ""
        reasons.append(_of_claim(broken[0]) + more)
    if path is None or not path.proved:
        if whole:
            reasons.append(_of_path(path))
    elif not path.negative_control:
        reasons.append(f"the negative control failed ({path.control_detail})")
    return "; ".join(reasons)


def _of_claim(claim: Claim) -> str:
    stage = f" ({claim.stage})" if claim.stage else ""
    return (
        f"“{_short(claim.text)}”{stage} does not hold: "
        f"expected {_short(claim.expected)}, observed {_short(claim.observed)}"
    )


def _of_path(path: PathProof | None) -> str:
    if path is None:
        return "the path is not proved: it was not tried"
    seen = {_kind(kind): getattr(path.underlay_packets, kind) for kind in get_args(Encapsulation)}
    kind = _kind(path.encapsulation)
    meant = seen.pop(kind)
    others = "".join(f", {count} as {other}" for other, count in seen.items() if count)
    observed = f"{meant}{others}"
    if meant == path.packets_sent and not others and path.evidence:
        observed += f" ({path.evidence})"  # of frames that the kernel could not keep
    # Older records do not say how many were sent.
    sent = f"{path.packets_sent} packets" if path.packets_sent else "every packet"
    return f"the path is not proved: expected {sent} on the wire as {kind}, observed {observed}"


def _kind(encapsulation: str) -> str:
    return "plain" if encapsulation == "none" else encapsulation


def _short(said: str) -> str:
    """On one line."""
    said = " ".join(said.split()) or "nothing"
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 1].rstrip()}…"
