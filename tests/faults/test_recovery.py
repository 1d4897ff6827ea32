"""What a flow felt of a fault, told from the answers that are missing, by chance too."""

from __future__ import annotations

import random

import pytest

from xlab.faults.recovery import felt, least_gap, works

#: As many as are sent, and of them until the fault is mended.
ECHOES, MENDING_FROM = 8000, 50
INTERVAL_S = 0.01


def answers(number: int, lost: float, chance: random.Random) -> list[float | None]:
    """Each after no time, some not at all."""
    return [None if chance.random() < lost else n * INTERVAL_S for n in range(number)]


@pytest.mark.parametrize("lost", [0.0, 0.02, 0.08, 0.15, 0.5])
def test_a_fault_that_stops_nothing_is_none_whatever_links_lose(lost: float) -> None:
    chance, least = random.Random(1), least_gap(lost, echoes=ECHOES)
    for _ in range(100):
        trained = answers(300, lost, chance)
        assert works(trained, least)
        assert felt(trained, MENDING_FROM, least) == (False, None)


@pytest.mark.parametrize("lost", [0.0, 0.02, 0.08, 0.15, 0.5])
def test_a_flow_is_back_with_the_end_of_its_last_gap_whatever_links_lose(lost: float) -> None:
    chance, least = random.Random(1), least_gap(lost, echoes=ECHOES)
    late = []
    for _ in range(100):
        trained = answers(300, lost, chance)
        trained[20:80] = [None] * 60
        stopped, back_at = felt(trained, MENDING_FROM, least)
        assert stopped
        assert back_at is not None
        late.append(back_at - 80 * INTERVAL_S)
    # Only as late as the first answer that is not lost.
    assert min(late) >= 0
    usual = INTERVAL_S * lost / (1 - lost)
    assert sum(late) / len(late) == pytest.approx(usual, abs=INTERVAL_S / 2)


def test_a_gap_is_longer_the_more_is_lost() -> None:
    assert [least_gap(lost, echoes=ECHOES) for lost in (0, 0.02, 0.08, 0.15, 0.5, 1)] == [
        1, 5, 7, 9, 23, 1
    ]  # fmt: skip


def test_a_gap_that_mending_has_ended_began_before() -> None:
    """Of the eight that are missing three were asked after it was mended."""
    trained = [n * INTERVAL_S for n in range(100)]
    gone: list[float | None] = [*trained[:45], *[None] * 8, *trained[53:]]
    assert felt(gone, MENDING_FROM, 7) == (True, trained[53])
    assert felt(gone, MENDING_FROM, 9) == (False, None)
    # Ended by the mending itself: the first that was asked from then on.
    gone = [*trained[:40], *[None] * 10, *trained[50:]]
    assert felt(gone, MENDING_FROM, 7) == (True, trained[50])
    # And what mending stopped, the fault had not.
    gone = [*trained[:60], *[None] * 10, *trained[70:]]
    assert felt(gone, MENDING_FROM, 7) == (False, trained[70])


def test_without_loss_one_that_is_missing_is_a_gap_unless_it_is_under_way() -> None:
    trained: list[float | None] = [n * INTERVAL_S for n in range(100)]
    trained[10] = trained[-1] = None
    assert felt(trained, MENDING_FROM, 1) == (True, trained[MENDING_FROM])
    assert felt(trained[20:], MENDING_FROM - 20, 1) == (False, None)
    assert felt(trained[20:], 0, 1, stopped=True) == (True, trained[20])
