"""Reports from records alone: figures, ratios, wording, tables, Markdown, JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import sample
from xlab.errors import RecordError
from xlab.record import record, result_files
from xlab.record.figures import (
    figures,
    find,
    ratio_points,
    value_points,
)
from xlab.record.record import Measurement, Route, RunRecord
from xlab.record.stats import Spread
from xlab.report import conclusion, content, prose, tables, text
from xlab.report.forms import html, markdown
from xlab.report.forms import json as json_data


def measured(
    route: Route, number: int, median: float | None, *, metric: str = "icmp_rtt_ms", build: int = 1
) -> Measurement:
    return Measurement(
        probe="ping",
        metric=metric,
        unit="ms",
        direction="a > b",
        streams=1,
        round=number,
        build=build,
        started_at="2025-01-02T09:00:00Z",
        samples=() if median is None else (median,),
        failed_samples=1 if median is None else 0,
        median=median,
        ci95=None if median is None else (median * 0.9, median * 1.1),
        route=route,
    )


def with_measurements(*measurements: Measurement) -> RunRecord:
    return replace(sample("bridge"), measurements=measurements)


def as_markdown(*records: RunRecord) -> str:
    named = {Path(f"results/{i}/run.json"): each for i, each in enumerate(records, 1)}
    return markdown.of_results(content.of_records(named), Path("results/all"))


# ---------------------------------------------------------------------------------------- figures


def test_a_ratio_is_the_median_of_the_ratios_of_rounds_not_the_ratio_of_medians() -> None:
    # The machine was slow in the third round: every probe took ten times as long.
    (figure,) = figures(
        with_measurements(
            *(measured("method", i, v) for i, v in enumerate((2.0, 4.0, 30.0))),
            *(measured("baseline", i, v) for i, v in enumerate((1.0, 1.0, 10.0))),
        )
    )
    assert figure.method == Spread(4.0, (2.0, 30.0), 3)
    assert figure.baseline == Spread(1.0, (1.0, 10.0), 3)
    assert figure.to_baseline == Spread(3.0, (2.0, 4.0), 3)
    assert figure.control is None
    assert figure.to_control is None


def test_only_rounds_that_have_both_make_a_ratio() -> None:
    (figure,) = figures(
        with_measurements(
            measured("method", 1, 2.0),
            measured("method", 2, None),
            measured("method", 3, 8.0),
            measured("control", 1, 1.0),
            measured("control", 2, 1.0),
        )
    )
    assert figure.to_control == Spread(2.0, None, 1)
    assert figure.method == Spread(5.0, None, 2)
    assert figure.failed_samples == {"method": 1}


def test_rounds_of_different_builds_are_not_mixed_up() -> None:
    (figure,) = figures(
        with_measurements(
            measured("method", 1, 2.0, build=1),
            measured("method", 1, 60.0, build=2),
            measured("control", 1, 1.0, build=1),
            measured("control", 1, 20.0, build=2),
        )
    )
    assert figure.to_control == Spread(2.5, None, 2)


def test_of_a_single_round_the_interval_is_that_of_its_samples() -> None:
    (figure,) = figures(with_measurements(measured("method", 1, 2.0)))
    assert figure.method == Spread(2.0, (1.8, 2.2), 1)


def test_several_pairs_of_a_round_count_as_one_figure() -> None:
    (figure,) = figures(
        with_measurements(*(measured("method", 1, value) for value in (1.0, 2.0, 6.0)))
    )
    assert figure.method == Spread(2.0, None, 1)


def test_nothing_is_said_in_proportion_to_zero() -> None:
    (figure,) = figures(with_measurements(measured("method", 1, 0.01), measured("control", 1, 0.0)))
    assert figure.to_control is None
    assert figure.control == Spread(0.0, (0.0, 0.0), 1)


def test_losses_are_not_put_in_proportion() -> None:
    (figure,) = figures(
        with_measurements(
            measured("method", 1, 0.02, metric="udp_loss_ratio"),
            measured("control", 1, 0.01, metric="udp_loss_ratio"),
        )
    )
    assert figure.to_control is None
    assert figure.method is not None


@pytest.mark.parametrize("metric", ["udp_bits_per_second", "udp_loss_ratio"])
def test_udp_has_no_ratios_as_each_route_is_offered_a_rate_of_its_own(metric: str) -> None:
    told = sample("weave")
    figure = find(figures(told), metric)
    assert figure is not None
    assert figure.method is not None
    assert figure.to_control is figure.to_baseline is None
    label = text.label(metric)
    table = tables.route_figures(told)
    titles = [column.title for column in table.columns]
    (row,) = (row for row in table.rows if row[0] == label)
    assert [row[titles.index(title)] for title in ("× control", "× baseline")] == ["–", "–"]


def test_what_udp_was_offered_is_said_beside_its_figures() -> None:
    (note,) = tables.route_figures(sample("weave")).notes
    assert note == (
        "UDP: no × columns, for each was sent 90 % of what its own TCP carried, not the same: "
        "method 950 Mbit/s; control 9.30 Gbit/s, of which 4.20 Gbit/s could be sent; "
        "baseline 18.4 Gbit/s, of which 2.50 Gbit/s could be sent"
    )
    figure = find(figures(sample("weave")), "udp_bits_per_second")
    assert figure is not None
    assert figure.offered_bits_per_second == {
        "method": 0.95e9,
        "control": 9.3e9,
        "baseline": 18.4e9,
    }


@pytest.mark.parametrize("rate", ["fast", None, -1, 10**400, float("inf"), [], {}])
def test_an_offered_rate_that_is_none_is_left_out(rate: object) -> None:
    (first, *_) = (m for m in sample("weave").measurements if m.metric == "udp_bits_per_second")
    (figure,) = figures(with_measurements(replace(first, detail={"offered_bits_per_second": rate})))
    assert figure.offered_bits_per_second == {}


def test_charts_get_every_round_and_every_sample() -> None:
    told = with_measurements(
        *(measured("method", i, v) for i, v in ((1, 2.0), (2, 6.0), (3, None))),
        *(measured("baseline", i, v) for i, v in ((1, 1.0), (2, 2.0), (3, 1.0), (4, 0.0))),
    )
    ratios = ratio_points(told, "icmp_rtt_ms", "method")
    assert (ratios.rounds, ratios.spread) == ((2.0, 3.0), Spread(2.5, None, 2))
    values = value_points(told, "icmp_rtt_ms", "method")
    assert (values.rounds, values.samples) == ((2.0, 6.0), (2.0, 6.0))
    assert value_points(told, "icmp_rtt_ms", "control").spread is None


def test_figures_come_in_a_fixed_order_and_unknown_metrics_last() -> None:
    record_ = sample("ovs-gre")
    later = replace(record_.measurements[0], metric="packets_reordered", unit="packets")
    shuffled = (later, *reversed(record_.measurements))
    keys = [(f.metric, f.streams) for f in figures(replace(record_, measurements=shuffled))]
    assert keys == [
        ("icmp_rtt_ms", 1),
        ("tcp_rr_latency_ms", 1),
        ("tcp_bits_per_second", 1),
        ("tcp_bits_per_second", 4),
        ("udp_loss_ratio", 1),
        ("cpu_seconds_per_gigabyte", 1),
        ("packets_reordered", 1),
    ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("method", "control", "baseline")),
            st.integers(1, 4),
            st.none() | st.floats(0, 1e12, allow_subnormal=False),
        ),
        max_size=12,
    )
)
def test_any_rounds_give_a_report_without_invented_figures(
    rounds: list[tuple[Route, int, float | None]],
) -> None:
    told = with_measurements(*(measured(*each) for each in rounds))
    found = figures(told)
    values = [value for route, _, value in rounds if route == "method" and value is not None]
    if values:
        assert found[0].method is not None
        assert min(values) <= found[0].method.median <= max(values)
    else:
        assert all(figure.method is None for figure in found)
    assert as_markdown(told).endswith("\n")


def test_messages_come_by_size_and_are_called_by_it() -> None:
    sizes = (65536, 64, 8192, 512)
    told = with_measurements(
        *(
            measured("method", 1, 1e6, metric=f"tcp_{size}_byte_messages_bits_per_second")
            for size in sizes
        )
    )
    more = (
        "tcp_bits_per_second",
        "host_reboot_recovery_s",
        "udp_bits_per_second",
        "build_s",
        "icmp_rtt_ms",
        "unheard_of",
    )
    others = (measured("method", 1, 1.0, metric=metric) for metric in more)
    told = replace(told, measurements=(*others, *told.measurements))
    labels = [text.label(figure.metric) for figure in figures(told)]
    assert labels == [
        "RTT", "TCP 1 stream", *(f"TCP, {size} B messages" for size in sorted(sizes)),
        "UDP", "recovery, host reboot", "build", "unheard_of",
    ]  # fmt: skip


def test_a_rate_that_the_sender_limits_says_so() -> None:
    limited, lossy = (
        replace(
            measured(route, 1, 1e5, metric="udp_packets_per_second"),
            detail={"sender_limited": route == "baseline"},
        )
        for route in ("baseline", "method")
    )
    table = tables.route_figures(with_measurements(limited, lossy))
    (note,) = [note for note in table.notes if "sender" in note]
    assert note.startswith("small packets, baseline: the sender was the limit")
    assert figures(with_measurements(limited, lossy))[0].to_baseline is not None


def test_datapaths_are_told_apart_by_what_forwards_packets() -> None:
    names = ("bridge", "ovs-gre-kernel", "ovs-gre")
    classes = [sample(name).environment.datapath_class for name in names]
    assert classes == ["kernel", "kernel", "userspace"]


# ---------------------------------------------------------------------------------------- wording


@pytest.mark.parametrize(
    ("metric", "number", "said"),
    [
        ("icmp_rtt_ms", 0.478, "478 µs"),
        ("icmp_rtt_ms", 0.0181, "18.1 µs"),
        ("icmp_rtt_ms", 0.0004, "0.400 µs"),
        ("icmp_rtt_ms", 0.9996, "1.00 ms"),
        ("icmp_rtt_ms", 20.49, "20.5 ms"),
        ("icmp_rtt_ms", 1500.0, "1.50 s"),
        ("tcp_bits_per_second", 1.07e9, "1.07 Gbit/s"),
        ("tcp_bits_per_second", 999.7e6, "1.00 Gbit/s"),
        ("tcp_bits_per_second", 534e6, "534 Mbit/s"),
        ("tcp_bits_per_second", 9.66e6, "9.66 Mbit/s"),
        ("tcp_bits_per_second", 0.0, "0 bit/s"),
        ("udp_loss_ratio", 0.0021, "0.210 %"),
        ("udp_loss_ratio", 0.5, "50.0 %"),
        ("cpu_seconds_per_gigabyte", 9.4, "9.40 s"),
        ("recovery_s", 0.25, "250 ms"),
        ("udp_packets_per_second", 144_364.0, "144 kpps"),
        ("tcp_connections_per_second", 10_339.0, "10.3 k/s"),
        ("tcp_64_byte_messages_bits_per_second", 48e6, "48.0 Mbit/s"),
        ("packets_reordered", 12.0, "12.0 packets"),
    ],
)
def test_figures_have_three_digits_and_a_unit_that_suits_them(
    metric: str, number: float, said: str
) -> None:
    assert text.value(metric, "packets", number) == said


@given(st.floats(1e-9, 1e15))
def test_a_figure_in_words_is_within_its_last_digit_of_the_figure(number: float) -> None:
    digits, unit = text.value("tcp_bits_per_second", "bit/s", number).split(" ")
    scale = {"bit/s": 1, "kbit/s": 1e3, "Mbit/s": 1e6, "Gbit/s": 1e9, "Tbit/s": 1e12}[unit]
    assert math.isclose(float(digits) * scale, number, rel_tol=0.0051, abs_tol=0.005)
    assert len(digits) <= 8


@pytest.mark.parametrize(
    ("ratio", "interval", "said"),
    [
        (26.64, (25.93, 27.4), ("26.6", "25.9–27.4")),
        (1.208, (1.18, 1.25), ("1.21", "1.18–1.25")),
        (0.6512, (0.64, 0.672), ("0.65", "0.64–0.67")),
        (0.1024, (0.0981, 0.1044), ("0.102", "0.098–0.104")),
        (0.0524, (0.0518, 0.0561), ("0.052", "0.052–0.056")),
        (0.00123, None, ("0.0012", "–")),
        (240.0, None, ("240", "–")),
    ],
)
def test_ratios_keep_two_digits_that_mean_something(
    ratio: float, interval: tuple[float, float] | None, said: tuple[str, str]
) -> None:
    spread = Spread(ratio, interval, 3)
    assert (text.ratio(spread), text.ratio_interval(spread)) == said


def test_the_path_says_how_many_packets_went_which_way() -> None:
    proof = sample("ovs-gre").path
    assert proof
    assert text.path(proof) == "gre 20/20, gre0 cut: stops; healed: back"
    packets = replace(proof.underlay_packets, gre=3, none=2)
    lost = replace(proof, proved=False, underlay_packets=packets)
    assert text.path(lost) == "NOT proved: gre 3/20, 2 plain"
    assert text.path(replace(proof, negative_control=False, control_detail="goes on")) == (
        "gre 20/20, control FAILED: goes on"
    )
    assert text.path(None) == "not tried"


# ----------------------------------------------------------------------------------------- tables


def test_methods_are_never_in_one_table_across_classes_of_datapath() -> None:
    names = ("ovs-gre", "bridge", "ovs-gre-kernel", "baseline")
    (kernel, userspace) = tables.overview([sample(name) for name in names])
    assert (kernel.title, userspace.title) == ("kernel datapath", "userspace datapath")
    assert [row[0] for row in kernel.rows] == ["bridge", "ovs-gre", "baseline"]
    assert [row[0] for row in userspace.rows] == ["ovs-gre"]
    (only,) = tables.overview([sample("bridge"), sample("baseline")])
    assert only.title == ""


def test_records_of_one_scenario_are_told_apart_by_settings_and_time() -> None:
    (table,) = tables.overview([sample("bridge"), sample("bridge-failed"), sample("baseline")])
    assert [row[-1] for row in table.rows] == [
        "2025-01-02T09:00:15Z",
        "fixed_cidr=off 2025-01-02T09:02:00Z",
        "",
    ]
    (table,) = tables.overview([sample("bridge"), sample("baseline")])
    assert table.columns[-1].title == "datapath"


def test_runs_under_different_circumstances_are_not_to_be_compared() -> None:
    bridge, quick = sample("bridge"), sample("bridge-quick")
    assert tables.remarks([bridge, bridge]) == []
    (said,) = tables.remarks([bridge, quick])
    assert "rate (none | 100 Mbit/s); delay (none | 10.0 ms); loss (none | 1.00 %)" in said
    newer = replace(bridge, environment=replace(bridge.environment, kernel="6.17.0"))
    (said,) = tables.remarks([bridge, newer])
    assert "kernel (6.12.0 | 6.17.0)" in said
    # What was skipped measured nothing, so it cannot differ.
    skipped = replace(quick, status="skipped", reason="no tun")
    assert tables.remarks([bridge, skipped]) == ["bridge was skipped: no tun"]


def test_records_are_named_by_what_tells_them_apart() -> None:
    bridge = sample("bridge")
    again = replace(bridge, started_at="2025-01-03T10:00:00.123+00:00")
    names = ("ovs-gre", "ovs-gre-underlay", "weave", "baseline")
    assert tables.names([sample(name) for name in names]) == [
        "ovs-gre routes=tunnel",
        "ovs-gre routes=underlay",
        "weave",
        "baseline",
    ]
    assert tables.names([bridge, again]) == [
        "bridge 2025-01-02T09:00:15",
        "bridge 2025-01-03T10:00:00",
    ]
    odd = replace(bridge, parameters={"settings": ["no", "object"]})
    assert tables.names([odd]) == ["bridge"]
    assert tables.which(odd) == bridge.started_at


def test_at_a_glance_a_path_is_a_mark_and_a_count() -> None:
    told = [sample(name) for name in ("bridge", "bridge-failed", "ovs-gre-skipped")]
    (table,) = tables.glance(told)
    assert [column.title for column in table.columns][-2:] == ["path", "datapath"]
    assert [(row[0], row[-2]) for row in table.rows] == [
        ("bridge 2025-01-02T09:00:15", "✓ plain 20/20"),
        ("bridge fixed_cidr=off", "not tried"),
        ("ovs-gre", "not tried"),
    ]


def test_what_failed_is_noted_with_its_route_and_what_the_probe_said() -> None:
    stalled = replace(measured("control", 1, None), detail={"error": "no data after 0.2 s"})
    table = tables.route_figures(
        with_measurements(measured("method", 1, 2.0), measured("method", 2, None), stalled)
    )
    assert table.notes == (
        "RTT, method: 1 sample without a figure",
        "RTT, control: no figure, for no data after 0.2 s",
        tables.NOT_MEASURED,
    )
    titles = [column.title for column in table.columns]
    (row,) = table.rows
    assert row[titles.index("control")] == tables.NO_FIGURE
    assert row[titles.index("median")] == "2.00 ms"


def test_a_ratio_whose_interval_spans_one_is_marked_indistinguishable() -> None:
    table = tables.route_figures(sample("baseline"))
    titles = [column.title for column in table.columns]
    cells = {row[0]: row[titles.index("× baseline")] for row in table.rows}
    assert cells["RTT"].startswith("≈ ")
    assert tables.INDISTINGUISHABLE in table.notes
    table = tables.route_figures(sample("ovs-gre"))
    assert not any("≈" in cell for row in table.rows for cell in row)
    assert table.notes == (tables.NO_RATIOS.format("UDP loss"),)


@pytest.mark.parametrize("name", ["baseline", "bridge", "ovs-gre", "bridge-quick", "weave"])
def test_a_cell_without_a_figure_has_its_reason_beneath_the_table(name: str) -> None:
    table = tables.route_figures(sample(name))
    blank = [row for row in table.rows if text.NOTHING in row]
    reasons = " ".join(table.notes)
    for row in blank:
        its_own = f"{row[0]}: no × columns" in reasons or (
            row[0].startswith("UDP") and "UDP: no × columns" in reasons
        )
        assert its_own or "(–)" in reasons or f"{row[0]}, method: no figure" in reasons, row
    assert "nan" not in " ".join(cell for row in table.rows for cell in row)


def test_what_a_passed_run_has_no_figure_of_is_no_failure() -> None:
    idle = replace(
        measured("method", 1, None, metric="cpu_seconds_per_gigabyte"),
        detail={"error": "the machine was no busier than when left alone"},
    )
    table = tables.route_figures(with_measurements(idle))
    assert table.rows[0][1] == "no figure"
    assert table.notes[0] == (
        "CPU per GB, method: no figure, for the machine was no busier than when left alone"
    )
    assert "failed" not in str(table)


def test_udp_says_in_plain_words_why_it_has_no_ratios() -> None:
    (said,) = (note for note in tables.route_figures(sample("weave")).notes if "UDP" in note)
    assert said.startswith(
        "UDP: no × columns, for each was sent 90 % of what its own TCP carried, not the same: "
        "method 950 Mbit/s"
    )


# ---------------------------------------------------------------------------- Markdown and JSON


def test_markdown_begins_with_the_verdict_and_ends_with_the_data() -> None:
    found = as_markdown(sample("ovs-gre"), sample("bridge-failed"))
    lines = found.splitlines()
    assert lines[0] == "# ✗ bridge failed; 1 of 2 passed"
    titles = [line for line in lines if line.startswith("## ")]
    assert titles == [
        "## Summary",
        "## Overhead and MTU",
        "## ovs-gre: passed",
        "## bridge: failed",
        "## Environment",
        "## How it was measured",
        "## Raw data",
    ]
    assert "[1/run.json](../1/run.json)" in found
    assert "capture: [raw/path.pcap](../1/raw/path.pcap)" in found


def test_markdown_holds_the_overview_and_the_figures_of_every_record() -> None:
    found = as_markdown(sample("ovs-gre"), sample("bridge-failed"))
    lines = found.splitlines()
    assert "### kernel datapath" in lines
    assert "### userspace datapath" in lines
    assert (
        "| ovs-gre | ✓ 3/3 | 469 µs | 1.20 | 26.1 | 1.08 Gbit/s | 0.102 | 0.053 "
        "| ✓ gre 20/20 | ovs 3.5.0 userspace (netdev) |"
    ) in lines
    assert (
        "| TCP 1 stream | 1.08 Gbit/s | 1.04–1.10 | 10.6 Gbit/s | 19.9 Gbit/s "
        "| 0.102 | 0.098–0.103 | 0.053 | 0.052–0.056 |"
    ) in lines
    assert "- negative control: ✓ gre0 cut: stops; healed: back" in lines


def test_markdown_holds_every_claim_and_what_was_observed_where_one_does_not_hold() -> None:
    told = sample("bridge-failed")
    lines = as_markdown(told).splitlines()
    for claim in told.claims[:3]:
        assert f"- ✓ {claim.text} ({claim.stage})" in lines
    assert (
        "- ✗ **no two containers have one address** (containers run): expected 4 different "
        "addresses, observed 10.211.55.2 on h1/c1 and on h2/c1"
    ) in lines


def test_every_row_of_a_markdown_table_has_as_many_cells_as_its_head() -> None:
    nasty = replace(sample("bridge-failed"), scenario="a|b\nc", reason="*x* | <y> &copy;")
    for table in as_markdown(sample("ovs-gre"), nasty).split("\n\n"):
        rows = [line for line in table.splitlines() if line.startswith("|")]
        counts = {row.replace("\\|", "").count("|") for row in rows}
        assert len(counts) <= 1
    assert "a\\|b c" in as_markdown(nasty)
    assert "\\*x\\* \\| \\<y\\> \\&copy;" in as_markdown(nasty)


# ---------------------------------------------------------------------------------------- verdict


@pytest.mark.parametrize(
    ("names", "status", "headline"),
    [
        (["bridge"], "passed", "bridge works: 4 of 4 claims hold, and its path is proved"),
        (
            ["baseline", "bridge", "ovs-gre"],
            "passed",
            "All 3 scenarios work: 8 of 8 claims hold, and every path is proved",
        ),
        (
            ["bridge-failed"],
            "failed",
            (
                "bridge failed: “no two containers have one address” (containers run) does not "
                "hold: expected 4 different addresses, observed 10.211.55.2 on h1/c1 and on h2/c1"
            ),
        ),
        (
            ["ovs-gre-skipped"],
            "skipped",
            "ovs-gre was skipped: /dev/net/tun cannot be opened; as root: chmod 0666 /dev/net/tun",
        ),
        (["baseline", "ovs-gre-skipped"], "skipped", "ovs-gre skipped; 1 of 2 passed"),
        (
            ["baseline", "ovs-gre-skipped", "bridge-failed"],
            "failed",
            "bridge failed; 1 of 3 passed",
        ),
    ],
)
def test_the_verdict_is_that_of_the_worst_record(
    names: list[str], status: str, headline: str
) -> None:
    found = prose.verdict([sample(name) for name in names])
    assert (found.status, found.headline) == (status, headline)


def test_what_a_build_printed_does_not_all_stand_in_the_heading() -> None:
    printed = "h1: `ip` ended with status 1:\n" + "a line of it\n" * 60
    broken = replace(sample("bridge-failed"), claims=(), path=None, reason=printed)
    headline = prose.verdict([broken]).headline
    assert headline.startswith("bridge failed: h1: `ip` ended with status 1: a line of it a line")
    assert headline.endswith("…")
    assert len(headline) <= 200
    page = html.of_results(content.of_records({Path("x/run.json"): broken}), Path())
    assert f"{headline}</span></h1>" in page
    # Whole, where the scenario has its place.
    assert page.count("a line of it") > 60


def test_the_verdict_says_what_failed_then_what_was_found_then_how_far_to_trust_it() -> None:
    found = prose.verdict([sample(name) for name in ("ovs-gre", "bridge-failed", "bridge")])
    assert found.findings[0].startswith("bridge failed: “no two containers have one address”")
    assert found.findings[-1] == ("Figures of kernel and userspace datapaths do not rank methods.")
    *others, last = found.answers
    assert [answer.label for answer in others] == ["fastest", "why", "tunnel"]
    assert last.question == conclusion.SURE
    assert last.said[-1].startswith("Few rounds (3 rounds)")


def test_how_it_was_measured_tells_the_rounds_that_there_were() -> None:
    told = sample("bridge")
    told = replace(told, parameters={**told.parameters, "duration_s": 1.5})
    assert prose.measured([told])[0].startswith("Measured in 3 rounds, TCP for 1.5 s each time. ")
    assert prose.measured([sample("bridge-failed")]) == []
    tools = {name: tool for name, tool, _ in prose.probes([sample("weave")])}
    assert tools["UDP"] == "iperf3 3.18"


def test_the_environment_says_whose_a_value_is_only_where_records_differ() -> None:
    told = [sample("bridge"), sample("ovs-gre"), sample("bridge-quick")]
    facts = dict(prose.environment(told, tables.names(told)))
    assert facts["kernel"] == ("6.12.0",)
    assert facts["datapath"] == (
        "linux bridge (bridge 2025-01-02T09:00:15, bridge 2025-01-02T09:03:00)",
        "ovs 3.5.0 userspace (netdev) (ovs-gre)",
    )
    assert facts["link conditions"][1] == (
        "rate 100 Mbit/s, delay 10.0 ms, loss 1.00 % by tbf+delay-line; measured: delay 10.2 ms "
        "(bridge 2025-01-02T09:03:00)"
    )


# ------------------------------------------------------------------------------------------- JSON


def test_json_says_what_the_tables_say_with_every_digit() -> None:
    told = sample("ovs-gre")
    data = json.loads(json.dumps(json_data.to_data(Path("x/run.json"), told), allow_nan=False))
    assert (data["file"], data["scenario"], data["status"]) == ("x/run.json", "ovs-gre", "passed")
    assert data["datapath_class"] == "userspace"
    assert data["claims"] == {"held": 3, "total": 3, "broken": []}
    assert data["path"]["underlay_packets"]["gre"] == 20
    found = find(figures(told), "tcp_bits_per_second", 1)
    assert found
    assert found.to_baseline
    (tcp, _) = (f for f in data["figures"] if f["metric"] == "tcp_bits_per_second")
    assert tcp["to_baseline"]["median"] == found.to_baseline.median
    assert tcp["to_baseline"]["rounds"] == 3
    broken = json_data.to_data(Path("x"), sample("bridge-failed"))["claims"]["broken"]
    assert [claim["id"] for claim in broken] == ["unique"]


# ------------------------------------------------------------------------------- finding records


def test_records_are_found_by_file_by_folder_and_in_a_folder_of_folders(tmp_path: Path) -> None:
    for name in ("2025-01-02T100000Z-bridge", "2025-01-02T090000Z-baseline", ".partial-1-x"):
        record.save(sample("bridge"), tmp_path / name, {})
    early, late = (
        tmp_path / f"2025-01-02T{name}/run.json" for name in ("090000Z-baseline", "100000Z-bridge")
    )
    assert result_files.find([tmp_path]) == [early, late]
    assert result_files.find([late.parent]) == [late]
    assert result_files.find([late]) == [late]
    assert result_files.find([late, tmp_path]) == [late, early], "each once, in the order asked for"


def test_a_folder_without_records_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"no run\.json here or in the folders in it"):
        result_files.find([tmp_path])


def test_one_corrupt_record_does_not_hide_the_others(tmp_path: Path) -> None:
    record.save(sample("bridge"), tmp_path / "a", {})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run.json").write_text('{"schema_version": 1}', encoding="utf-8")
    records, errors = result_files.load(result_files.find([tmp_path]))
    assert list(records.values()) == [sample("bridge")]
    assert [str(error) for error in errors] == [f"{tmp_path}/b/run.json: scenario: missing"]
