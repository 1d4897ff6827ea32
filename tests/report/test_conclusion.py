"""Which is fastest here, why, and does the tunnel carry the traffic: every answer, from records."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.records import sample
from xlab.record import comparisons
from xlab.record.comparisons import Comparison, Figure, MethodResult, Pair, Ratio, Verdict
from xlab.record.figures import figures, find
from xlab.record.record import Clock, RunRecord
from xlab.report import comparison as wording
from xlab.report import conclusion, tables
from xlab.report.conclusion import RTT, TCP, Answer

SAMPLE = comparisons.load(Path(__file__).parents[2] / "results" / "sample")
BRIDGE, FASTDP, GRE, ROUTE, SLEEVE = (
    "bridge",
    "weave:datapath=fastdp",
    "ovs-gre",
    "ovs-gre:routes=underlay",
    "weave",
)
CLASSES = {BRIDGE: "kernel", FASTDP: "kernel", GRE: "userspace", ROUTE: "userspace",
           SLEEVE: "userspace"}  # fmt: skip
#: TCP against plain hosts: 3 % about it is the interval.
USUAL = {BRIDGE: 0.95, FASTDP: 0.8, GRE: 0.05, ROUTE: 0.4, SLEEVE: 0.1}


def made(
    ratios: dict[str, float], *, wide: Sequence[str] = (), clock: Clock = "real", builds: int = 6
) -> Comparison:
    """The sample with other figures: TCP as given, the round trip its inverse.

    The intervals of those that are `wide` hold whatever there is; pairs say what intervals say.
    """
    methods = tuple(m for m in SAMPLE.methods if m.name in (SAMPLE.baseline.name, *ratios))
    figures, pairs = [], []
    for metric, better in ((TCP, True), (RTT, False)):
        bounds = {}
        for name, ratio in ratios.items():
            middle = ratio if better else 1 / ratio
            low, high = (0.01, 100.0) if name in wide else (middle * 0.97, middle * 1.03)
            bounds[name] = (low, high)
            figures.append(_figure(name, metric, middle, (low, high) if builds > 2 else None))
        for one in ratios:
            for other in list(ratios)[list(ratios).index(one) + 1 :]:
                if CLASSES[one] == CLASSES[other]:
                    said = _said(bounds[one], bounds[other], better=better)
                    pairs.append(_pair(one, other, metric, said if builds > 2 else "unknown"))
    return dataclasses.replace(
        SAMPLE,
        methods=methods,
        figures=tuple(figures),
        pairs=tuple(pairs),
        plan=dataclasses.replace(SAMPLE.plan, clock=clock),
    )


def _figure(name: str, metric: str, middle: float, ci95: tuple[float, float] | None) -> Figure:
    ratio = Ratio(middle, ci95, 6, 6, "unknown")
    return Figure(name, metric, 1, "", metric == TCP, ratio, None, ratio, None, {})


def _said(one: tuple[float, float], other: tuple[float, float], *, better: bool) -> Verdict:
    if one[0] <= other[1] and other[0] <= one[1]:
        return "indistinguishable"
    return "faster" if (one[0] > other[1]) == better else "slower"


def _pair(one: str, other: str, metric: str, said: Verdict) -> Pair:
    kind = "kernel" if CLASSES[one] == "kernel" else "userspace"
    return Pair(kind, metric, 1, one, other, Ratio(1.0, None, 6, 6, said))  # type: ignore[arg-type]


def answers(found: Sequence[Answer]) -> dict[str, str]:
    return {answer.label: " ".join(answer.said) for answer in found}


def of(comparison: Comparison) -> dict[str, str]:
    return answers(conclusion.of_comparison(comparison))


def headline(comparison: Comparison) -> str:
    return conclusion.headline(conclusion.field_of(comparison))


# -- which is fastest ------------------------------------------------------------------------------


def test_the_first_of_all_then_the_first_of_the_other_datapath() -> None:
    found = made(USUAL)
    assert headline(found) == "Fastest here: bridge, in the kernel"
    assert of(found)["fastest"] == (
        "bridge carries most TCP: 0.95 × the TCP throughput of plain hosts. "
        "Of those in user space: ovs-gre:routes=underlay carries most TCP. "
        "bridge answers soonest: 1.05 × the round-trip time of plain hosts. "
        "Of those in user space: ovs-gre:routes=underlay answers soonest."
    )


def test_those_that_cannot_be_told_apart_share_the_place_and_nobody_ranks_them() -> None:
    found = made({**USUAL, FASTDP: 0.94})
    assert headline(found) == (
        "Fastest here: bridge and weave:datapath=fastdp, in the kernel; no difference could be "
        "measured between them"
    )
    assert of(found)["fastest"].startswith(
        "bridge and weave:datapath=fastdp carry most TCP; no difference could be measured between "
        "the two. "
    )
    as_plain = made({**USUAL, BRIDGE: 1.0, FASTDP: 1.01})
    assert "between the two, nor to plain hosts." in of(as_plain)["fastest"]


def test_where_all_intervals_span_each_other_no_difference_could_be_measured() -> None:
    found = made({BRIDGE: 1.0, FASTDP: 0.99, SLEEVE: 0.98})
    assert headline(found) == (
        "No difference in TCP throughput could be measured between bridge, weave:datapath=fastdp "
        "and weave"
    )
    assert of(found)["fastest"].startswith(
        "No difference in TCP throughput could be measured between bridge, "
    )
    assert "most" not in of(found)["fastest"]
    # And then the datapath explains no difference.
    assert "before anything else" not in of(found)["why"]
    assert "weave does not show it here, its intervals overlap" in of(found)["why"]


def test_the_best_of_both_datapaths_may_be_alike() -> None:
    found = made({BRIDGE: 0.5, FASTDP: 0.3, ROUTE: 0.5, GRE: 0.05})
    assert of(found)["fastest"].startswith(
        "By TCP throughput no difference could be measured between the best of both datapaths: "
        "bridge (in the kernel) and ovs-gre:routes=underlay (in user space)."
    )
    assert headline(found).startswith("Fastest here: bridge and ovs-gre:routes=underlay; no diff")


def test_user_space_may_be_first() -> None:
    found = made({BRIDGE: 0.3, SLEEVE: 0.9})
    assert headline(found) == "Fastest here: weave, in user space"
    # Alone in its class it carries most of nothing.
    assert (
        "bridge, in the kernel: 0.30 × the TCP throughput of plain hosts." in (of(found)["fastest"])
    )
    assert "before anything else" not in of(found)["why"]


def test_too_few_builds_rank_nobody() -> None:
    found = made(USUAL, builds=1)
    assert headline(found) == "Too little was measured to say which method is fastest here"
    assert of(found)["fastest"].startswith("By TCP throughput too few rounds were measured to say")
    assert "Too few rounds were measured to set it beside ovs-gre." in of(found)["why"]


def test_one_method_is_set_beside_plain_hosts_alone() -> None:
    found = made({BRIDGE: 0.95})
    assert headline(found) == "bridge carries 0.95 × the TCP of plain hosts"
    assert of(found)["speed"] == (
        "bridge: 0.95 × the TCP throughput (0.92–0.98) and 1.05 × the round-trip time (1.02–1.08) "
        "of plain hosts."
    )
    assert "fastest" not in of(found)
    alike = made({BRIDGE: 1.01})
    assert headline(alike) == "bridge carries ≈ 1.01 × the TCP of plain hosts"
    assert of(alike)["speed"].endswith("≈: no difference to plain hosts could be measured.")


def test_a_method_that_failed_is_not_ranked() -> None:
    found = made(USUAL)
    lost = tuple(
        dataclasses.replace(m, status="failed", reason="it broke") if m.name == BRIDGE else m
        for m in found.methods
    )
    found = dataclasses.replace(found, methods=lost)
    assert headline(found) == "Fastest here: weave:datapath=fastdp, in the kernel"
    assert "bridge" not in of(found)["fastest"]


# -- why -------------------------------------------------------------------------------------------


def test_the_datapath_is_told_first_with_a_scenario_that_shows_it() -> None:
    why = of(made(USUAL))["why"]
    assert why.startswith(
        "The datapath, before anything else. The kernel itself moves the packets of bridge and "
        "weave:datapath=fastdp. Every packet of ovs-gre, ovs-gre:routes=underlay and weave is "
        "handed to a program in user space and back (ovs 3.5.0 userspace (netdev): ovs-gre and "
        "ovs-gre:routes=underlay; weave sleeve userspace: weave)."
    )
    assert "say little of the same method in the kernel" in why
    assert "would run in the kernel where that has Open vSwitch; this one offered none" in why
    assert (
        "weave shows it: weave:datapath=fastdp in the kernel 0.80 × the TCP of plain hosts, weave "
        "in user space 0.100 ×."
    ) in why


def test_in_the_kernel_alone_it_is_what_a_method_does_to_a_packet() -> None:
    why = of(made({BRIDGE: 0.95, FASTDP: 0.8}))["why"]
    assert why.startswith("The kernel moves the packets of all of them, so what differs is what")
    assert "user space" not in why


@pytest.mark.parametrize(
    ("ratios", "wide", "said"),
    [
        (USUAL, (), "That is why it carries more TCP than ovs-gre, whose packets take the tunnel."),
        (USUAL, (GRE,), "Yet no difference in TCP could be measured between it and ovs-gre."),
        ({**USUAL, GRE: 0.6}, (), "All the same it carries less TCP than ovs-gre."),
        ({BRIDGE: 0.95, ROUTE: 0.4}, (), "bypasses it, and packets go plain."),
    ],
)
def test_the_notes_route_wins_because_it_bypasses_the_tunnel_and_only_where_it_does(
    ratios: dict[str, float], wide: Sequence[str], said: str
) -> None:
    why = of(made(ratios, wide=wide))["why"]
    assert "ovs-gre:routes=underlay has no tunnel to pay for: the tutorial's own route" in why
    assert why.endswith(said)


# -- the tunnel ------------------------------------------------------------------------------------


def test_the_tunnel_carries_what_was_proved_and_nothing_else() -> None:
    tunnel = of(made(USUAL))["tunnel"]
    assert tunnel.startswith(
        "Yes: ovs-gre (GRE), weave (sleeve) and weave:datapath=fastdp (VXLAN). Proved by packets "
        "on the wire; and with the tunnel cut the traffic stops."
    )
    assert "No: ovs-gre:routes=underlay. A tunnel stands, but the tutorial's own route" in tunnel
    assert "with the tunnel cut the traffic goes on" in tunnel
    assert "There is no tunnel: bridge." in tunnel


def test_what_was_not_proved_is_not_called_carried() -> None:
    found = made(USUAL)

    def unproved(method: MethodResult) -> MethodResult:
        builds = tuple(dataclasses.replace(b, path_proved=False) for b in method.builds)
        return dataclasses.replace(method, builds=builds, reason="19 of 20 packets")

    lost = tuple(unproved(m) if m.name == GRE else m for m in found.methods)
    tunnel = of(dataclasses.replace(found, methods=lost))["tunnel"]
    assert "Yes: weave (sleeve) and weave:datapath=fastdp (VXLAN)." in tunnel
    assert tunnel.endswith("Not proved: ovs-gre: 19 of 20 packets.")


def test_a_run_tells_the_packets_of_its_proof() -> None:
    found = answers(conclusion.of_records([sample("ovs-gre")]))
    assert found["tunnel"] == (
        "Yes: ovs-gre (GRE). Proved on the wire: gre 20/20, gre0 cut: stops; healed: back."
    )
    bypassed = answers(conclusion.of_records([sample("ovs-gre-underlay")]))
    assert bypassed["tunnel"].startswith("No: ovs-gre. A tunnel stands, but the tutorial's own")
    told = sample("ovs-gre")
    assert told.path
    lost = dataclasses.replace(told, path=dataclasses.replace(told.path, proved=False))
    assert answers(conclusion.of_records([lost]))["tunnel"].startswith(
        "Not proved: ovs-gre: gre 20/20"
    )


# -- runs ------------------------------------------------------------------------------------------


def test_runs_are_set_beside_each_other_by_their_ratios_to_plain_hosts() -> None:
    names = ("baseline", "bridge", "ovs-gre", "ovs-gre-underlay")
    found = answers(conclusion.of_records([sample(name) for name in names]))
    assert found["fastest"].startswith("bridge carries most TCP: 0.68 × the TCP throughput of")
    # 0.052 to 0.056, and 0.051 to 0.052.
    assert (
        "Yet no difference in TCP could be measured between it and ovs-gre routes=t"
        in (found["why"])
    )
    assert found["why"].startswith("The datapath, before anything else.")


def test_one_round_ranks_no_run() -> None:
    runs = [_one_round(sample(name)) for name in ("bridge", "ovs-gre")]
    found = answers(conclusion.of_records(runs))
    assert found["fastest"].startswith("By TCP throughput too few rounds were measured to say; ")
    assert "`xlab compare`" in found["fastest"]
    assert found["why"].startswith("First the datapath.")


def _one_round(told: RunRecord) -> RunRecord:
    first = tuple(m for m in told.measurements if m.round == 1)
    return dataclasses.replace(told, measurements=first)


def test_runs_under_other_circumstances_are_not_ranked() -> None:
    bridge, gre = sample("bridge"), sample("ovs-gre")
    other = dataclasses.replace(bridge.environment, kernel="6.17.0")
    found = answers(conclusion.of_records([dataclasses.replace(bridge, environment=other), gre]))
    assert found["fastest"] == ("They are not ranked: the runs differ in kernel (6.17.0 | 6.12.0).")
    assert "tunnel" in found


def test_plain_hosts_alone_answer_nothing_and_what_was_skipped_is_not_asked() -> None:
    assert conclusion.of_records([sample("baseline")]) == ()
    assert conclusion.of_records([sample("ovs-gre-skipped")]) == ()


def test_the_clocks_are_told_each_by_itself() -> None:
    real = [sample(name) for name in ("bridge", "ovs-gre")]
    virtual = [
        dataclasses.replace(r, environment=dataclasses.replace(r.environment, clock="virtual"))
        for r in real
    ]
    found = conclusion.of_records([*real, *virtual])
    asked = [answer.question for answer in found]
    assert asked[0] == "Which is fastest here? (real clock)"
    assert asked[3] == "Which is fastest in virtual time? (virtual clock)"
    # A name is of one clock, and neither answer has those of the other.
    times = {answer.question: " ".join(answer.said) for answer in found}
    assert "no difference" not in times[asked[0]]
    assert (
        headline(made(USUAL, clock="virtual")) == "Fastest in virtual time: bridge, in the kernel"
    )


def test_one_build_of_the_virtual_clock_ranks_by_two_percent() -> None:
    def once(values: dict[str, float]) -> str:
        found = made(values, clock="virtual")
        figures = tuple(
            dataclasses.replace(f, to_baseline=dataclasses.replace(f.to_baseline, ci95=None))
            for f in found.figures
            if f.to_baseline
        )
        return headline(dataclasses.replace(found, figures=figures))

    assert once({BRIDGE: 0.9, SLEEVE: 0.88}) == "Fastest in virtual time: bridge, in the kernel"
    assert once({BRIDGE: 0.9, SLEEVE: 0.895}).startswith("No difference in TCP throughput could")


# -- the sample ------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["sample", "sample/virtual"])
def test_the_samples_page_answers_within_its_first_lines(folder: str) -> None:
    """And as its record says now: the page was made of it."""
    home = Path(__file__).parents[2] / "results" / folder
    found = wording.outcome(comparisons.load(home))
    page = (home / "report.html").read_text(encoding="utf-8")
    assert f"<span>{found.headline}.</span></h1>" in page
    header = page.partition("<header>")[2].partition("</header>")[0]
    for answer in found.answers:
        assert f"<dt>{answer.question}</dt>" in header
    assert header.index("The datapath, before anything else.") < header.index(
        "has no tunnel to pay"
    )


def test_a_run_without_figures_is_asked_about_its_path_alone() -> None:
    bare = dataclasses.replace(sample("bridge"), measurements=())
    assert [a.label for a in conclusion.of_records([bare])] == ["way"]


def test_what_a_method_costs_apart_from_the_way_between_its_hosts() -> None:
    """The control of ovs-gre goes through the same program, that of weave through the kernel."""
    (told,) = (a for a in conclusion.of_records([sample("ovs-gre")]) if a.label == "why")
    tcp = find(figures(sample("ovs-gre")), TCP)
    assert tcp is not None
    assert tcp.to_control is not None
    assert f"need none of the method: ovs-gre {tables.ratio(tcp.to_control)} ×." in told.said[1]


def test_who_is_first_by_throughput_alone_is_no_more_than_that() -> None:
    found = comparisons.load(Path(__file__).parents[2] / "results/sample")
    assert conclusion.headline(conclusion.field_of(found)) == (
        "Most TCP here: bridge and weave:datapath=fastdp, in the kernel; "
        "shortest round trip: bridge"
    )
    (fastest,) = (a for a in conclusion.of_comparison(found) if a.label == "fastest")
    soonest = next(said for said in fastest.said if said.startswith("bridge answers soonest"))
    assert soonest == "bridge answers soonest; no difference to plain hosts could be measured."
