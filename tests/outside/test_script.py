"""`xlab script`: how a log of commands becomes shell text, and what is quoted on the way."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
import subprocess
from ipaddress import IPv4Address, IPv4Interface
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.labs import machine
from xlab.errors import CapabilityError, UsageError
from xlab.kernel import capabilities
from xlab.kernel.drivers import State
from xlab.lab import commands
from xlab.lab.commands import (
    Born,
    Call,
    Command,
    CommandLog,
    Entry,
    Remark,
    Stage,
    Step,
)
from xlab.lab.docker import DaemonOptions
from xlab.outside import script
from xlab.outside.script import one_host, whole, words
from xlab.scenario import blueprint
from xlab.scenario.blueprint import Blueprint
from xlab.scenario.request import Request
from xlab.scenario.statements import (
    AddressesAre,
    AddressesAreDistinct,
    AllReachEachOther,
    BroadcastsReach,
    DoesNotReach,
    Reaches,
    Shows,
    Statement,
    SwitchLearns,
    Takes,
    Terms,
    Transfers,
)


class Stands:
    """In the place of a node or a host: it has a name and an address."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, IPv4Address(address)

    def __str__(self) -> str:
        return self.name

    def device_address(self, _: str) -> IPv4Interface:
        return IPv4Interface((self.address, 24))


def a_blueprint(scenario: str = "bridge") -> Blueprint:
    return Blueprint(blueprint.design(Request(scenario)), None, {})


def done(node: str, *argv: str, typed: str = "", stdin: str = "") -> Step:
    command = Command(node, argv, stdin)
    return Step(node, (typed or command.line(),), [command])


def lines_of(*entries: Entry) -> list[str]:
    """What a script consists of beyond its functions and its end."""
    text = whole.script(entries, a_blueprint())
    assert syntax_errors(text) == ""
    behind_functions = text.partition("# finish COMMAND…\n")[2].partition("\n}\n")[2]
    return behind_functions.strip().splitlines()[:-2]


def syntax_errors(text: str) -> str:
    checked = subprocess.run(
        ["bash", "-n"], input=text, capture_output=True, text=True, check=False
    )
    return checked.stderr


def for_host(host: str, *entries: Entry) -> list[str]:
    text = one_host.script(entries, a_blueprint(), host)
    assert syntax_errors(text) == ""
    return text.partition("set -eux\n")[2].splitlines()


# -- the whole network -----------------------------------------------------------------------------


def test_tools_that_know_namespaces_get_the_name_and_others_run_in_it() -> None:
    assert lines_of(
        done("h1", "ip", "link", "set", "br0", "up"),
        done("wire", "bridge", "fdb", "del", "02:00:00:00:00:01", "dev", "s1-eth1"),
        done("h2/c1", "sysctl", "-qw", "net.ipv4.ip_forward=1"),
    ) == [
        "ip -n h1 link set br0 up",
        "bridge -n wire fdb del 02:00:00:00:00:01 dev s1-eth1",
        "on h2:c1 sysctl -qw net.ipv4.ip_forward=1",
    ]


def test_what_a_person_types_stands_above_what_differs_from_it() -> None:
    step = Step("h1", ("brctl addbr br0", "ip link set br0 up"), note="a bridge")
    step.did.append(Command("h1", ("ip", "link", "add", "br0", "up", "type", "bridge")))
    given = Step("h1", ("# eth0 is there",), [Command("h1", ("ip", "link", "set", "eth0", "up"))])
    assert lines_of(step, given, done("h1", "ip", "link", "set", "br0", "down")) == [
        "# a bridge",
        "# h1$ brctl addbr br0",
        "# h1$ ip link set br0 up",
        "ip -n h1 link add br0 up type bridge",
        "# eth0 is there",
        "ip -n h1 link set eth0 up",
        "ip -n h1 link set br0 down",
    ]


def test_a_namespace_is_named_like_its_node() -> None:
    link = "ip link add veth1 type veth peer name eth0 netns h1/c1"
    assert lines_of(
        Step("h1/c1", (), [Born("h1/c1")]),
        done("h1", *link.split()),
    ) == ["node h1:c1", "ip -n h1 link add veth1 type veth peer name eth0 netns h1:c1"]


def test_a_daemon_goes_on_and_is_waited_for() -> None:
    server = Command(
        "h1",
        ("ovsdb-server", "/run/openvswitch/conf.db", "--remote=punix:/run/openvswitch/db.sock"),
        daemon=True,
        awaits="/run/openvswitch/db.sock",
    )
    assert lines_of(Step("h1", (), [server])) == [
        (
            "on h1 ovsdb-server /run/openvswitch/conf.db --remote=punix:/run/openvswitch/db.sock "
            ">/run/node/h1/ovsdb-server.log 2>&1 &"
        ),
        "until_there h1 /run/openvswitch/db.sock",
    ]


def test_input_is_kept_as_it_is_whatever_is_in_it() -> None:
    rules = "*filter\nEND\n-A INPUT -m comment --comment '$(reboot)' -j DROP\nCOMMIT\n"
    found = lines_of(done("h1", "iptables-restore", stdin=rules))
    assert found == ["on h1 iptables-restore <<'END_'", *rules.splitlines(), "END_"]


@pytest.mark.parametrize(
    "text", ['it\'s `reboot` $(reboot) "$HOME" \\', "a\nreboot", "c1 无法ping通"]
)
def test_texts_reach_the_shell_as_one_word(text: str) -> None:
    c1: Any = Stands("h1/c1", "10.0.0.1")
    far: Any = Stands("h2/c1", "10.0.0.2")
    h1: Any = Stands("h1", "10.0.0.3")
    stated: list[Statement] = [
        Reaches(c1, far, text),
        DoesNotReach(h1, IPv4Address("10.0.0.9"), text),
        AllReachEachOther([h1, c1], text),
        AddressesAreDistinct([h1, c1], text),
        AddressesAre("id", text, {h1: h1.address, c1: far.address}),
        Shows("id", text, node=c1, argv=["sh", "-c", "ls; ls"], expected="", holds=text),
        Takes(c1, far, "gre", text),
        Transfers(c1, far),
        BroadcastsReach(c1, far, text),
        SwitchLearns(h1, [c1, far], text, id="id"),
    ]
    lab = SimpleNamespace(
        slowest_bits_per_second=None,
        gateway=Stands("gw", "10.0.0.254"),
        host_of=lambda node: h1 if node is c1 else None,
        physical_link=lambda host: f"{host}-link",
        switch_of=lambda _: "s1",
    )
    terms = Terms(cast("Any", lab), "stage", patience_s=5, silence_s=1)
    entries = [*(statement.written(terms) for statement in stated), Stage(text)]
    pairs = ["h1=10.0.0.3", "h1:c1=10.0.0.1"]
    assert shlex.split("\n".join(lines_of(*entries))) == [
        *["reaches", "h1:c1", "10.0.0.2", text],
        *["does_not_reach", "h1", "10.0.0.9", text],
        *["all_reach_each_other", f"all {text} reach each other (2 pairs)", *pairs],
        *["distinct", f"no two of the 2 {text} have the same address", *pairs],
        *["have", text, "h1=10.0.0.3", "h1:c1=10.0.0.2"],
        *["shows", text, text, "h1:c1", "sh", "-c", "ls; ls"],
        *["takes", "ip proto 47", "h1-link", "h1:c1", "10.0.0.2", text],
        *["transfers", "h1:c1", "h2:c1", "10.0.0.2", "1048576", "10"],
        "a full-size TCP transfer from h1/c1 to h2/c1 arrives whole",
        *["broadcasts_reach", "h1:c1", "10.0.0.1", "10.0.0.254", "h2:c1", text],
        *["switch_learns", text, "s1", "h1:c1=10.0.0.254", "h2:c1=10.0.0.3"],
        *["stage", text],
    ]


def test_a_comment_cannot_end_early() -> None:
    found = lines_of(Remark("one\nreboot\r\x1b[2Jtwo " + 30 * "words "))
    assert all(line.startswith("# ") and line.isprintable() for line in found)


def test_names_that_chance_gave_are_numbered() -> None:
    found = lines_of(
        done("h1", "ip", "link", "add", "veth0a1b2c3"),
        done("h1", "ip", "link", "add", "vethwe0a1b2c3d"),
        done("h1", "ip", "link", "del", "veth0a1b2c3"),
    )
    assert [line.split()[-1] for line in found] == ["veth1", "vethwe2", "veth1"]


def test_steps_stand_below_the_stage_that_they_lead_to() -> None:
    up = done("h1", "ip", "link", "set", "br0", "up")
    proof = Stage("proof", built=False)
    found = lines_of(up, Stage("hosts"), up, up, Stage("br0"), up, proof, up)
    kept = [line for line in found if line and "-----" not in line]
    command = "ip -n h1 link set br0 up"
    assert kept == [
        *["# hosts", command, "stage hosts"],
        *["# br0", command, command, "stage br0", command, "stage proof", command],
    ]


# -- one real machine ------------------------------------------------------------------------------


def test_a_host_gets_what_is_typed_there_and_nothing_else() -> None:
    started = Step("h1", ("dockerd -b br0",), [Command("h1", ("iptables-restore",), "*nat\n")])
    wiring = Step("h1", (), [Command("h1", ("ip", "link", "set", "p1", "netns", "wire"))])
    found = for_host(
        "h1",
        done("h1", "ip", "link", "set", "br0", "up"),
        done("h2", "ip", "link", "set", "br0", "up"),
        wiring,
        started,
        done("h1", "x", typed="dockerd"),
        Stage("Docker on br0"),
    )
    text = "\n".join(found)
    assert found[:3] == ["", "# Docker on br0", "ip link set br0 up"]
    assert text.count("br0 up") == 1
    assert "iptables" not in text
    assert "p1" not in text
    assert "ExecStart=/usr/bin/dockerd -H fd:// " in text
    assert "containerd.sock -b br0\nEND\n" in text
    assert found[-1] == "systemctl start docker"


def test_input_is_typed_too() -> None:
    found = for_host("h1", done("h1", "tee", "/tmp/it's", stdin="a\nEND\n"))
    assert found == ["tee '/tmp/it'\"'\"'s' <<'END_'", "a", "END", "END_"]


def test_dockerds_options_are_its_own() -> None:
    options = DaemonOptions(
        bridge="br0", fixed_cidr="10.0.0.64/26", default_gateway="10.0.0.1", mtu=1400,
        iptables=False, ip_forward=False,
    )  # fmt: skip
    assert options.command_line() == (
        "dockerd -b br0 --fixed-cidr 10.0.0.64/26 --default-gateway 10.0.0.1 --mtu 1400 "
        "--iptables=false --ip-forward=false"
    )
    assert DaemonOptions().command_line() == "dockerd"


def test_a_host_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--host h3: there is no such host; there are h1, h2"):
        script.write(Request("bridge"), host="h3")


# -- the log of commands ---------------------------------------------------------------------------


def test_steps_within_a_step_belong_to_the_outer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = CommandLog()
    monkeypatch.setattr(commands, "_kept", kept)
    with commands.step("h1", "weave run"):
        kept.did(Command("h1", ("one",)))
        with commands.step("h1", "docker run"):
            kept.did(Command("h1/c1", ("two",)))
    kept.did(Command("h1", ("three",)))
    kept.did(Command("h1", ("ip", "link", "show")))
    found = [(step.typed, [c.argv for c in step.did if isinstance(c, Command)])
             for step in kept.entries if isinstance(step, Step)]  # fmt: skip
    assert found == [(("weave run",), [("one",), ("two",)]), (("three",), [("three",)])]


@pytest.mark.parametrize("asked", [{"delay_ms": 5.0}, {"loss_ratio": 0.01}])
def test_links_that_take_a_program_of_ours_are_refused(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = machine()
    without = dataclasses.replace(
        found.netem, state=State.LOADABLE, detail="no netem", remedy="modprobe sch_netem"
    )
    monkeypatch.setattr(capabilities, "probe", lambda: dataclasses.replace(found, netem=without))
    with pytest.raises(CapabilityError, match="puts a delay or loss on links: no netem; modprobe"):
        script.write(Request("bridge", **asked))


def test_links_of_a_real_machine_are_what_they_are() -> None:
    with pytest.raises(UsageError, match="--host: links of real machines"):
        script.write(Request("bridge", rate_bits_per_second=1e8), host="h1")


def test_what_is_waited_for_goes_by_the_links() -> None:
    text = whole.script([], a_blueprint(), round_trip_s=1.2, silence_s=2.2, lossy=True)
    assert "\nround_trip=2 silence=2.2 lossy=1\n" in text
    assert not re.search(r"@[A-Z_]+@", text)


def test_a_script_says_how_it_was_asked_for() -> None:
    asked = Request("bridge", rate_bits_per_second=2e7, delay_ms=2.5, loss_ratio=0.01)
    line = words.command_line(Blueprint(blueprint.design(asked), None, {}))
    assert "--rate 20000000bit --delay 2.5ms --loss 0.01" in line


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_no_warning() -> None:
    step = done("h1", "ip", "link", "set", "br0", "up", stdin="x")
    for text in (
        whole.script([step, Call(("reaches", "h1", "10.0.0.1", "text"))], a_blueprint()),
        one_host.script([step, Stage("hosts")], a_blueprint(), "h1"),
    ):
        argv = ["shellcheck", "--severity=warning", "-"]
        checked = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stdout) == (0, "")
