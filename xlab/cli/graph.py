"""`xlab graph`: a lab that stays as a drawing."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from xlab.cli._app import AsJson, command
from xlab.cli._options import Name, Output, form_of
from xlab.cli._streams import json_text, write
from xlab.errors import UsageError


class Form(StrEnum):
    """How a graph is written."""

    TEXT = "text"
    MERMAID = "mermaid"
    SVG = "svg"


_FORMS = {".svg": Form.SVG, ".mmd": Form.MERMAID, ".mermaid": Form.MERMAID, ".json": "json"}


@command()
def graph(
    *,
    name: Name = None,
    form: Annotated[
        Form | None,
        typer.Option("--as", help="Else by the name of --output: .svg, .mmd, .json, .txt."),
    ] = None,
    output: Output = None,
    as_json: AsJson = False,
) -> int:
    """Draw a lab: addresses, bridges, tunnels and MTUs as they are just now, faults in force."""
    from xlab.outside import running_lab
    from xlab.report import graph as drawn
    from xlab.report import picture

    if as_json and form:
        raise UsageError("--json and --as are two forms: leave one out")
    option, asked = ("--json", "json") if as_json else (f"--as {form}", form)
    written = form_of(output, _FORMS, option, asked)
    with running_lab.find(name) as lab:
        about = lab.describe()
        nodes = lab.call("network", {})
    if written == "json":
        facts = {key: about[key] for key in ("name", "scenario", "faults")}
        write(json_text({**facts, "nodes": nodes}, output), output)
        return 0
    shown = drawn.network(lab.name, about["scenario"], nodes, about["faults"])
    draw = {Form.TEXT: drawn.as_text, Form.MERMAID: drawn.as_mermaid, Form.SVG: picture.document}
    write(draw[Form(written)](shown), output)
    return 0
