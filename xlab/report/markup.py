"""HTML and SVG, put together so that nothing out of a record can become markup.

tag("p", "1 < 2", tag("b", "so"), class_="x")  ->  <p class="x">1 &lt; 2<b>so</b></p>

A child is text, and escaped, unless it is `Html`, which only this module makes.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TypeAlias

from xlab.report.text import plain

#: Elements that HTML never closes.
_VOID = frozenset({"br", "link", "meta"})

Child: TypeAlias = "str | Iterable[Child] | None"


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """An element.  `class_` is the attribute class, `aria_label` aria-label; None leaves one out.

    True is an attribute without a value.  A child may be a sequence of children.
    """
    written = "".join(
        f" {_attribute_name(key)}" if value is True else f' {_attribute_name(key)}="{_text(value)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Children side by side, without an element around them."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, str):
            parts.append(child if isinstance(child, Html) else _text(child))
        elif child is not None:
            parts.append(join(*child))
    return Html("".join(parts))


def _attribute_name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _text(value: object) -> str:
    if isinstance(value, float):
        value = f"{value:.5g}"
    return html.escape(plain(str(value)))
