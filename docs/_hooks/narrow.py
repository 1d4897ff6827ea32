"""What a page needs where there is little room; docs/assets/site.css makes use of it.

Tables of three and more columns: on a phone each row is a block of its own, in which a cell stands
beside the title of its column (`data-label`), as in the pages that xlab writes.  Code in a line of
text is not broken unless it is long (`class="long"`).
"""

from __future__ import annotations

import html
import re

_TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
_TITLE = re.compile(r"<th\b[^>]*>(.*?)</th>", re.DOTALL)
_ROW = re.compile(r"<tr>.*?</tr>", re.DOTALL)
_CELL = re.compile(r"<td(?P<style>[^>]*)>(?P<content>.*?)</td>", re.DOTALL)
_FEWEST_COLUMNS = 3
#: In a line of text: a block's stands right after <pre> or the anchor that it begins with.
_CODE = re.compile(r"(<pre>(?:<[^>]+>)*)?<code>(.*?)</code>", re.DOTALL)
_SHORT_CHARACTERS = 28


def on_page_content(content: str, **_: object) -> str:
    return _CODE.sub(_code, _TABLE.sub(lambda table: labelled(table[0]), content))


def labelled(table: str) -> str:
    """A table's HTML, each cell but the first of a row with the title of its column."""
    titles = [re.sub(r"<[^>]+>", "", title) for title in _TITLE.findall(table)]
    if len(titles) < _FEWEST_COLUMNS:
        return table

    def row(match: re.Match[str]) -> str:
        left = iter(["", *titles[1:]])
        return _CELL.sub(lambda cell: _cell(cell, next(left)), match[0])

    return _ROW.sub(row, table)


def _cell(cell: re.Match[str], title: str) -> str:
    label = html.escape(html.unescape(title))
    return f'<td{cell["style"]} data-label="{label}"><span>{cell["content"]}</span></td>'


def _code(found: re.Match[str]) -> str:
    told = html.unescape(re.sub(r"<[^>]+>", "", found[2]))
    if found[1] or len(told) <= _SHORT_CHARACTERS:
        return found[0]
    return f'<code class="long">{found[2]}</code>'
