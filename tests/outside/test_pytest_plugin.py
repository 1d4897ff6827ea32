"""The pytest plugin as another project meets it.

The labs in most of these stories are of hosts on a switch, and nothing else.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.labs import PATIENCE_S, ROOT

pytest_plugins = ["pytester"]

#: Not twice where xlab is installed in this environment.
_ARGUMENTS = (
    "-p",
    "no:xlab",
    "-p",
    "xlab.outside.pytest_plugin",
    "-p",
    "no:cacheprovider",
    "-W",
    "error",
)


def outcome(pytester: pytest.Pytester, text: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(text)
    return pytester.runpytest_inprocess(*_ARGUMENTS, "--strict-markers", "-rs", *arguments)


@pytest.mark.sandbox
def test_a_test_has_the_lab_that_its_marker_asks_for(pytester: pytest.Pytester) -> None:
    told = outcome(
        pytester,
        """
        import pytest

        @pytest.mark.xlab("baseline", hosts=3, until="Docker as it comes")
        def test_marked(lab, tmp_path):
            assert [host.name for host in lab.hosts] == ["h1", "h2", "h3"]
            (tmp_path / "told").write_text("from outside")
            assert lab["h1/c1"].run("cat", tmp_path / "told").stdout == "from outside"
            lab["h1"].run("ping", "-c1", lab["h3"].address)

        @pytest.mark.xlab("ovs-gre", empty=True)
        class TestClosest:
            @pytest.mark.parametrize("lab", [{"hosts": 4}], indirect=True)
            def test_with_a_parameter(self, lab):
                assert (len(lab.hosts), lab.claims) == (4, ())

            @pytest.mark.xlab("bridge", empty=True, docker=28, settings={"fixed-cidr": "notes"})
            def test_of_its_own(self, lab):
                assert lab.datapath == "linux bridge"

        @pytest.fixture(scope="module")
        def shared(xlab_lab):
            with xlab_lab("baseline", empty=True) as lab:
                yield lab

        def test_shared(shared):
            shared["h1"].run("touch", "/tmp/seen")

        def test_still_shared(shared):
            shared["h1"].run("ls", "/tmp/seen")

        def test_fails(shared):
            shared["h1"].run("false")
        """,
    )
    told.assert_outcomes(passed=5, failed=1)
    told.stdout.fnmatch_lines(["*CommandError: h1: `false` ended with status 1*"])


@pytest.mark.sandbox
def test_a_lab_for_each_scenario_named_as_a_parameter(pytester: pytest.Pytester) -> None:
    told = outcome(
        pytester,
        """
        import pytest

        @pytest.mark.parametrize("lab", ["baseline", "bridge"], indirect=True)
        @pytest.mark.xlab("weave", empty=True)
        def test_each(lab):
            assert lab.datapath == "linux bridge", "the marker's has a router"
        """,
        "-v",
    )
    told.assert_outcomes(passed=2)
    told.stdout.fnmatch_lines(["*test_each?baseline? PASSED*", "*test_each?bridge? PASSED*"])


def test_where_the_machine_can_not_a_test_is_skipped_and_says_why(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The lab process is a process of its own: it loads this with the scenario.
    (pytester.path / "impossible.py").write_text(
        """
import xlab.scenario.blueprint
from scenarios.baseline import SCENARIO
from xlab.errors import CapabilityError

def equip(*_):
    raise CapabilityError("no veth here", "sudo modprobe veth")

xlab.scenario.blueprint.equip = equip
"""
    )
    monkeypatch.syspath_prepend(ROOT)
    told = outcome(
        pytester,
        """
        import pytest

        @pytest.mark.xlab("./impossible.py")
        def test_it(lab):
            pass
        """,
    )
    told.assert_outcomes(skipped=1)
    told.stdout.fnmatch_lines(["SKIPPED*: xlab: no veth here; sudo modprobe veth"])


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("", "xlab: test_it asks for a lab and does not say which: mark it @pytest.mark.xlab(*"),
        ("@pytest.mark.xlab(hosts=3)", "xlab: test_it asks for a lab and does not say which: *"),
        ("@pytest.mark.xlab('bridge', 'weave')", "xlab: the marker takes one scenario*weave*"),
        ("@pytest.mark.xlab(5)", "xlab: the marker takes one scenario*(5)"),
        ("@pytest.mark.xlab('brigde')", "xlab: lab('brigde'):*bridge*"),
        ("@pytest.mark.xlab('bridge', hosts=1)", "xlab: lab('bridge', hosts=1): --hosts is 1; *"),
        ("@pytest.mark.xlab('bridge', hots=3)", "*: bridge has no option 'hots'; it has: fixed-*"),
        (
            "@pytest.mark.xlab('ovs-gre', routes='up')",
            "*: routes=up: one of tunnel, underlay is wanted",
        ),
        ("@pytest.mark.xlab('bridge', topo='single,2', hosts=2)", "*: topo says how many hosts*"),
        (
            "@pytest.mark.parametrize('lab', [3], indirect=True)",
            "xlab: a parameter of `lab` is a scenario's name or options, not 3",
        ),
    ],
)
def test_wrong_usage_is_told_in_a_line(pytester: pytest.Pytester, marker: str, said: str) -> None:
    told = outcome(pytester, f"import pytest\n{marker}\ndef test_it(lab):\n    pass\n")
    told.assert_outcomes(errors=1)
    told.stdout.fnmatch_lines([said])
    told.stdout.no_fnmatch_line("*Traceback*")
    told.stdout.no_fnmatch_line("*.py:[0-9]*")


@pytest.mark.sandbox
def test_a_lab_whose_claims_do_not_hold_is_an_error_unless_wanted(
    pytester: pytest.Pytester,
) -> None:
    (pytester.path / "wrong.py").write_text(_WRONG)
    told = outcome(
        pytester,
        """
        import pytest

        @pytest.mark.xlab("./wrong.py", until="later")
        def test_never(lab):
            pass

        @pytest.mark.xlab("./wrong.py", until="later", check=False)
        def test_it(lab):
            assert [claim.holds for claim in lab.claims] == [False]
        """,
    )
    told.assert_outcomes(passed=1, errors=1)
    told.stdout.fnmatch_lines(
        ["xlab: lab('./wrong.py', until='later'): *: 0 of 1 claims hold", "  two is three: *3*2*"]
    )


_WRONG = """
from xlab.scenario.scenario import Scenario

def build(lab, plan, size, settings, check):
    check.stage("now")
    check.equal("two", "two is three", expected=3, observed=2)
    check.stage("later")

SCENARIO = Scenario("wrong", "never right", (), lambda *_: None, build)
"""


def test_an_installed_xlab_brings_the_plugin_and_imports_nothing_for_it(tmp_path: Path) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    installed = tmp_path / "xlab-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: xlab\nVersion: 0\n")
    (installed / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in names.items())
            for group, names in declared.items()
        )
    )
    (tmp_path / "conftest.py").write_text(
        """
import sys
def pytest_unconfigure():
    names = sorted(name for name in sys.modules if name.split(".")[0] == "xlab")
    print("imported:", *names)
"""
    )
    told = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "--markers", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PYTEST_PLUGINS": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert "@pytest.mark.xlab(scenario, **options): the lab that " in told.stdout
    assert told.stdout.splitlines()[-1] == (
        "imported: xlab xlab.lab xlab.outside xlab.outside.pytest_plugin "
        "xlab.record xlab.record.version"
    )
