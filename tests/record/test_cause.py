"""Why a run does not pass, in a sentence."""

from __future__ import annotations

import pytest

from xlab.record.cause import cause
from xlab.record.record import PathProof, UnderlayPackets


def not_proved(sent: int, evidence: str = "", **seen: int) -> str:
    packets = UnderlayPackets(**seen)
    proof = PathProof(
        "gre", packets, False, False, None, None, packets_sent=sent, evidence=evidence
    )
    return cause((), proof).removeprefix("the path is not proved: expected ")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (not_proved(20), "20 packets on the wire as gre, observed 0"),
        (not_proved(20, gre=40), "20 packets on the wire as gre, observed 40"),
        # A way past the tunnel beside the one through it.
        (
            not_proved(20, gre=20, none=20),
            "20 packets on the wire as gre, observed 20, 20 as plain",
        ),
        # Of what belongs to others nothing is expected.
        (not_proved(20, gre=19, stray=7), "20 packets on the wire as gre, observed 19"),
        (
            not_proved(20, "raw: 20 frames, 3 dropped", gre=20),
            "20 packets on the wire as gre, observed 20 (raw: 20 frames, 3 dropped)",
        ),
        # An older record.
        (not_proved(0, none=20), "every packet on the wire as gre, observed 0, 20 as plain"),
    ],
)
def test_a_path_that_is_not_proved_says_what_else_was_seen(told: str, said: str) -> None:
    assert told == said
