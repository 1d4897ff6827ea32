"""A scenario is added by adding its file: what it declares is found wherever it counts."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from tests.support.records import sample
from tests.support.reports import Page
from xlab import cli
from xlab.cli import _findings as doctor
from xlab.cli import _options as options
from xlab.experiments.compare import methods
from xlab.experiments.recorder import Recorder
from xlab.record import record
from xlab.record.record import PathProof, RunRecord, UnderlayPackets
from xlab.report import content
from xlab.report.forms import html, markdown
from xlab.scenario import blueprint, catalog, scenario
from xlab.scenario.request import Request

GENEVE = """
from xlab.scenario.scenario import Option, Part, Portrait, Published, Scenario

SCENARIO = Scenario(
    name="geneve",
    summary="Open vSwitch with a Geneve port",
    order=2,
    needs=("Open vSwitch",),
    variants=("port=7000",),
    options=(Option("port", "6081", "its UDP port"),),
    plan=lambda size, settings: None,
    build=lambda *_: None,
    portraits=(
        Portrait(
            "geneve",
            Part("brg"),
            (Part("gnv*", "Geneve port"),),
            published=Published("Geneve of others", (0.5, 0.6), None, "a paper"),
        ),
    ),
)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of scenarios/ with one more file, which every part of xlab takes for its own."""
    copied = tmp_path / "scenarios"
    shutil.copytree(catalog.folders()[0], copied)
    (copied / "geneve.py").write_text(GENEVE)
    monkeypatch.setattr(catalog, "folders", lambda: (copied, tmp_path / "labs"))
    return copied


def finished(request: Request) -> RunRecord:
    """A record of it as a run writes it, with figures of another and a path in Geneve."""
    recorder = Recorder(blueprint.design(request))
    packets = UnderlayPackets(geneve=20)
    recorder.path = PathProof("geneve", packets, True, True, 50, 1450, packets_sent=20)
    recorder.measurements += sample("bridge").measurements
    written = json.loads(json.dumps(recorder.record("passed", "").to_dict()))
    return record.from_dict(written)


def test_it_is_listed_and_completed_where_it_says(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["list", "--json"]) == 0
    listed = [entry["name"] for entry in json.loads(capsys.readouterr().out)]
    # Of two in one place, the first by name.
    assert listed == ["baseline", "bridge", "geneve", "ovs-gre", "weave"]
    assert options.complete_scenario() == ["all", *listed]
    (folder / "geneve.py").write_text(GENEVE.replace("order=2", "order=0"))
    assert catalog.names()[0] == "geneve"


@pytest.mark.parametrize("name", ["baseline", "bridge", "ovs-gre", "weave"])
def test_what_is_read_out_of_a_file_is_what_it_says_when_it_runs(name: str) -> None:
    declared, loaded = catalog.declared(name), scenario.load(catalog.find(name))
    assert (declared["order"], declared.get("needs", ())) == (loaded.order, loaded.needs)


@pytest.mark.usefixtures("folder")
def test_all_of_a_comparison_has_its_variants() -> None:
    chosen = [each.name for each in methods.choose(["all"], Request("all"), {})]
    at = chosen.index("geneve")
    assert chosen[at : at + 2] == ["geneve", "geneve:port=7000"]


def test_doctor_names_it_beside_what_it_needs(folder: Path) -> None:
    needed = {finding.name: finding.needed_for for finding in doctor.findings()}
    assert needed["Open vSwitch"] == "geneve, ovs-gre"
    assert needed["masquerading"] == "bridge, ovs-gre"
    (folder / "geneve.py").write_text(GENEVE.replace('("Open vSwitch",)', "1/0"))
    assert "geneve" not in "".join(finding.needed_for for finding in doctor.findings())


@pytest.mark.parametrize("from_a_path", [False, True])
def test_a_report_has_its_picture_and_what_others_measured(folder: Path, from_a_path: bool) -> None:
    name = str(folder / "geneve.py") if from_a_path else "geneve"
    told = finished(Request(name, hosts=4, containers=1))
    # A report needs no scenario: this one may be anywhere by now.
    (folder / "geneve.py").unlink()
    found = content.of_records({Path("x/run.json"): told})
    page = Page(html.of_results(found, Path()))
    assert "0.5–0.6 × the throughput of plain hosts was published for Geneve of others" in page.text
    assert "h1/c1 → brg → gnv0 … 2 → eth0" in page.text
    assert "h1/c1 → brg → gnv0 … 2 → eth0" in markdown.of_results(found, Path())


def test_an_old_record_has_what_its_scenario_says_today(folder: Path) -> None:
    told = dataclasses.replace(finished(Request("geneve")), portrait=None)
    found = content.of_records({Path("x/run.json"): told})
    assert "brg" in html.of_results(found, Path())
    # Whose scenario is no more is told without, and no file is run because a record names it.
    ran = folder / "ran"
    stranger = folder.parent / "stranger.py"
    stranger.write_text(f"open({str(ran)!r}, 'w')\n{GENEVE}")
    for name in ("no-more", str(stranger)):
        told = dataclasses.replace(told, scenario=name)
        found = content.of_records({Path("x/run.json"): told})
        assert "brg" not in html.of_results(found, Path())
    assert not ran.exists()
