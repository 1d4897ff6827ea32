"""docs/which-method.md says what the committed records say, and nothing that nobody measured."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from benchmarks import which_method
from benchmarks.which_method import PAGE, REAL, VIRTUAL
from xlab.errors import XlabError
from xlab.record import comparisons
from xlab.record.comparisons import Comparison
from xlab.report import conclusion

TEXT = PAGE.read_text(encoding="utf-8")
RENEW = "run benchmarks/which_method.py: "
_TITLES = {
    "TCP": "tcp_bits_per_second",
    "round trip": "icmp_rtt_ms",
    "round trip, loaded": "loaded_rtt_ms",
    "CPU a byte": "cpu_seconds_per_gigabyte",
}
#: A figure with its unit, or with decimals.
_FIGURE = re.compile(r"\d+ ?(?:×|%|ms|µs|s\b|[GMk]bit/s)|\b\d+\.\d+\b")


def table(name: str) -> list[dict[str, str]]:
    """The rows of a table of figures, by the titles of its columns."""
    found = re.search(rf"<!-- figures: {name} -->\n(.*?)<!-- end -->", TEXT, re.DOTALL)
    assert found, name
    head, _, *rows = ([c.strip() for c in line.strip("| ").split("|")] for line in
                      found[1].strip().splitlines())  # fmt: skip
    return [dict(zip(head, row, strict=True)) for row in rows]


def tolerance() -> float:
    found = re.search(r"off by (\d+) % at\s+most", TEXT)
    assert found, "the page tells no tolerance"
    return int(found[1]) / 100


def raw(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
    return told


def test_the_tables_are_those_of_the_records() -> None:
    after = which_method.renewed(TEXT)
    wrong = [
        f"{line!r} should be {new!r}"
        for line, new in zip(TEXT.splitlines(), after.splitlines(), strict=False)
        if line != new
    ]
    assert after == TEXT, RENEW + "; ".join(wrong)


@pytest.mark.parametrize(("name", "folder"), [("cost-real", REAL), ("cost-virtual", VIRTUAL)])
def test_each_ratio_is_the_records_within_the_tolerance_that_is_told(
    name: str, folder: Path
) -> None:
    """By other code than writes them: from the JSON as it stands."""
    figures = {(f["method"], f["metric"]): f for f in raw(folder)["figures"] if f["streams"] == 1}
    held = 0
    for row in table(name):
        method = row["method"].strip("`")
        for title, metric in _TITLES.items():
            if method == "plain hosts" or title not in row:
                continue
            told, known = row[title], figures[method, metric]["to_baseline"]
            shown = float(told.removeprefix("≈").strip())
            right = known["median"]
            assert abs(shown / right - 1) <= tolerance(), f"{RENEW}{method}, {title}: {right:.3g}"
            alike = known["verdict"] == "indistinguishable"
            assert told.startswith("≈") == alike, (method, title)
            held += 1
    assert held >= 12
    assert {row["method"].strip("`") for row in table(name)} >= {
        m["name"] for m in raw(folder)["methods"][1:]
    }


def test_each_time_without_answers_is_the_records() -> None:
    figures = {(f["method"], f["metric"]): f["value"] for f in raw(REAL)["figures"]}
    for row in table("mending"):
        method = row["method"].strip("`").replace("plain hosts", "baseline")
        for title, metric in (
            ("cable pulled and put back", "link_flap_recovery_s"),
            ("the host rebooted", "host_reboot_recovery_s"),
        ):
            right = figures[method, metric]["median"] * 1000
            shown = float(row[title].removesuffix(" ms"))
            assert abs(shown / right - 1) <= tolerance(), f"{RENEW}{method}, {title}: {right:.3g}"


def test_the_times_that_can_be_told_apart_are_those_that_are_named() -> None:
    """By intervals: of the cable none; of the reboot plain hosts and the bridge from all."""
    apart: dict[str, set[frozenset[str]]] = {}
    for metric in ("link_flap_recovery_s", "host_reboot_recovery_s"):
        spans = {f["method"]: f["value"]["ci95"] for f in raw(REAL)["figures"]
                 if f["metric"] == metric}  # fmt: skip
        apart[metric] = {
            frozenset((a, b))
            for a, b in combinations(spans, 2)
            if spans[a][0] > spans[b][1] or spans[b][0] > spans[a][1]
        }
    assert apart["link_flap_recovery_s"] == set()
    assert apart["host_reboot_recovery_s"] == {
        frozenset((a, b.name))
        for a in ("baseline", "bridge")
        for b in comparisons.load(REAL).methods
        if a != b.name
    }
    said = " ".join(TEXT.split())
    assert "no two methods can be told apart there" in said
    assert "plain hosts and the bridge can be told from each other and from the rest" in said


def test_a_record_that_changes_is_noticed(tmp_path: Path) -> None:
    told = raw(VIRTUAL)
    for figure in told["figures"]:
        if (figure["method"], figure["metric"]) == ("weave", "tcp_bits_per_second"):
            figure["to_baseline"]["median"] *= 1.5
    (tmp_path / "compare.json").write_text(json.dumps(told))
    assert which_method.renewed(TEXT, virtually=tmp_path) != TEXT
    with pytest.raises(XlabError, match="nobody makes the figures 'no-such'"):
        which_method.renewed("<!-- figures: no-such -->\n<!-- end -->")


def test_the_script_writes_the_page_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(re.sub(r"(?m)^\| user space .*\n", "", TEXT), encoding="utf-8")
    monkeypatch.setattr(which_method, "PAGE", page)
    assert which_method.main(["--check"]) == 1
    assert which_method.main([]) == 0
    assert page.read_text(encoding="utf-8") == TEXT
    assert which_method.main(["--check"]) == 0


def test_every_other_figure_has_its_source_beside_it() -> None:
    """A figure of others stands in a paragraph, or a row, with a link to whoever measured it."""
    prose = re.sub(r"<!-- figures.*?<!-- end -->", "", TEXT, flags=re.DOTALL)
    prose = prose.replace(f"off by {tolerance() * 100:.0f} % at", "")
    prose = re.sub(r"```.*?```", "", prose, flags=re.DOTALL)
    told = 0
    for paragraph in prose.split("\n\n"):
        for piece in paragraph.splitlines() if paragraph.startswith("|") else [paragraph]:
            bare = re.sub(r"\]\([^)]*\)|`[^`]*`", "", piece)
            if _FIGURE.search(bare):
                assert re.search(r"\]\(https://", piece), f"no source: {piece}"
                told += 1
    assert told >= 8


# -- what is said without figures ------------------------------------------------------------------


def tcp(found: Comparison) -> dict[str, float]:
    return {
        f.method: f.to_baseline.median
        for f in found.figures
        if f.metric == "tcp_bits_per_second" and f.streams == 1 and f.to_baseline
    }


@pytest.mark.parametrize("folder", [REAL, VIRTUAL], ids=["real", "virtual"])
def test_the_datapath_moves_a_method_further_than_methods_of_the_kernel_lie_apart(
    folder: Path,
) -> None:
    found = comparisons.load(folder)
    ratios = tcp(found)
    within = [
        max(ratios[a.name], ratios[b.name]) / min(ratios[a.name], ratios[b.name])
        for a, b in combinations(found.methods[1:], 2)
        if a.datapath_class == b.datapath_class == "kernel"
    ]
    across = [
        ratios[a.name] / ratios[b.name]
        for a in found.methods[1:]
        for b in found.methods[1:]
        if a.scenario == b.scenario
        and (a.datapath_class, b.datapath_class) == ("kernel", "userspace")
    ]
    assert across
    assert min(across) > max(within)


@pytest.mark.parametrize("folder", [REAL, VIRTUAL], ids=["real", "virtual"])
def test_the_notes_route_beats_the_tunnel_and_a_bridge_costs_least_in_the_kernel(
    folder: Path,
) -> None:
    found = comparisons.load(folder)
    methods = {method.name: method for method in conclusion.field_of(found).methods}
    field = conclusion.field_of(found)
    route, tunnel = methods["ovs-gre:routes=underlay"], methods["ovs-gre"]
    assert field.relation(conclusion.TCP, route, tunnel) == "faster"
    assert methods["bridge"] in conclusion.ranking(field, conclusion.TCP).first
    assert methods["bridge"] in conclusion.ranking(field, conclusion.RTT).first


def test_what_is_said_of_the_sample_is_so() -> None:
    found = comparisons.load(REAL)
    assert found.noise.verdict == "noisy"
    assert found.environment.cores == 2
    assert "user space" in {row["datapath"] for row in table("cost-real")}
    (ovs,) = (m for m in found.methods if m.name == "ovs-gre")
    assert (ovs.datapath_class, ovs.settings["datapath"]) == ("userspace", "auto")
    killed = [r for r in found.recoveries if r.metric == "weave_kill_recovery_s"]
    assert {(r.method, r.stopped) for r in killed} == {
        ("weave", True),
        ("weave:datapath=fastdp", False),
    }
    assert len({r.build for r in killed}) == 6
