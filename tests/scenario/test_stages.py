"""Stages of a build: what scenarios say of them, and how one is named."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from xlab.errors import UsageError
from xlab.scenario import catalog, scenario


def called(file: Path, *, by_judge: bool = False) -> list[str]:
    """The stages that a scenario file calls, in the order in which they stand there.

    Those of what builds, or `by_judge` those of what judges a lab that was typed.
    """
    functions = [node for node in ast.parse(file.read_text()).body
                 if isinstance(node, ast.FunctionDef)]  # fmt: skip
    read = [each for each in functions if each.name.startswith("judge") == by_judge]
    calls = [node for each in read for node in ast.walk(each) if isinstance(node, ast.Call)]
    found = [
        (call.lineno, call.args[0].value)
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr == "stage"
        and isinstance(call.args[0], ast.Constant)
    ]
    return [str(name) for _, name in sorted(found)]


@pytest.mark.parametrize("name", catalog.names())
def test_a_scenario_names_the_stages_it_goes_through(name: str) -> None:
    file = catalog.find(name)
    loaded = scenario.load(file)
    assert list(loaded.stages) == called(file)
    assert loaded.stages[0] == "hosts"


@pytest.mark.parametrize("name", catalog.names())
def test_what_is_typed_is_judged_by_stages_of_the_same_names_and_order(name: str) -> None:
    file = catalog.find(name)
    loaded, judged = scenario.load(file), called(file, by_judge=True)
    assert loaded.judge is not None
    assert judged == [stage for stage in loaded.stages if stage in judged]
    assert judged[0] == "hosts"


@pytest.fixture
def ovs_gre() -> scenario.Scenario:
    return scenario.load(catalog.find("ovs-gre"))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("hosts", "hosts"),
        ("before", "before the route"),
        ("NOTES", "with the notes' route"),
        ("with the notes' route", "with the notes' route"),
        ("tunnel", "with the route through the tunnel"),
    ],
)
def test_a_part_of_its_name_will_do(ovs_gre: scenario.Scenario, text: str, meant: str) -> None:
    assert ovs_gre.stage(text) == meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("route", "'route' is more than one stage of ovs-gre: 'before the route', "),
        ("docker", "'docker' is no stage of ovs-gre: 'hosts', 'before the route', "),
    ],
)
def test_what_is_none_or_many_is_refused(ovs_gre: scenario.Scenario, text: str, said: str) -> None:
    with pytest.raises(UsageError) as met:
        ovs_gre.stage(text)
    assert str(met.value).startswith(said)
