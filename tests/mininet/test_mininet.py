"""What of Mininet's API needs no sandbox: figures, names, modules as a script sees them."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlab.errors import CapabilityError, UsageError
from xlab.lab import delay_line
from xlab.lab.conditions import LinkConditions
from xlab.lab.imposers.delay_line import argv_of
from xlab.mininet import __main__ as program
from xlab.mininet import echo, openvswitch
from xlab.mininet.link import _either
from xlab.mininet.net import rate_text
from xlab.mininet.replaced import _copy


@pytest.mark.parametrize(
    ("rate", "unit", "text"),
    [
        (0, None, "0.00 bits/sec"),
        (999, None, "999 bits/sec"),
        (9_560_000_000, None, "9.56 Gbits/sec"),
        (95_640_000, None, "95.6 Mbits/sec"),
        (943_200, None, "943 Kbits/sec"),
        (999_960_000, None, "1000 Mbits/sec"),
        (12_500_000_000_000, None, "12.5 Tbits/sec"),
        (9_560_000_000, "m", "9560 Mbits/sec"),
        (8 * 1024**2, "M", "1.00 MBytes/sec"),
        (8 * 1024, "K", "1.00 KBytes/sec"),
        (4_000, "k", "4.00 Kbits/sec"),
    ],
)
def test_rates_are_written_as_iperf_writes_them(rate: float, unit: str | None, text: str) -> None:
    assert rate_text(rate, unit) == text


@given(st.floats(min_value=0, max_value=1e15))
def test_a_rate_can_be_read_back(rate: float) -> None:
    value, unit = rate_text(rate).split()
    factor = {"b": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[unit[0]]
    assert float(value) * factor == pytest.approx(rate, rel=0.006, abs=0.006)


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(UsageError, match="'x' is not one of k, m, g, t"):
        rate_text(1e6, "x")


def test_a_backend_must_manage_both_directions() -> None:
    rate, delay = LinkConditions(rate_bits_per_second=1e6), LinkConditions(delay_ms=3, jitter_ms=1)
    both = _either(rate, delay)
    assert (both.rate_bits_per_second, both.delay_ms) == (1e6, 3)
    assert not _either(LinkConditions(), LinkConditions())


# -- the way back of a delay line ------------------------------------------------------------------


def test_a_delay_line_is_told_of_the_way_back_only_where_it_differs() -> None:
    there, back = LinkConditions(delay_ms=5), LinkConditions(loss_ratio=0.25)
    same = argv_of("a", "b", there, mtu=1500)
    assert "--back" not in same
    differing = argv_of("a", "b", there, back=back, mtu=1500)
    assert differing[: len(same)] == same
    assert differing[len(same) :] == ["--back", "--loss-ratio", "0.25"]
    assert argv_of("a", "b", there, back=LinkConditions(), mtu=1500)[-1] == ("--back")


def test_options_before_and_behind_back() -> None:
    parse = delay_line._parser().parse_args
    there = parse(["a", "b", "--delay-ms", "5"])
    assert (there.delay_ms, there.back) == (5, None)
    there = parse(["a", "b", "--back", "--delay-ms", "5"])
    assert (there.delay_ms, there.back) == (0, ["--delay-ms", "5"])
    assert parse(["a", "b", "--back"]).back == []


# -- modules as a script sees them -----------------------------------------------------------------


def test_a_copy_of_a_module_has_our_names_and_the_original_its_own() -> None:
    source = "class Node: pass\ndef make(): return Node()\ndef kept(): return 1\nOTHER = Node\n"
    module = types.ModuleType("stock")
    exec(source, module.__dict__)

    class Ours:
        pass

    copy = _copy(module, {"Added": 1}, {id(module.Node): Ours})
    assert isinstance(copy.make(), Ours)
    assert (copy.Node, copy.OTHER, copy.kept(), copy.Added) == (Ours, Ours, 1, 1)
    assert type(module.make()) is module.Node


INSTALLED = """
from xlab.mininet import original, replaced
theirs = original.net.Mininet
replaced.install()
replaced.install()
import mininet.net, mininet.topolib, mininet.nodelib, mininet.node
from mininet.net import Mininet
from mininet.node import OVSKernelSwitch, Host
import xlab.mininet.net, xlab.mininet.node, xlab.mininet.switch
assert Mininet is mininet.net.Mininet is xlab.mininet.net.Mininet
assert issubclass(Mininet, theirs) and original.net.Mininet is theirs
assert Host is xlab.mininet.node.Host and issubclass(Host, original.node.Host)
assert mininet.net.CLI is xlab.mininet.cli.CLI
assert mininet.topolib.TreeNet.__globals__["Mininet"] is Mininet
assert mininet.nodelib.LinuxBridge is xlab.mininet.switch.LinuxBridge
assert mininet.node.findController() is xlab.mininet.switch.Controller
"""


def test_imports_of_a_script_give_our_classes_and_mininet_keeps_its_own() -> None:
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-W", "ignore", "-c", INSTALLED], cwd=root, check=True)


# -- what only Open vSwitch can --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "asks"),
    [
        ("ovs-vsctl show", True),
        (["ovs-ofctl", "dump-flows", "s1"], True),
        (("ovs-vsctl get interface", 1, "ofport"), True),
        ("ip link; x=$(/usr/bin/ovs-appctl fdb/show s1)", True),
        ("tail ovs-vsctl.log", False),
        ("my-ovs-vsctl show; kill %controller; python controller.py; ./controller &", False),
    ],
)
def test_commands_that_ask_for_open_vswitch(
    command: Any, asks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(openvswitch, "provide", lambda: asked.append(True))
    openvswitch.see_to(command)
    assert bool(asked) is asks


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ("controller -v ptcp:&", "controller"),
        ("ifconfig lo up && exec ofdatapath -i s0-eth0 ptcp: &", "ofdatapath"),
        (["ovs-testcontroller", "ptcp:"], "ovs-testcontroller"),
    ],
)
def test_a_controller_that_is_not_there_is_not_waited_for(
    command: Any, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvswitch, "locate", lambda _: None)
    with pytest.raises(CapabilityError, match=f"`{program}` is not installed"):
        openvswitch.see_to(command)


# -- the program -----------------------------------------------------------------------------------


def test_a_script_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("x = (\n")
    for arguments, said in (
        (["-m"], "which module"),
        (["--topo", "x"], "no option --topo"),
        ([str(tmp_path / "none.py")], "No such file"),
        ([str(broken)], r"broken\.py: .*line 1"),
    ):
        with pytest.raises(UsageError, match=said):
            program._prepared(arguments)


def test_many_pairs_are_forgotten_in_time() -> None:
    forgotten = []

    class Counted:
        @property
        def rtnl(self) -> Counted:
            return self

        def forget_neighbours(self) -> None:
            forgotten.append(self)

    a, b = Counted(), Counted()
    memory = echo.Neighbours([a, b, a])  # type: ignore[list-item]
    for _ in range(12):
        memory.expect(16)
    assert not forgotten
    memory.expect(16)
    assert forgotten == [a, b]
    for _ in range(11):
        memory.expect(16)
    assert len(forgotten) == 2
