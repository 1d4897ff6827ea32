"""What documents show as the output of a command is what the command prints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import shown
from tests.support.documents import ROOT
from tests.support.labs import machine, why_no_open_vswitch, why_no_sandbox
from tests.support.shown import Shown

DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("labs/**/README.md")])
BLOCKS = [block for document in DOCUMENTS for block in shown.blocks(document)]
#: Whether a CPU time comes out, or a round has an interval, may differ from run to run.
_TRIES = 3

every_block = pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, marks=[pytest.mark.slow] if "slow" in block.needs else [])
        for block in BLOCKS
    ],
    ids=lambda block: block.place,
)


def why_not(block: Shown) -> str:
    """What the block needs and this machine lacks; empty if it has all."""
    if missing := why_no_sandbox():
        return missing
    if "root" in block.needs and os.geteuid() != 0:
        return "not root"
    if "userspace-ovs" in block.needs:
        if machine().ovs_datapath.live:
            return "shown is Open vSwitch in user space, and this kernel has its own"
        return why_no_open_vswitch()
    return ""


@pytest.mark.sandbox
@every_block
def test_what_is_shown_is_seen(block: Shown, tmp_path: Path) -> None:
    if missing := why_not(block):
        pytest.skip(missing)
    reason = ""
    for number in range(_TRIES):
        seen = shown.outputs(block, tmp_path / str(number), timeout_s=1200)
        reason = shown.what_is_otherwise(block, seen)
        if not reason:
            return
    pytest.fail(reason, pytrace=False)


def test_outputs_are_marked() -> None:
    places = [place for document in DOCUMENTS for place in shown.unmarked(document)]
    assert not places, f"neither `<!-- shown: … -->` nor `<!-- not run: … -->`: {places}"


TABLE = """
measured         median  95 % interval  × control  × baseline
RTT              156 µs        144–180       0.90        10.4
TCP 1 stream  1.29 Gbit/s            –      0.095           –
  - UDP has no ratios: offered 90 %
    of its own TCP
"""


@pytest.mark.parametrize(
    "seen",
    [
        TABLE,
        TABLE.replace("1.29 Gbit/s", "625 Mbit/s").replace("144–180", "1.1–1.2"),
        TABLE.replace("156 µs", "2.5 ms").replace("144–180", "–"),
        TABLE + "  - the machine was busy\n  machine  noisy   2.0 of 2 processors were busy\n",
        TABLE.replace("       0.90", "     ≈ 0.90"),
    ],
)
def test_figures_and_the_scale_of_units_may_differ(seen: str) -> None:
    assert shown.difference(TABLE, seen) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  × baseline\n", "\n"),
        ("median", "mean"),
        ("156 µs", "156 Gbit/s"),
        ("        10.4", ""),
        ("RTT ", "RTT    ms "),
        ("UDP has no ratios", "UDP has ratios"),
    ],
)
def test_words_columns_and_units_may_not(old: str, new: str) -> None:
    assert old in TABLE
    assert shown.difference(TABLE, TABLE.replace(old, new))


def test_a_cpu_time_need_not_come_out() -> None:
    line = "round 1  UDP loss 11.1 %  CPU per GB 12.4 s\nCPU per GB  12.4 s  –  15.8"
    for other in ("no figure", "–"):
        assert shown.difference(line, line.replace("12.4 s", other)) == ""
    assert shown.difference(line, line.replace("11.1 %", "no figure"))


def test_others_may_have_been_on_the_link() -> None:
    line = "overhead 38 bytes, effective MTU 1462"
    assert shown.difference(line, f"{line}, 1 other packet on the link") == ""
    assert shown.difference(line, f"{line}, 12 other packets on\n   the link") == ""
    assert shown.difference(line, f"{line}, unproved")


def test_facts_are_no_figures() -> None:
    line = "ovs-gre  2 hosts, 2 containers each   gre 20/20   overhead 38 bytes   took 3.2 s"
    assert shown.difference(line, line.replace("3.2", "41")) == ""
    for old, new in (("2 hosts", "3 hosts"), ("20/20", "19/20"), ("38 bytes", "50 bytes")):
        assert shown.difference(line, line.replace(old, new))


def test_an_ellipsis_stands_for_what_is_left_out() -> None:
    seen = "first\nsecond\nthird\nfourth"
    assert shown.difference("first\n…\nfourth", seen) == ""
    assert shown.difference("first\n…", seen) == ""
    assert shown.difference("first\n…\nthird", seen)
    assert shown.difference("second\n…", seen)
    assert shown.difference("first\n…\nfifth\n…", seen)
