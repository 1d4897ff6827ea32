"""What is compared, by name: variants, what they have in common, and every way to get it wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fake_machine import machine_with
from tests.support.fuzzing import attempt
from xlab.errors import CapabilityError, UsageError
from xlab.experiments.compare import plan
from xlab.experiments.compare.methods import Method, choose
from xlab.kernel import programs
from xlab.kernel.drivers import State
from xlab.probes.catalog import ALL
from xlab.scenario import blueprint
from xlab.scenario.request import Request

COMMON = Request("baseline")


def chosen(*names: str, common: Request = COMMON, **settings: str) -> list[Method]:
    return choose(names, common, settings)


def test_all_methods_if_none_is_named() -> None:
    names = [method.name for method in chosen()]
    assert names[0] == "baseline"
    assert {"bridge", "ovs-gre", "weave"} <= set(names)
    assert {"ovs-gre:routes=underlay", "weave:datapath=fastdp"} <= set(names)
    assert [method.name for method in chosen("all")] == names


def test_the_baseline_is_there_unasked_and_always_first() -> None:
    assert [method.name for method in chosen("weave")] == ["baseline", "weave"]
    assert [method.name for method in chosen("weave", "baseline")] == ["baseline", "weave"]
    # A variant of it is a method like any other.
    assert [m.name for m in chosen("baseline:mtu=9000")] == ["baseline", "baseline:mtu=9000"]


def test_a_variant_differs_in_what_it_says() -> None:
    common = Request("baseline", mtu=1400, containers=3, delay_ms=5.0)
    _, plain, varied = chosen(
        "weave", "weave:datapath=fastdp,mtu=9000,hosts=3,rate=100mbit,delay=1ms,loss=1%",
        common=common,
    )  # fmt: skip
    assert plain.request == Request("weave", mtu=1400, containers=3, delay_ms=5.0)
    assert varied.request == Request(
        "weave",
        settings={"datapath": "fastdp"},
        mtu=9000,
        hosts=3,
        containers=3,
        rate_bits_per_second=1e8,
        delay_ms=1.0,
        loss_ratio=0.01,
    )


def test_common_settings_go_to_whom_they_mean_something() -> None:
    methods = chosen("bridge", "weave", "weave:datapath=sleeve", datapath="fastdp")
    assert [method.request.settings for method in methods] == [
        {},
        {},
        {"datapath": "fastdp"},
        {"datapath": "sleeve"},
    ]


def test_a_scenario_file_is_a_method_too(tmp_path: Path) -> None:
    (source,) = (Path(__file__).parents[2] / "scenarios").glob("bridge.py")
    file = tmp_path / "mine.py"
    file.write_text(source.read_text())
    method = chosen(f"{file}:docker=28")[1]
    assert method.request.scenario == str(file)
    assert method.request.settings == {"docker": "28"}


def test_folders_are_fit_for_links_and_of_one_method_each() -> None:
    names = ["weave:datapath=fastdp", "weave:datapath=fastdp,mtu=1400", "bridge", "bridge:mtu=1400"]
    folders = [method.folder for method in chosen(*names)]
    assert folders[1] == "weave+datapath=fastdp"
    assert len(set(folders)) == len(folders)
    assert not any(set(folder) & set(":/ %?#") or folder.startswith(".") for folder in folders)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["weaver"], "did you mean weave?"),
        (["weave:"], "weave:: '' is no NAME=VALUE"),
        (["weave:fastdp"], "'fastdp' is no NAME=VALUE"),
        (["weave:datapath=fastdp,"], "'' is no NAME=VALUE"),
        (["weave:path=fastdp"], "weave:path=fastdp: there is no 'path'; there are datapath, hosts"),
        (["weave:mtu=9000,mtu=1500"], "mtu is given twice"),
        (["weave:mtu=big"], "weave:mtu=big: mtu: 'big' is no whole number"),
        (["weave:mtu=12"], "weave:mtu=12: --mtu is 12; the range is 576 to 65,535 bytes"),
        (["weave:delay=soon"], "weave:delay=soon: delay: "),
        (["weave:jitter=1ms"], "weave:jitter=1ms: --jitter varies a delay"),
        (["weave", "weave"], "weave is named twice"),
        (["baseline"], "baseline alone is no comparison"),
        (["nowhere.py:x=1"], "no such scenario file: nowhere.py"),
    ],
)
def test_wrong_names_say_what_is_wrong(names: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        chosen(*names)
    assert said in str(caught.value)


def test_a_value_that_the_scenario_refuses_is_refused_before_anything_is_built() -> None:
    method = chosen("weave:datapath=pigeon")[1]
    with pytest.raises(UsageError, match="datapath=pigeon: one of sleeve, fastdp"):
        blueprint.design(method.request)


def test_a_setting_that_nobody_knows() -> None:
    with pytest.raises(UsageError, match="--set colour: no scenario has an option of that name"):
        chosen("weave", colour="red")


def test_hosts_and_a_topology_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="--topo says how many hosts there are"):
        chosen("weave:hosts=3", common=Request("baseline", topo="single,4"))


@given(st.text(max_size=60).map(lambda text: f"bridge:{text}"))
def test_any_variant_is_a_method_or_wrong_usage(name: str) -> None:
    attempt(lambda: chosen(name), UsageError)


# -- how much --------------------------------------------------------------------------------------


def test_what_is_usual() -> None:
    usual = plan.make(chosen("weave"))
    assert (usual.rounds, usual.most_rounds, usual.rounds_per_build) == (10, 20, 2)
    quick = plan.make(chosen("weave", common=Request("baseline", quick=True)))
    # A build for each round: at least three, and as many as there can be.
    assert (quick.rounds, quick.most_rounds, quick.rounds_per_build) == (5, 5, 1)
    assert quick.probes == ("rtt", "tcp", "loaded-rtt")
    assert plan.make(chosen("weave"), rounds=4).rounds_per_build == 1
    assert plan.make(chosen("weave"), probes=["udp", "rtt"]).probes[-1] == "udp"
    after = plan.make(chosen("weave"), probes=["recovery", "udp"])
    assert (after.probes[-1], after.disturbing) == ("udp", ("recovery",))


def test_all_probes_are_measured_each_round_or_once_a_build() -> None:
    everything = plan.make(chosen("weave"), probes=["all"])
    assert everything.disturbing == ("first-packet", "recovery")
    assert {*everything.probes, *everything.disturbing} == set(ALL)
    assert plan.make(chosen("weave"), probes=["first-packet"]).disturbing == ("first-packet",)


def test_the_order_of_rounds_differs_from_comparison_to_comparison() -> None:
    assert len({plan.make(chosen("weave")).seed for _ in range(20)}) == 20


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        ({"rounds": 2}, "--repeat is 2; the range is 3 to 1,000 rounds, each lab built three"),
        ({"rounds": 10, "most_rounds": 9}, "--most is 9; the range is 10 to"),
        ({"precision": 0.0}, "--precision is 0; the range is"),
        ({"probes": ["smell"]}, "--probe smell: no such probe; there are rtt, rr, tcp"),
    ],
)
def test_amounts_that_make_no_sense(amount: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan.make(chosen("weave"), **amount)  # type: ignore[arg-type]
    assert said in str(caught.value)


# -- Open vSwitch's datapath as an option ----------------------------------------------------------


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "locate", lambda tool: f"/usr/sbin/{tool}")


def datapath(name: str, **states: State) -> str:
    return blueprint.equip(
        blueprint.design(chosen(name)[1].request), machine_with(**states)
    ).datapath


@pytest.mark.usefixtures("installed")
def test_the_datapath_asked_for_is_the_one_there_is() -> None:
    assert datapath("ovs-gre") == "ovs kernel"
    assert datapath("ovs-gre:datapath=kernel") == "ovs kernel"
    assert datapath("ovs-gre:datapath=userspace") == "ovs userspace"
    assert datapath("ovs-gre", ovs_datapath=State.NO) == "ovs userspace"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("lacking", ["ovs_datapath", "ovs_gre"])
def test_a_kernel_datapath_that_is_not_there_is_not_replaced(lacking: str) -> None:
    with pytest.raises(CapabilityError, match=f"no kernel datapath for Open vSwitch: {lacking}"):
        datapath("ovs-gre:datapath=kernel", **{lacking: State.NO})
    with pytest.raises(CapabilityError, match="no datapath for Open vSwitch"):
        datapath("ovs-gre:datapath=userspace", tun=State.NO)
