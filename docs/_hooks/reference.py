"""The reference, made from the code: nothing in it is written twice.

Commands and options come from the command line itself, fields and their meaning from the
dataclasses that are written as JSON (`#:` above a field says what it holds), metrics from their
table, the Python API from signatures and docstrings.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import html
import inspect
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

# A hook is a file that MkDocs executes; xlab is found even where nobody has installed it.
if (_root := str(Path(__file__).resolve().parents[2])) not in sys.path:
    sys.path.insert(0, _root)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, made in PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content=made()))
    return files


def _table(head: tuple[str, ...], rows: typing.Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"
    yield ""


def _cell(text: str) -> str:
    """A bar would end it, and in backticks nothing can stand for one."""
    if "|" not in text:
        return text
    coded = re.sub(r"`([^`]*)`", lambda match: f"<code>{html.escape(match[1])}</code>", text)
    return coded.replace("|", "&#124;")


def _joined(text: str) -> str:
    return " ".join(text.split())


# -- commands --------------------------------------------------------------------------------------


def commands() -> str:
    from xlab.cli._app import program

    app = program()
    told = ["# Commands", "", _joined(app.help), ""]
    told += [
        (
            "Every command that prints facts has `--json`: JSON alone on stdout, everything else "
            "on stderr. `xlab COMMAND --help` shows what stands here."
        ),
        "",
        str(_joined(app.epilog)),
        "",
    ]
    told += _commands(app, (), but=app.epilog)
    return "\n".join(told)


def _commands(group: Any, above: tuple[str, ...], *, but: str) -> Iterator[str]:
    """The commands of a group in the order of its help, below a heading for each of its panels."""
    import typer

    panel = None
    for name in group.list_commands(typer.Context(group)):
        command = group.commands[name]
        if getattr(command, "hidden", False):
            continue
        found = getattr(command, "rich_help_panel", None)
        if not above and isinstance(found, str) and found != panel:
            panel = found
            yield f"## {panel}\n"
        yield from _command((*above, name), command, depth=3 if panel else 2, but=but)
        if hasattr(command, "commands"):
            inner = _commands(command, (*above, name), but=but)
            yield from (re.sub(r"^##", "###", line) if panel else line for line in inner)


def _command(words: tuple[str, ...], command: Any, *, depth: int, but: str) -> Iterator[str]:
    import typer

    # Of a form of its own, and imported under several names: any context of typer's will do.
    context = typer.Context(command, info_name=" ".join(["xlab", *words]))
    records = [
        record
        for parameter in command.get_params(context)
        if (record := parameter.get_help_record(context)) and "--help" not in record[0]
    ]
    yield f"{'#' * (depth + len(words) - 1)} xlab {' '.join(words)}"
    yield ""
    yield from _paragraphs(command.help or "")
    yield "```\n" + _joined(command.get_usage(context).removeprefix("Usage: ")) + "\n```\n"
    for names, about in records:
        yield f"`{names}`"
        yield f":   {_plain(_joined(about)) or '…'}"
        yield ""
    if command.epilog and command.epilog != but:
        yield from _paragraphs(command.epilog)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        # click keeps the lines of a paragraph that begins so.
        if paragraph.startswith("\b"):
            yield f"```\n{paragraph[1:].strip()}\n```\n"
        else:
            yield f"{_plain(_joined(paragraph))}\n"


def _plain(text: str) -> str:
    """What a terminal shows, for Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", text).replace("\\<", "&lt;")


# -- scenarios -------------------------------------------------------------------------------------


def scenarios() -> str:
    from xlab.probes.catalog import ALL, USUAL
    from xlab.scenario import catalog, scenario

    told = [
        "# Scenarios and probes",
        "",
        (
            "What `xlab list` shows: the methods that can be built, the options each takes as "
            "`--set NAME=VALUE`, the stages at which `xlab up --until STAGE` stops, and what is "
            "measured."
        ),
        "",
    ]
    for name in catalog.names():
        file = catalog.find(name)
        loaded = scenario.load(file)
        source = f"[scenarios/{file.name}](../../scenarios/{file.name})"
        told += [f"## {name}", "", f"{_plain(loaded.summary)}. File: {source}.", ""]
        for option in loaded.options:
            values = "|".join(option.choices or ()) or "VALUE"
            default = f" Default: {option.default}." if option.default else ""
            told += [f"`--set {option.name}={values}`", f":   {_plain(option.help)}.{default}", ""]
        told += [f"Stages: {', '.join(loaded.stages)}.", ""]
    told += ["## Probes", "", "Measured in every run:", ""]
    told += _table(("probe", "measures"), [(f"`{n}`", _plain(ALL[n].about)) for n in USUAL])
    told += ["If asked for, by `--probe NAME`, or all by `--probe all`:", ""]
    others = [(f"`{n}`", _plain(p.about)) for n, p in ALL.items() if n not in USUAL]
    told += _table(("probe", "measures"), others)
    return "\n".join(told)


# -- the record ------------------------------------------------------------------------------------

_SCALARS = {str: "text", int: "integer", float: "number", bool: "true or false", Any: "anything"}


def record() -> str:
    from xlab.experiments.sweep import outcome
    from xlab.record import comparisons
    from xlab.record import record as run

    told = [
        "# The run record",
        "",
        (
            "Each run writes `run.json`, each comparison `compare.json` and a run record for each "
            "method and build, each sweep `sweep.json`. Fields are added, never renamed or "
            "removed; a figure that is absent is `null`, never zero. The same names hold for "
            "`--json`."
        ),
        "",
    ]
    seen: set[type] = set()
    for name, kind in (
        ("run.json", run.RunRecord),
        ("compare.json", comparisons.Comparison),
        ("sweep.json", outcome.Sweep),
    ):
        told += [f"## {name}", ""]
        told += _object(kind, seen, about=_about(kind))
    return "\n".join(told)


def _object(kind: type, seen: set[type], *, about: str) -> Iterator[str]:
    seen.add(kind)
    hints = typing.get_type_hints(kind)
    comments = field_comments(kind)
    if about:
        yield f"{about}\n"
    rows = []
    inner: list[type] = []
    for field in dataclasses.fields(kind):
        words, found = _shape(hints[field.name])
        inner += [each for each in found if each not in seen and each not in inner]
        rows.append((f"`{field.name}`", words, comments.get(field.name, "")))
    yield from _table(("field", "is", "which is"), rows)
    for each in inner:
        if each not in seen:
            yield f"### {each.__name__}\n"
            yield from _object(each, seen, about=_about(each))


def _about(kind: type) -> str:
    """Its docstring; of a dataclass without one Python makes its signature."""
    text = inspect.cleandoc(kind.__doc__ or "")
    return "" if text.startswith(f"{kind.__name__}(") else _prose(text)


def _shape(hint: Any) -> tuple[str, list[type]]:
    """A type in words, and the dataclasses in it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _SCALARS:
        return _SCALARS[hint], []
    if dataclasses.is_dataclass(hint):
        name = typing.cast(type, hint).__name__
        return f"[{name}](#{name.lower()})", [typing.cast(type, hint)]
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments), []
    if origin in (typing.Union, types.UnionType):
        found = [_shape(each) for each in arguments if each is not types.NoneType]
        said = [each for each, _ in found] + ["null"] * (types.NoneType in arguments)
        return ", or ".join(said), [kind for _, kinds in found for kind in kinds]
    if origin is tuple and arguments[-1] is not Ellipsis:
        words, kinds = _shape(arguments[0])
        return f"{len(arguments)} × {words}", kinds
    if origin is tuple:
        words, kinds = _shape(arguments[0])
        return f"list of {words}", kinds
    if origin is dict:
        words, kinds = _shape(arguments[1])
        return f"by name: {words}", kinds
    return str(getattr(hint, "__name__", hint)), []


@functools.cache
def _tree(file: str) -> tuple[ast.Module, list[str]]:
    text = Path(file).read_text(encoding="utf-8")
    return ast.parse(text), text.splitlines()


def field_comments(kind: type) -> dict[str, str]:
    """What stands above each field, in lines that begin with `#:`."""
    tree, lines = _tree(inspect.getsourcefile(kind) or "")
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.ClassDef) and node.name == kind.__name__):
            continue
        for each in ast.walk(node):
            if not isinstance(each, ast.Assign | ast.AnnAssign):
                continue
            target = each.targets[0] if isinstance(each, ast.Assign) else each.target
            name = getattr(target, "id", getattr(target, "attr", None))
            if name and (comment := _comment_above(lines, each.lineno)):
                found[name] = comment
    return found


def _comment_above(lines: list[str], number: int) -> str:
    said: list[str] = []
    for line in reversed(lines[: number - 1]):
        if not line.strip().startswith("#:"):
            break
        said.insert(0, line.strip()[2:].strip())
    return _prose(" ".join(said))


def _prose(text: str) -> str:
    """A comment or docstring as Markdown: what is code in it has its backticks."""
    return re.sub(r"(?<![\w`])<(?=\w)", "&lt;", text)


# -- metrics ---------------------------------------------------------------------------------------


def metrics() -> str:
    from xlab.record import metrics as of_record

    told = [
        "# Metrics",
        "",
        (
            "Every metric by the name it has in records, with the unit in the name. *Ratios*: "
            "whether a method's figure is set in proportion to plain hosts'. *Gate*: how much "
            "worse than the baseline's a ratio may be in `xlab check`, where the baseline file "
            "says nothing else; *exact* is what must not change at all."
        ),
        "",
    ]
    rows = [
        (
            f"`{_family(row.name)}`",
            row.label.format("N"),
            "higher" if row.higher_is_better else "lower",
            "yes" if row.has_ratios else "no",
            "exact" if row.counted else f"{row.tolerance:.0%}" if row.has_ratios else "–",
            ", ".join(chart.title for chart in row.charts) or "–",
        )
        for row in of_record.TABLE
    ]
    told += _table(("metric", "shown as", "better", "ratios", "gate", "charts of its own"), rows)
    told += [
        "## Units",
        "",
        "Figures are shown in the largest unit in which they are at least 1.",
        "",
    ]
    units = [
        (f"`…{ending}`", ", ".join(unit for _, unit in units))
        for ending, units in of_record._SHOWN_IN
    ]
    told += _table(("name ends in", "shown in"), units)
    return "\n".join(told)


def _family(pattern: str) -> str:
    """A metric's name; of a family, with N in the place of what differs."""
    return re.sub(r"\(.*?\)", "N", pattern)


# -- the Python API --------------------------------------------------------------------------------


def api() -> str:
    from xlab import errors
    from xlab.kernel.processes import Completed
    from xlab.outside import api as of_python
    from xlab.outside import pytest_plugin
    from xlab.outside.asking import Status

    told = ["# The Python API", "", "How it is used is in [Labs in Python](../python.md).", ""]
    told += ["## xlab.lab", "", *_callable(of_python.lab, "xlab.lab")]
    for kind in (of_python.LabHandle, of_python.NodeHandle, of_python.Faults, Status, Completed):
        told += _class(kind)
    told += [
        "## Errors",
        "",
        "All are in `xlab.errors`; a command ends with their exit status.",
        "",
    ]
    raised = [each for each in vars(errors).values() if _is_error(each, errors.XlabError)]
    rows = [(f"`{e.__name__}`", str(e.exit_status), _joined(e.__doc__ or "")) for e in raised]
    told += _table(("error", "exit status", "means"), rows)
    told += ["## pytest", "", _docstring(pytest_plugin)]
    for name in ("lab", "xlab_lab"):
        fixture = getattr(pytest_plugin, name)
        made = getattr(fixture, "__wrapped__", None) or fixture._get_wrapped_function()
        told += [f"### The fixture `{name}`", "", _docstring(made), ""]
    return "\n".join(told)


def _is_error(value: object, base: type) -> bool:
    return isinstance(value, type) and issubclass(value, base)


def _class(kind: type) -> Iterator[str]:
    yield f"## {kind.__name__}\n"
    if about := _about(kind):
        yield f"{about}\n"
    comments = field_comments(kind)
    fields = [f for f in _fields(kind) if not f.startswith("_")]
    if fields:
        hints = _annotations(kind)
        yield from _table(
            ("attribute", "is", ""),
            [(f"`{f}`", f"`{hints[f]}`", comments.get(f, "")) for f in fields],
        )
    for name, member in vars(kind).items():
        if name.startswith("_") and name not in {
            "__getitem__",
            "__iter__",
            "__contains__",
            "__len__",
        }:
            continue
        if isinstance(member, property) and member.fget:
            returned = inspect.signature(member.fget).return_annotation
            yield f"### `{name}`\n"
            yield f"```python\n{kind.__name__}.{name}: {returned}\n```\n"
            yield _docstring(member.fget) + "\n"
        elif inspect.isfunction(member):
            yield f"### `{name}`\n"
            yield from _callable(member, f"{kind.__name__}.{name}")


def _fields(kind: type) -> list[str]:
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    return list(field_comments(kind))


def _annotations(kind: type) -> dict[str, str]:
    """Of fields and of attributes that `__init__` gives, as they are written."""
    tree, _ = _tree(inspect.getsourcefile(kind) or "")
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
            for each in ast.walk(node):
                if isinstance(each, ast.AnnAssign):
                    name = getattr(each.target, "id", getattr(each.target, "attr", ""))
                    found[name] = ast.unparse(each.annotation)
                elif isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Attribute):
                    value = each.value
                    if isinstance(value, ast.Constant):
                        found.setdefault(each.targets[0].attr, type(value.value).__name__)
    return found


def _callable(function: Callable[..., Any], name: str) -> Iterator[str]:
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    returned = inspect.signature(function).return_annotation
    written = [str(parameter).replace("'", "") for parameter in parameters]
    stars = [p.kind is p.KEYWORD_ONLY for p in parameters]
    if True in stars and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        written.insert(stars.index(True), "*")
    line = f"{name}({', '.join(written)}) -> {returned}"
    if len(line) > 76:
        line = f"{name}(\n    " + ",\n    ".join(written) + f",\n) -> {returned}"
    yield f"```python\n{line}\n```\n"
    yield _docstring(function) + "\n"


def _docstring(told: Any) -> str:
    """A docstring as Markdown: what is set in is code."""
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(told.__doc__ or "")):
        if paragraph.startswith("    "):
            lines.append("```\n" + textwrap.dedent(paragraph) + "\n```\n")
        else:
            lines.append(_prose(paragraph) + "\n")
    return "\n".join(lines)


PAGES: dict[str, Callable[[], str]] = {
    "commands": commands,
    "scenarios": scenarios,
    "record": record,
    "metrics": metrics,
    "api": api,
}
