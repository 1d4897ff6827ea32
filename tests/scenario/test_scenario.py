"""Scenario files: how they are loaded, what options they take, what they refuse to plan."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from ipaddress import IPv4Network
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.fuzzing import Refusal, attempt
from xlab.errors import UsageError, XlabError
from xlab.lab.lab import Lab
from xlab.scenario import blueprint, catalog
from xlab.scenario.blueprint import Blueprint
from xlab.scenario.claims import Checks
from xlab.scenario.request import Request
from xlab.scenario.scenario import Option, Scenario, Size, load

SCENARIOS = ["baseline", "bridge", "ovs-gre"]

GOOD = """
from xlab.scenario.scenario import Scenario
SCENARIO = Scenario("mine", "a method of my own", (), lambda *_: None, lambda *_: None)
"""


def scenario_file(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as met:
        load(path)
    return str(met.value)


# -- loading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_catalogs_scenarios_load_under_their_names(name: str) -> None:
    scenario = load(catalog.find(name))
    assert scenario.name == name
    assert scenario.summary
    assert ("Open vSwitch" in scenario.needs) == (name == "ovs-gre")


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    assert load(scenario_file(tmp_path, GOOD)).summary == "a method of my own"


def test_loading_again_reads_the_file_again(tmp_path: Path) -> None:
    load(scenario_file(tmp_path, GOOD))
    changed = scenario_file(tmp_path, GOOD.replace("my own", "mine"))
    assert load(changed).summary == "a method of mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ndef build(:\n", "{path}:2: SyntaxError: "),
        ("\n\nimport no_such_module\n", "{path}:3: ModuleNotFoundError: "),
        ("def f():\n    return 1 // 0\n\nf()\n", "{path}:2: ZeroDivisionError: "),
        ("from xlab.scenario.scenario import Scenario\nScenario()\n", "{path}:2: TypeError: "),
        ("raise SystemExit(9)\n", "{path}:1: SystemExit: 9"),
        ("build = None\n", "{path}: defines no SCENARIO"),
        ("SCENARIO = 'bridge'\n", "{path}: defines no SCENARIO"),
        ("x = '\\0'; y = b'\n", "{path}:1: SyntaxError: "),
    ],
    ids=["syntax", "import", "deep", "wrong fields", "exit", "none", "no scenario", "string"],
)
def test_a_file_that_does_not_load_is_told_with_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    path = scenario_file(tmp_path, text)
    assert refusal(path).startswith(message.format(path=path))


def test_a_file_of_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(b"x = '\xff\xfe'\n")
    assert refusal(path).startswith(f"{path}:1: ")


def test_an_error_in_what_a_file_imports_is_told_at_the_import(tmp_path: Path) -> None:
    helper = scenario_file(tmp_path, "def broken():\n    raise KeyError('far')\n", "helper.py")
    text = f"import runpy\n\nspace = runpy.run_path({str(helper)!r})\nspace['broken']()\n"
    path = scenario_file(tmp_path, text)
    assert refusal(path).startswith(f"{path}:4: KeyError: ")
    helper.write_text("def broken(:\n")
    assert refusal(path).startswith(f"{path}:3: SyntaxError: ")


def test_the_line_is_told_of_a_path_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scenario_file(tmp_path, "\n\nx = 1 // 0\n")
    monkeypatch.chdir(tmp_path)
    assert refusal(Path(path.name)).startswith(f"{path.name}:3: ZeroDivisionError: ")


# -- options ---------------------------------------------------------------------------------------

OPTIONS = Scenario(
    "mine",
    "",
    (Option("routes", "tunnel", "", ("tunnel", "underlay")), Option("note", "", "anything")),
    plan=lambda *_: None,
    build=lambda *_: None,  # type: ignore[arg-type]
)


def test_defaults_are_filled_in() -> None:
    assert OPTIONS.settings({}) == {"routes": "tunnel", "note": ""}
    assert OPTIONS.settings({"routes": "underlay", "note": "x"}) == {
        "routes": "underlay",
        "note": "x",
    }


def test_an_unknown_option_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match="mine has no option 'route'; it has: routes, note"):
        OPTIONS.settings({"route": "tunnel"})
    with pytest.raises(UsageError, match="baseline has no option 'x'; it has: none"):
        load(catalog.find("baseline")).settings({"x": "1"})


def test_a_value_that_is_not_offered_lists_those_that_are() -> None:
    with pytest.raises(UsageError, match="routes=gre: one of tunnel, underlay is wanted"):
        OPTIONS.settings({"routes": "gre"})


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_default_is_one_of_its_choices(name: str) -> None:
    for option in load(catalog.find(name)).options:
        assert option.help
        assert not option.choices or option.default in option.choices


# -- plans of the others (the bridge's has a file of its own) --------------------------------------


@given(st.integers(2, 1000))
def test_baseline_has_room_for_any_number_of_hosts(hosts: int) -> None:
    subnet: Any = load(catalog.find("baseline")).plan(Size(hosts, 1), {})
    assert subnet in (IPv4Network("10.211.55.0/24"), IPv4Network("10.211.0.0/16"))
    assert subnet[3 + hosts - 1] < subnet.broadcast_address


def test_ovs_gre_refuses_more_hosts_than_its_underlay_has_addresses() -> None:
    scenario = load(catalog.find("ovs-gre"))
    settings = scenario.settings({})
    scenario.plan(Size(152, 253), settings)
    with pytest.raises(UsageError, match="room for 152 hosts"):
        scenario.plan(Size(153, 1), settings)
    with pytest.raises(UsageError, match="room for 253 containers"):
        scenario.plan(Size(2, 254), settings)


def module_of(name: str) -> ModuleType:
    """The loaded file itself, for what it defines beside its SCENARIO."""
    scenario = load(catalog.find(name))
    return sys.modules[scenario.plan.__module__]


def test_container_subnets_of_ovs_gre_never_meet_the_underlay() -> None:
    ovs_gre = module_of("ovs-gre")
    subnets = [
        ovs_gre.container_subnet(SimpleNamespace(number=number))
        for number in range(1, ovs_gre.MOST_HOSTS + 1)
    ]
    assert [str(subnet) for subnet in subnets[:2]] == ["192.168.1.0/24", "192.168.2.0/24"]
    assert len(set(subnets)) == ovs_gre.MOST_HOSTS
    assert ovs_gre.UNDERLAY not in subnets


# -- whatever is in a file, and whatever is asked for ----------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=20) | st.text("()[]{}:=\n\t \\'\"#@0aé", max_size=20).map(str.encode)
)
@example(content=b"\0")
@example(content=b"\xff\xfe")
@example(content=b"# coding: nonsense")
@example(content=b"(" * 5000)
@example(content=b"-" * 100_000 + b"1")
@example(content=b"raise SystemExit(0)")
@example(content=b"def f(): f()\nf()")
@example(content=b"SCENARIO = 5")
@example(content=b"raise ValueError('x' * 9999)")
def test_any_bytes_are_refused_with_the_name_of_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path}:")


@given(
    st.sampled_from([*SCENARIOS, "weave"]),
    st.dictionaries(
        st.sampled_from(["routes", "datapath", "forward", "docker", "fixed-cidr", "x"])
        | st.text(max_size=4),
        st.sampled_from(["tunnel", "underlay", "sleeve", "fastdp", "28", "26", "none", "drop", ""])
        | st.text(max_size=4),
        max_size=3,
    ),
    st.integers(2, 1000),
    st.integers(1, 1000),
)
@example("weave", {}, 252, 300)
@example("ovs-gre", {}, 152, 253)
@example("baseline", {}, 1000, 1000)
def test_any_settings_and_any_size_are_planned_or_refused(
    name: str, given_settings: dict[str, str], hosts: int, containers: int
) -> None:
    scenario = load(catalog.find(name))
    found = attempt(lambda: scenario.settings(given_settings), UsageError)
    if isinstance(found, Refusal):
        assert name in found or any(key in found for key in given_settings)
        return
    assert found.items() >= given_settings.items()
    for option in scenario.options:
        assert not option.choices or found[option.name] in option.choices
    attempt(lambda: scenario.plan(Size(hosts, containers), found), UsageError)


# -- building --------------------------------------------------------------------------------------

STOPS = """
from xlab.errors import NetlinkError
from xlab.scenario.scenario import Scenario
def build(lab, plan, size, settings, check):
    {}
SCENARIO = Scenario("mine", "a method of my own", (), lambda *_: None, build)
"""


class _NoDaemons:
    """As much of a lab as a build needs that ends at once."""

    blaming_daemons = staticmethod(nullcontext)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("lab.nonsense", "AttributeError: "),
        ("open('/nowhere')", "FileNotFoundError: .*'/nowhere'"),
        ("assert not lab", "AssertionError$"),
        ("raise NetlinkError('look up br9', 19, 'No such device')", "netlink: look up br9: "),
    ],
)
def test_a_build_that_stops_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    scenario_file(tmp_path, STOPS.format(line))
    # A path that is relative is so to where it was typed, and not to where the lab is built.
    monkeypatch.chdir(tmp_path)
    found = Blueprint(blueprint.design(Request("./mine.py")), None, {})
    monkeypatch.chdir("/")
    with pytest.raises(XlabError, match=f"^the build stopped at mine.py:5, after “hosts”: {said}"):
        found.build(cast(Lab, _NoDaemons()), cast(Checks, SimpleNamespace(stages=["hosts"])))


def test_a_build_that_lacks_open_files_is_not_to_blame(tmp_path: Path) -> None:
    """The controller says of such an error what limit was met: this machine can't."""
    file = scenario_file(tmp_path, STOPS.format("raise OSError(24, 'Too many open files')"))
    found = Blueprint(blueprint.design(Request(str(file))), None, {})
    with pytest.raises(OSError, match="Too many"):
        found.build(cast(Lab, _NoDaemons()), cast(Checks, SimpleNamespace(stages=[])))
