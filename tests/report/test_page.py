"""The report as a page: well-formed, complete, self-contained, readable without seeing it."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.records import sample
from tests.support.reports import HOSTILE, Page, everything, hostile, render, rendered
from xlab.record.figures import figures, find
from xlab.record.record import RunRecord
from xlab.report import content, links, text
from xlab.report.forms import html
from xlab.report.markup import Html, join, tag

NAMES = [
    "baseline",
    "bridge",
    "ovs-gre",
    "ovs-gre-kernel",
    "bridge-failed",
    "ovs-gre-skipped",
    "bridge-quick",
    "ovs-gre-underlay",
    "weave",
    "weave-fastdp",
]
pytestmark = pytest.mark.usefixtures("same_charts_drawn_once")

#: What in an attribute makes a browser fetch, or go, somewhere.
_ADDRESSES = ("href", "src", "srcset", "data", "action", "poster", "xlink:href", "cite")


@functools.cache
def all_pages() -> list[Page]:
    whole = Page(html.of_results(content.of_records(everything()), Path()))
    return [whole, *map(rendered, NAMES), render(hostile())]


# --------------------------------------------------------------------------------------- markup


def test_text_never_becomes_markup() -> None:
    assert tag("p", "1 < 2 & ", tag("b", '"'), title='"<') == (
        '<p title="&quot;&lt;">1 &lt; 2 &amp; <b>&quot;</b></p>'
    )
    assert join(["a<", [Html("<i>"), None], "b"]) == "a&lt;<i>b"
    assert tag("br", class_="x", hidden=True, id=None, data_x=1.5) == (
        '<br class="x" hidden data-x="1.5">'
    )


# --------------------------------------------------------------------------------------- structure


def test_pages_are_well_formed() -> None:
    """Page() itself asserts that tags are nested and closed."""
    for found in all_pages():
        assert found.source.startswith('<!doctype html>\n<html lang="en">')
        ids = found.attributes("id")
        assert len(ids) == len(set(ids)), "an id is there twice"
        for target in found.attributes("href"):
            if target.startswith("#"):
                assert target[1:] in ids, f"{target} leads nowhere"
        for named in (*found.attributes("aria-labelledby"),):
            assert set(named.split()) <= set(ids)


def test_pages_fetch_nothing_and_run_nothing() -> None:
    for found in all_pages():
        for name in _ADDRESSES:
            for target in found.attributes(name):
                assert re.match(r"#|data:,$|\.\./|[\w%-]+(/|\.)", target), target
                assert not re.match(r"[a-z]+:(?!,)", target, re.IGNORECASE), target
                assert not target.startswith("//")
        assert not {e.name for e in found.elements} & {"script", "img", "iframe", "object", "base"}
        assert not [key for e in found.elements for key in e.attributes if key.startswith("on")]
        (style,) = found.all("style")
        assert not re.search(r"@import|@font-face|url\(|expression", style.text)
        for each in found.attributes("style"):
            assert "url(" not in each.replace("url(#", "")
        (policy,) = (e for e in found.all("meta") if "http-equiv" in e.attributes)
        assert policy.attributes["content"] == (
            "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
        )


def test_headings_make_an_outline_without_gaps() -> None:
    for found in all_pages():
        levels = [int(e.name[1]) for e in found.elements if re.fullmatch(r"h[1-6]", e.name)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        for before, after in pairwise(levels):
            assert after <= before + 1
        assert [e.name for e in found.elements if e.name in ("main", "nav", "header")] == [
            "header",
            "nav",
            "main",
        ]


def test_every_drawing_says_in_words_what_it_shows() -> None:
    found = rendered("bridge", "ovs-gre")
    ratio, _, rtt, *_, bridge, ovs = found.all("svg")
    assert ratio.attributes["role"] == "img"
    words = str(ratio.attributes["aria-label"])
    assert re.sub(r"[\d.]+ \([\d.–]+\)", "R", words) == (
        "TCP throughput. kernel datapath: bridge: linux bridge R, control, host to host R. "
        "userspace datapath: ovs-gre: ovs 3.5.0 userspace (netdev) R, control, host to host R."
    )
    for name in ("bridge", "ovs-gre"):
        tcp = find(figures(sample(name)), "tcp_bits_per_second")
        assert tcp is not None
        assert f" {text.ratio(tcp.to_baseline)} ({text.ratio_interval(tcp.to_baseline)})" in words
    assert "469 µs" in str(rtt.attributes["aria-label"])
    ids = {e.attributes["id"]: e.text for e in found.elements if "id" in e.attributes}
    for drawing in (bridge, ovs):
        title, description = (
            ids[name] for name in str(drawing.attributes["aria-labelledby"]).split()
        )
        assert title == "h1 and h2, and the wire between"
        assert description.startswith("Proved: h1/c1 → br0 → ")
    assert "gre0 → eth0 → the wire (GRE, IP protocol 47, MTU 1500)" in ovs.text


def test_tables_keep_their_meaning_when_their_rows_become_blocks() -> None:
    found = rendered("ovs-gre")
    for cell in found.all("td"):
        assert cell.attributes["data-label"], "a cell without its column's title"
        assert cell.attributes["role"] == "cell"
    labels = [cell.attributes["data-label"] for cell in found.all("td")]
    assert {"RTT × control", "TCP × baseline", "× control, interval"} <= set(labels)
    assert {e.attributes.get("scope") for e in found.all("th")} == {"row", "col"}


# --------------------------------------------------------------------------------------- contents


@pytest.mark.parametrize("name", NAMES)
def test_the_verdict_comes_first_and_every_claim_is_there(name: str) -> None:
    told, found = sample(name), rendered(name)
    (heading,) = found.all("h1")
    before = found.text.partition(heading.text)[0]
    assert re.fullmatch(
        r"Skip to the resultsCross-host container networking · [\d :-]+ UTC[✓✗–]", before
    )
    entries = [e for e in found.all("li") if (e.attributes.get("class") in ("holds", "broken"))]
    assert len(entries) == len(told.claims)
    for claim, entry in zip(told.claims, entries, strict=True):
        words = " ".join(entry.text.replace("`", "").split())
        for part in (claim.text, claim.expected, claim.observed, claim.evidence):
            assert " ".join(part.replace("`", "").split()) in words
        assert entry.text.startswith("✓holds: " if claim.holds else "✗FAILED: ")
    opened = [e for e in found.all("details") if "open" in e.attributes]
    assert len(opened) == sum(not claim.holds for claim in told.claims)


def test_a_method_is_shown_with_its_proof_figures_notes_and_data() -> None:
    found = rendered("ovs-gre")
    for said in (
        "Claims: 3 of 3 hold",
        "The path is proved",
        "✓ gre 20/20",
        "✓ gre0 cut: stops; healed: back",
        "38 bytes a packet",
        "1462 bytes",
        "3 other packets on the link",
        "openvswitch is not live in this kernel: OVS uses its userspace datapath",
        "6.12.0",
        "made up for tests: nothing was measured",
        "How it was measured",
    ):
        assert said in found.text
    assert "../1/raw/path.pcap" in found.attributes("href")
    assert "../1/run.json" in found.attributes("href")


def test_raw_files_are_linked_and_no_other_file() -> None:
    told = sample("bridge")
    (first, *others) = told.measurements
    listed = ["b1-r1-ping.txt", "../run.json", "/etc/passwd", "a b.txt", 7, "-x", ".hidden"]
    first = replace(first, detail={"raw": listed})
    found = render(replace(told, measurements=(first, *others)))
    raw = [target for target in found.attributes("href") if "/raw/" in target]
    assert sorted(set(raw)) == ["../1/raw/b1-r1-ping.txt", "../1/raw/path.pcap"]


def test_a_failed_run_says_so_in_words_everywhere() -> None:
    found = rendered("bridge-failed", "ovs-gre-skipped")
    (heading,) = found.all("h1")
    assert heading.text == "bridge failed; 0 of 2 passed."
    assert "/dev/net/tun cannot be opened" in found.text
    assert "FAILED: no two containers have one address" in found.text
    assert "Nothing was proved of it." in found.text
    assert not [e for e in found.all("svg") if e.attributes["class"] == "chart"]
    assert "#figures" not in found.attributes("href"), "no link to charts that are not there"


def test_a_cross_leads_to_what_explains_it() -> None:
    found = rendered("bridge-failed", "ovs-gre")
    crosses = [e for e in found.all("a") if e.text.startswith("✗")]
    assert [(e.text, e.attributes["href"]) for e in crosses] == [("✗ 3/4", "#run-1-claims")]
    (why,) = (e for e in found.all("a") if e.text == "What shows it")
    assert why.attributes["href"] == "#run-1"
    told = sample("ovs-gre")
    assert told.path
    lost = replace(told, status="failed", path=replace(told.path, proved=False))
    crosses = [e for e in render(lost).all("a") if "NOT proved" in e.text]
    assert [e.attributes["href"] for e in crosses] == ["#run-1-path"]


def test_the_questions_of_a_class_are_answered_before_anything_else() -> None:
    found = rendered("bridge", "ovs-gre")
    asked = [e.text for e in found.all("dt") if "header" in e.inside]
    assert asked == [
        "Which is fastest here?",
        "Why?",
        "Does the tunnel carry the traffic?",
        "How sure is that?",
    ]
    assert found.text.index("How sure is that?") < found.text.index("Summary", 200)


def test_every_page_leads_to_which_method_to_use() -> None:
    assert f"../../{links.GUIDE}" in rendered("bridge").attributes("href")
    alone = replace(content.of_records({Path("x/run.json"): sample("bridge")}), linked=False)
    assert links.GUIDE in Page(html.of_results(alone, Path("/tmp"))).text
    targets = Page(html.of_results(alone, Path("/tmp"))).attributes("href")
    assert not [t for t in targets if links.GUIDE in t]


def test_udp_has_no_ratio_in_the_page() -> None:
    found = rendered("weave")
    cells: dict[str, list[str]] = {}
    row = ""
    for element in found.elements:
        if element.name == "th" and element.attributes.get("scope") == "row":
            row = element.text
        elif element.name == "td" and "×" in str(element.attributes["data-label"]):
            cells.setdefault(row, []).append(element.text)
    assert cells["UDP"] == cells["UDP loss"] == ["–"] * 4
    assert "–" not in cells["RTT"]
    assert "each was sent 90 % of what its own TCP carried, not the same: method 950 Mbit/s" in (
        found.text
    )


def test_kernel_and_userspace_are_never_in_one_table_or_one_panel() -> None:
    found = rendered("bridge", "ovs-gre")
    captions = [e.text for e in found.all("caption")]
    assert captions == ["kernel datapath", "userspace datapath"]
    assert "they are not ranked against each other" in found.text
    assert "ranked" not in rendered("bridge").text


def test_what_was_published_is_marked_as_that() -> None:
    found = rendered("bridge")
    assert "published by others, as context" in found.text
    assert "0.87–0.98 × the throughput, 1–1.2 × the latency of plain hosts was published" in (
        found.text
    )
    # Nothing was published on GRE in user space.
    assert "published" not in rendered("ovs-gre").text
    assert "Geneve, not GRE" in rendered("ovs-gre-kernel").text


def test_quotations_in_chinese_are_marked_as_such_and_code_as_code() -> None:
    told = sample("ovs-gre")
    (first, *others) = told.claims
    claim = replace(first, text="the route `via 1.2.3.4` and a lone ` of 无法")
    found = render(replace(told, claims=(claim, *others)))
    chinese = [e.text for e in found.elements if e.attributes.get("lang") == "zh"]
    assert "无法" in chinese
    assert "无法ping通" not in chinese, "ping is no Chinese"
    whole = replace(first, text="the route `via 1.2.3.4` bypasses it")
    assert "via 1.2.3.4" in [e.text for e in render(replace(told, claims=(whole,))).all("code")]


def test_text_out_of_a_record_stays_text() -> None:
    found = render(hostile(), sample("bridge"))
    for harmful in ("<script", "<img", "\x1b", "\x00", "\ufffe", "\u202e"):
        assert harmful in HOSTILE
        assert harmful not in found.source
    assert "alert(1)" in found.text
    targets = set(found.attributes("href")) - {f"../../{links.GUIDE}"}
    assert not [t for t in targets if "alert" in t or ".." in t.removeprefix("../")]


def test_records_that_hold_next_to_nothing_make_a_page() -> None:
    told = sample("bridge")
    bare = replace(
        told, claims=(), path=None, measurements=(), events=(), parameters={}, started_at=""
    )
    assert "None was checked." in render(bare).text
    odd = replace(
        bare, scenario="", parameters={"settings": None, "hosts": None, "duration_s": "x"}
    )
    assert render(odd, bare).all("h1")


@pytest.mark.parametrize("hosts", [2, 3, 1000])
def test_a_large_lab_is_shown_by_its_first_and_last_host(hosts: int) -> None:
    told = sample("bridge")
    many: RunRecord = replace(
        told, parameters={**told.parameters, "hosts": hosts, "containers": 250}
    )
    (picture,) = (e for e in render(many).all("svg") if e.attributes["class"] == "picture")
    assert "+ 248 more" in picture.text
    assert ("more host" in picture.text) == (hosts > 2)


def test_links_to_records_hold_for_odd_names() -> None:
    file = Path("/tmp/of some one/a#b?c%/run.json")
    found = Page(html.of_results(content.of_records({file: sample("bridge")}), Path("/tmp/out")))
    assert "../of%20some%20one/a%23b%3Fc%25/run.json" in found.attributes("href")
