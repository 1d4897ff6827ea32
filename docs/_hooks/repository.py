"""The site shows a repository: its pages link to whatever files that has, by their own paths.

    docs/tutorial.md      ../scenarios/bridge.py#L42    a page with the file, its lines numbered
    labs/README.md        ../docs/hosts.md              the page of that
    README.md             results/sample/report.html    the file itself

Links stay in the documents as a reader of the repository needs them.  Here they are followed,
through pages that link to others, and what they lead to is taken into the site; MkDocs then finds
what leads nowhere, anchors and numbers of lines included.  Pages outside docs/ have the path they
have in the repository.
"""

from __future__ import annotations

import html
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import pygments
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from pygments.formatters.html import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound

from xlab.exercises import exercise, variants
from xlab.exercises.variants import Variant

ROOT = Path(__file__).resolve().parents[2]
#: index.md is the start; the theme takes a README.md at the top for one, too.
_NAMES = {"README.md": "readme.md"}
#: Files that a page of the reference is made from: on the site a link to one leads to that.
_TOLD_BY = {
    "xlab/cli/__init__.py": "reference/commands.md",
    "xlab/scenario/catalog.py": "reference/scenarios.md",
    "xlab/record/record.py": "reference/record.md",
    "xlab/record/comparisons.py": "reference/record.md#comparejson",
    "xlab/experiments/sweep/outcome.py": "reference/record.md#sweepjson",
    "xlab/record/metrics.py": "reference/metrics.md",
    "xlab/outside/api.py": "reference/api.md",
}
#: What a browser shows by itself.
_SHOWN = {".html", ".svg", ".png", ".pdf"}

_FENCE = re.compile(r"^\s*(```|~~~)")
#: Code is told apart only so that what looks like a link in it is left alone.
_LINK = re.compile(r"(`+)(?:(?!`).|(?!\1)`)*?\1(?!`)|\]\((?P<target>[^)\s]+)\)")
#: On GitHub `a \\| b` in a table is a bar in code; Python's Markdown leaves the backslash there.
_BARRED = re.compile(r"`([^`]*\\\|[^`]*)`")
_ITEM = re.compile(r"^(\s*)([-*]|\d+\.) ")


def on_config(config: MkDocsConfig) -> None:
    config.nav = _unfolded(config.nav)
    config.watch.append(str(ROOT / "labs"))
    # A server's page for what is not there: its paths begin at the server's root, which files lack.
    config.theme.static_templates.discard("404.html")


def _unfolded(nav: object) -> list[object]:
    """The navigation with `labs/*` as the pages it stands for, without pages that are not there.

    A name that is mistyped is found all the same: MkDocs warns of the page that has no place.
    """
    found: list[object] = []
    for each in nav if isinstance(nav, list) else []:
        if isinstance(each, dict):
            ((title, to),) = each.items()
            if isinstance(to, list):
                found.append({title: _unfolded(to)})
            elif _is_there(to):
                found.append(each)
        elif each.endswith("/*"):
            pages = sorted(ROOT.glob(f"{each}/README.md"))
            found += [path.relative_to(ROOT).as_posix() for path in pages]
        elif _is_there(each):
            found.append(each)
    return found


def _is_there(uri: str) -> bool:
    return uri.startswith("reference/") or (ROOT / origin(uri)).is_file()


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what pages link to, and what those pages do."""
    waiting = [file for file in files if file.is_documentation_page()]
    named = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
    named += [path.relative_to(ROOT).as_posix() for path in ROOT.glob("labs/**/README.md")]
    while waiting or named:
        for path in named:
            if (uri := site_uri(path)) not in files.src_uris and (ROOT / path).is_file():
                added = _taken_in(path, uri, config, files)
                files.append(added)
                if path.endswith(".md"):
                    waiting.append(added)
        named = [path for page in waiting for path in _linked(page)]
        waiting = []
    return files


def _taken_in(path: str, uri: str, config: MkDocsConfig, files: Files) -> File:
    if path.endswith(".html"):
        return File.generated(config, uri, content=_report(path, files))
    if path.endswith(".md") or Path(path).suffix in _SHOWN:
        return File.generated(config, uri, abs_src_path=str(ROOT / path))
    content = f"---\nsearch: {{exclude: true}}\nhide: [toc, navigation]\n---\n# {path}\n"
    return File.generated(config, uri, content=content, inclusion=InclusionLevel.NOT_IN_NAV)


def _report(path: str, files: Files) -> str:
    """A page that xlab wrote: what it links to in the repository is elsewhere on the site."""

    def followed(match: re.Match[str]) -> str:
        found = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1]))
        file = files.get_file_from_path(site_uri(found))
        if file is None:
            return match[0]
        return f'href="{posixpath.relpath(file.dest_uri, posixpath.dirname(path))}'

    text = (ROOT / path).read_text(encoding="utf-8")
    return re.sub(r'href="([^":#]+\.md)', followed, text)


def _linked(page: File) -> Iterator[str]:
    """The paths in the repository that a page links to."""
    prose = (line for line, is_prose in _lines(page.content_string) if is_prose)
    for line in prose:
        for match in _LINK.finditer(line):
            path, anchor = _repository_path(page.src_uri, match["target"])
            if path is not None and (anchor or path not in _TOLD_BY):
                yield path


def _lines(markdown: str) -> Iterator[tuple[str, bool]]:
    """Each, and whether it is prose: no fence, nor between two of them."""
    fence = None
    for line in markdown.splitlines():
        match = _FENCE.match(line)
        if match and fence in {None, match[1]}:
            fence = match[1] if fence is None else None
            yield line, False
        else:
            yield line, fence is None


def site_uri(path: str) -> str:
    """Where a file of the repository is on the site."""
    path = path.removeprefix("docs/")
    if path.endswith(".md") or Path(path).suffix in _SHOWN:
        return _NAMES.get(path, path)
    return f"{path}.md"


def origin(uri: str) -> str:
    """Where in the repository a page of the site is."""
    named = {new: old for old, new in _NAMES.items()}.get(uri, uri)
    candidates = [f"docs/{named}", named]
    candidates += [path.removesuffix(".md") for path in candidates]
    return next((path for path in candidates if (ROOT / path).is_file()), f"docs/{uri}")


def _repository_path(uri: str, target: str | None) -> tuple[str | None, str]:
    """What a link on the page `uri` leads to, and the anchor; None if that is no file of ours."""
    if target is None or "://" in target or target.startswith(("#", "mailto:", "/")):
        return None, ""
    path, _, anchor = target.partition("#")
    found = posixpath.normpath(posixpath.join(posixpath.dirname(origin(uri)), path))
    if (ROOT / found).is_dir():
        found = posixpath.join(found, "README.md")
    return found, anchor


_VALUES = (
    "*Subnets, names and faults here are one student's. `bin/xlab lab start {}` writes this page "
    "with values of your own.*"
)
#: Whose values the site shows.
_ONE_STUDENT = Variant("the site")

# -- a page ----------------------------------------------------------------------------------------


def on_page_markdown(markdown: str, page: Page, files: Files, **_: object) -> str:
    uri = page.file.src_uri
    if number := re.match(r"labs/(\d+)-", uri):
        # Pictures have their columns only with values in them.
        values = exercise.load((ROOT / uri).parent, _ONE_STUDENT).values
        title, rest = str(variants.filled(markdown, values)).split("\n", 1)
        markdown = f"{title}\n\n{_VALUES.format(number[1])}\n{rest}"

    def followed(match: re.Match[str]) -> str:
        path, anchor = _repository_path(uri, match["target"])
        if path is None:
            return match[0]
        wanted = site_uri(path)
        if path in _TOLD_BY and not anchor:
            wanted, _, anchor = _TOLD_BY[path].partition("#")
        if wanted not in files.src_uris:
            return match[0]
        relative = os.path.relpath(wanted, posixpath.dirname(uri) or ".")
        return f"]({relative}{'#' if anchor else ''}{anchor})"

    lines: list[str] = []
    for line, is_prose in _lines(markdown):
        if is_prose:
            line = _LINK.sub(followed, line)
            if line.startswith("|"):
                line = _BARRED.sub(_with_bars, line)
            # On GitHub a list needs no empty line before it.
            before = lines[-1] if lines else ""
            if _ITEM.match(line) and before.strip() and not _continues_list(lines):
                lines.append("")
        lines.append(line)
    return "\n".join(lines)


def _with_bars(code: re.Match[str]) -> str:
    return f"<code>{html.escape(code[1])}</code>".replace("\\|", "&#124;")


def _continues_list(lines: list[str]) -> bool:
    for line in reversed(lines):
        if not line.strip():
            return False
        if _ITEM.match(line):
            return True
        if not line.startswith(" "):
            return False
    return False


def on_page_content(content: str, page: Page, **_: object) -> str:
    if not _is_source(page.file):
        return content
    path = ROOT / origin(page.file.src_uri)
    text = path.read_text(encoding="utf-8")
    try:
        lexer = get_lexer_for_filename(path.name, stripnl=False)
    except ClassNotFound:
        lexer = TextLexer(stripnl=False)
    shown = pygments.highlight(text, lexer, HtmlFormatter(nowrap=True)).rstrip("\n").split("\n")
    page.present_anchor_ids = (page.present_anchor_ids or set()) | {
        f"L{number}" for number, _ in enumerate(shown, 1)
    }
    numbered = "\n".join(
        f'<span id="L{number}" class="line"><a href="#L{number}">{number}</a>{line}</span>'
        for number, line in enumerate(shown, 1)
    )
    return (
        f'{content}<div class="highlight source"><pre><code aria-label="{html.escape(path.name)}">'
        f"{numbered}</code></pre></div>"
    )


def _is_source(file: File) -> bool:
    return file.src_uri.endswith(".md") and not origin(file.src_uri).endswith(".md")
