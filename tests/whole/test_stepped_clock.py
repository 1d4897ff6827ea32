"""The time of day may jump by hours, back and forth, while a lab is built, proved and measured."""

from __future__ import annotations

import dataclasses
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.labs import Run
from xlab.record import record
from xlab.scenario.request import Request

pytestmark = pytest.mark.sandbox

#: `python THIS … -c CODE` is Python in which each look at the time of day is up to six hours off.
#: The sandbox is a fork of it, and has the same.
_STEPPED = """
import datetime, random, sys, time

true_time, true_datetime, chance = time.time, datetime.datetime, random.Random(1)

def stepped():
    return true_time() + chance.uniform(-6, 6) * 3600

class Stepped(true_datetime):
    @classmethod
    def now(cls, tz=None):
        return true_datetime.fromtimestamp(stepped(), tz)

time.time, datetime.datetime = stepped, Stepped
exec(sys.argv[sys.argv.index("-c") + 1])
"""


@pytest.mark.parametrize(
    ("scenario", "measure"),
    [("weave", False), pytest.param("baseline", True, marks=pytest.mark.slow)],
)
def test_a_run_does_not_mind_the_time_of_day(scenario: str, measure: bool, tmp_path: Path) -> None:
    wrapper = tmp_path / "stepped.py"
    wrapper.write_text(_STEPPED)
    request = Request(scenario, quick=True, duration_s=1, repeat=1)
    argv = [sys.executable, str(wrapper)]
    with Run(request, tmp_path / "results", argv=argv, measure=measure) as run:
        ended = run.finish()
        assert run.stderr() == ""
    assert (ended["status"], ended["reason"]) == ("passed", "")
    found = record.load(Path(ended["folder"]))
    astray = datetime.fromisoformat(found.started_at) - datetime.now(UTC)
    assert abs(astray) > timedelta(minutes=5), "the time of day did jump"
    moments = [datetime.fromisoformat(m.started_at) for m in found.measurements]
    assert bool(moments) == measure
    assert not measure or moments != sorted(moments)
    assert all(0 <= seconds < 600 for seconds in dataclasses.asdict(found.timings_s).values())
