"""pytest's plugin: a lab for a test.

    @pytest.mark.xlab("ovs-gre", hosts=3, routes="underlay")
    def test_through_the_tunnel(lab):
        lab["h1/c1"].run("ping", "-c1", lab["h3/c1"].address)

Every pytest of an environment that has xlab imports this file: all else waits for the first test
that wants a lab.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xlab.outside.api import LabHandle

_fail = partial(pytest.fail, pytrace=False)
_EXAMPLE = '@pytest.mark.xlab("ovs-gre", hosts=3, routes="underlay")'


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "xlab(scenario, **options): the lab that the fixture `lab` is: a scenario's name, what "
        "xlab.lab() takes (hosts, containers, topo, delay_ms …) and the scenario's own options.",
    )


@pytest.fixture
def lab(
    request: pytest.FixtureRequest, xlab_lab: Callable[..., AbstractContextManager[LabHandle]]
) -> Iterator[LabHandle]:
    """The lab that the test's marker `xlab` asks for, as `xlab.lab()` gives it; for one test.

    Skips where this machine can't, and says why; fails where claims of the lab do not hold.
    """
    scenario, options = _asked(request)
    with xlab_lab(scenario, **options) as made:
        yield made


@pytest.fixture(scope="session")
def xlab_lab(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., AbstractContextManager[LabHandle]]:
    """`xlab_lab(scenario, **options)` is such a lab for a `with` block: for fixtures of any scope.

    The project's folder and those of `tmp_path` are visible in it.
    """
    return partial(_made, [pytestconfig.rootpath, tmp_path_factory.getbasetemp()])


@contextmanager
def _made(visible: list[Path], /, scenario: str, **options: Any) -> Iterator[LabHandle]:
    from xlab.errors import CapabilityError, ClaimError, UsageError
    from xlab.outside import api

    with ExitStack() as stack:
        try:
            known = _sorted_out(options)
            keep = [*visible, *known.pop("keep", ())]
            made = stack.enter_context(api.lab(scenario, keep=keep, **known))
        except CapabilityError as error:
            raise pytest.skip.Exception(f"xlab: {error}") from None
        except (UsageError, ClaimError, TypeError) as error:
            said = "".join(f", {name}={value!r}" for name, value in options.items())
            message = f"xlab: lab({scenario!r}{said}): {error}"
            raise pytest.fail.Exception(message, pytrace=False) from None
        yield made


def _sorted_out(options: Mapping[str, Any]) -> dict[str, Any]:
    """What `xlab.lab()` takes by name; whatever it does not know is the scenario's own."""
    import inspect

    from xlab.outside import api

    parameters = inspect.signature(api.lab).parameters
    known = {name: value for name, value in options.items() if name in parameters}
    own = {name: value for name, value in options.items() if name not in parameters}
    return {**known, "settings": {**known.get("settings", {}), **own}}


def _asked(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Scenario and options, of the closest marker or an indirect parameter.

    A parameter is a scenario's name, or options in addition to the marker's.
    """
    marker = request.node.get_closest_marker("xlab")
    parameter = getattr(request, "param", None)
    scenarios = list(marker.args) if marker else []
    options = dict(marker.kwargs) if marker else {}
    if isinstance(parameter, str):
        scenarios = [parameter]
    elif isinstance(parameter, Mapping):
        options.update(parameter)
    elif parameter is not None:
        _fail(f"xlab: a parameter of `lab` is a scenario's name or options, not {parameter!r}")
    if not scenarios:
        name = request.node.name
        _fail(f"xlab: {name} asks for a lab and does not say which: mark it {_EXAMPLE}")
    if len(scenarios) > 1 or not isinstance(scenarios[0], str):
        given = ", ".join(map(repr, scenarios))
        _fail(
            f"xlab: the marker takes one scenario, and options by name, as in {_EXAMPLE}; "
            f"not ({given})"
        )
    return scenarios[0], options
