"""How long labs took to recover from faults, told at the end of whatever pytest has run.

record_property(RECOVERIES, {"reboot": [0.8, 1.2], …})    in a test; seconds by what mended it
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

import pytest

RECOVERIES = "recoveries"


def table(reports: Iterable[pytest.TestReport]) -> list[str]:
    """A line for each test and kind of fault; none if no test recorded any."""
    found = [
        (report.nodeid.rpartition("::")[2], cure, seconds)
        for report in reports
        for name, value in report.user_properties
        if name == RECOVERIES and isinstance(value, dict)
        for cure, seconds in sorted(value.items())
    ]
    if not found:
        return []
    tests, cures = (max(len(row[column]) for row in found) for column in (0, 1))
    return [
        f"{'':{tests}}  {'':{cures}}     n    median      most",
        *(
            f"{test:{tests}}  {cure:{cures}}  {len(seconds):>4}  {median(seconds):>6.2f} s"
            f"  {max(seconds):>6.2f} s"
            for test, cure, seconds in found
        ),
    ]
