"""Names and files of scenarios, in a checkout and in a wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlab.errors import UsageError, XlabError
from xlab.kernel import shipped
from xlab.scenario import catalog

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder of its own, without scenarios yet."""
    package = tmp_path / "site-packages" / "xlab"
    package.mkdir(parents=True)
    monkeypatch.setattr(shipped, "PACKAGE", package)
    return package


def make(folder: Path, *files: str) -> None:
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).touch()


def test_the_order_is_that_which_the_files_declare_and_private_ones_are_left_out(
    installed: Path,
) -> None:
    make(installed / "scenarios", "weave.py", "ovs_gre.py", "_help.py", "vxlan.py", "baseline.py")
    for number, name in enumerate(("baseline", "ovs_gre", "weave")):
        declared = f"raise SystemExit\nSCENARIO = Scenario(order={number}, plan=plan)\n"
        (installed / "scenarios" / f"{name}.py").write_text(declared)
    assert catalog.names() == ["baseline", "ovs-gre", "weave", "vxlan"]
    assert catalog.find("ovs-gre") == installed / "scenarios" / "ovs_gre.py"


def test_a_checkout_has_its_scenarios_beside_the_package(installed: Path) -> None:
    make(installed.parent / "scenarios", "bridge.py")
    assert catalog.folders() == (installed.parent / "scenarios", installed.parent / "labs")
    assert catalog.names() == ["bridge"]


def test_a_wheel_prefers_its_own_scenarios_to_a_folder_that_happens_to_lie_beside_it(
    installed: Path,
) -> None:
    make(installed / "scenarios", "bridge.py")
    make(installed.parent / "scenarios", "somebody_elses.py")
    assert catalog.names() == ["bridge"]


def test_an_installation_without_scenarios_says_so(installed: Path) -> None:
    with pytest.raises(XlabError, match="missing from this installation"):
        catalog.names()


def test_looking_for_scenarios_does_not_run_them(installed: Path) -> None:
    make(installed / "scenarios")
    (installed / "scenarios" / "broken.py").write_text("this is not Python")
    assert catalog.names() == ["broken"]
    assert catalog.find("broken").name == "broken.py"


@pytest.mark.parametrize("wrong", ["ovsgre", "OVS-GRE", "ovs_gre"])
def test_a_wrong_name_lists_the_right_ones_and_the_nearest(installed: Path, wrong: str) -> None:
    make(installed / "scenarios", "baseline.py", "bridge.py", "ovs_gre.py")
    with pytest.raises(UsageError) as caught:
        catalog.find(wrong)
    assert "there are baseline, bridge, ovs-gre" in str(caught.value)
    assert "did you mean ovs-gre?" in str(caught.value)


def test_a_name_like_no_other_gets_no_guess(installed: Path) -> None:
    make(installed / "scenarios", "baseline.py", "bridge.py")
    with pytest.raises(UsageError) as caught:
        catalog.find("zzz")
    assert "did you mean" not in str(caught.value)


def test_a_path_is_taken_as_it_is(installed: Path, tmp_path: Path) -> None:
    make(installed / "scenarios", "bridge.py")
    own = tmp_path / "bridge.py"
    own.touch()
    assert catalog.find(str(own)) == own


def test_a_missing_path_is_wrong_usage(installed: Path, tmp_path: Path) -> None:
    make(installed / "scenarios", "bridge.py")
    with pytest.raises(UsageError, match="no such scenario file"):
        catalog.find(str(tmp_path / "gone.py"))
    with pytest.raises(UsageError, match=r"must end in \.py"):
        catalog.find(str(tmp_path))


def test_this_checkout_offers_each_of_its_scenario_files() -> None:
    files = {file.name for file in (CHECKOUT / "scenarios").glob("[!_]*.py")}
    assert files, "the checkout has scenarios"
    assert {catalog.find(name).name for name in catalog.names()} == files
