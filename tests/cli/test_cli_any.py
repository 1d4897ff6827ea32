"""Any words on the command line are a job, or wrong usage that is told: never a traceback.

No job is done here: `_main` is asked what the words mean, and then the command, where it makes more
sense of them before it does anything.  The words are those of the commands there are, whatever they
are, and what people put beside them.
"""

from __future__ import annotations

import io
import sys
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from functools import partial
from typing import Any
from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fuzzing import attempt
from xlab.cli._app import Settings, program
from xlab.cli._main import understood
from xlab.errors import UsageError

PROGRAM: Any = program()
OPTIONS = {
    name: sorted(option for each in command.params for option in each.opts if option[0] == "-")
    for name, command in PROGRAM.commands.items()
}
VALUES = st.one_of(
    st.sampled_from(
        ["2", "0", "-1", "10ms", "1gbit", "1%", "nan", "inf", "1e400", "9" * 400, "9" * 5000, "",
         "all", "bridge", "weave:datapath=fastdp", "bridge:mtu=9000,delay=1ms", "bridge:", ":", ",",
         "h1", "--", "x=1", "=", "x=", "single,3", "tree,depth=2,fanout=2", "results", "h1 | h2",
         "9" * 5000 + "ms", "x" * 5000, "a.html", "link", "down", "\udcff", "\x1b[2J", "x" * 300]
    ),
    st.text(st.characters(exclude_characters="\0"), max_size=6),
    st.integers().map(str),
)  # fmt: skip

#: What is not done here, of commands that first make more sense of the words than typer does.
DOING = {
    "run": ["xlab.cli.run._run"],
    "up": ["xlab.cli.up._up"],
    "script": ["xlab.outside.script.write"],
    "compare": [
        "xlab.experiments.compare.journal.Journal.go_on",
        "xlab.experiments.compare.methods.choose",
    ],
    "scale": ["xlab.experiments.scale.ScalePlan"],
    "sweep": [
        "xlab.experiments.sweep.spec.load",
        "xlab.experiments.sweep.outcome.Folder.go_on",
    ],
    "report": ["xlab.cli.report._report"],
    "graph": ["xlab.outside.running_lab.find"],
}


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    name = draw(st.sampled_from(sorted(OPTIONS)))
    words = draw(
        st.lists(st.one_of(VALUES, st.sampled_from(OPTIONS[name] or ["--help"])), max_size=8)
    )
    return [name, *words]


def meaning(words: list[str]) -> object:
    """A job, or an exit status."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        job = understood(words, Settings())
        doing = DOING.get(job.func.__name__, ()) if isinstance(job, partial) else ()
        with ExitStack() as patches:
            for each in doing:
                patches.enter_context(mock.patch(each, side_effect=UsageError("understood")))
            return job() if doing and callable(job) else job


@given(command_lines())
@example(["run", "bridge", "--hosts", "9" * 400])
@example(["run", "bridge", "--hosts", "9" * 5000])
@example(["run", "bridge", "--duration", "nan"])
@example(["run", "bridge", "--loss", "9" * 400])
@example(["run", "bridge", "--loss", "9" * 5000])
@example(["run", "bridge", "--delay", "9" * 5000])
@example(["run", "bridge", "--jitter", "9" * 5000 + "ms"])
@example(["run", "bridge", "--rate", "9" * 5000])
@example(["run", "x" * 5000])
@example(["run", "bridge", "--set", "x" * 300])
@example(["run", "\udcff", "--topo", "\udcff"])
@example(["scale", "bridge", "--hosts", "9" * 5000])
@example(["compare", "bridge:" + "x" * 5000])
@example(["compare", "bridge:mtu=" + "9" * 5000])
def test_any_words_are_a_job_or_wrong_usage(words: list[str]) -> None:
    asked = attempt(lambda: meaning(words), UsageError)
    assert callable(asked) or isinstance(asked, int | str)


@given(st.lists(VALUES, max_size=4))
def test_words_that_begin_with_no_command_are_wrong_usage_or_help(words: list[str]) -> None:
    words = [word for word in words if word not in OPTIONS]
    asked = attempt(lambda: meaning(words), UsageError)
    assert callable(asked) or isinstance(asked, int | str)
    assert sys.stdout is not None
