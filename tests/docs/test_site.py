"""The site builds without a warning, needs no other host, and can be read on a phone."""

from __future__ import annotations

import html
import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

from tests.support import browser
from tests.support.documents import ROOT
from xlab.cli._app import program
from xlab.kernel.processes import wait_until
from xlab.record import metrics
from xlab.record.record import RunRecord


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/_hooks/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


_NOWHERE = dict.fromkeys(
    ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"
)


def built(folder: Path, *, config: Path = ROOT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    """MkDocs, strict, without a way to other hosts.  (With --quiet it would count no warnings.)"""
    command = [sys.executable, "-P", "-m", "mkdocs", "build", "--strict"]
    return subprocess.run(
        [*command, "--config-file", str(config), "--site-dir", str(folder)],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", **_NOWHERE},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    done = built(folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


class Addresses(HTMLParser):
    """What a page loads, and what it links to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.feed(text(page))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if tag == "a":
            self.links.append(found.get("href") or "")
        elif address := found.get("src") or (found.get("href") if tag == "link" else None):
            self.loaded.append(address)


@pytest.mark.slow
def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if "results" not in page.parts]
    assert len(pages) > 40
    for page in pages:
        for address in Addresses(page).loaded:
            assert "//" not in address, f"{page.name} loads {address}"
            assert (page.parent / address.partition("?")[0]).exists(), f"{page.name}: {address}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )['\"]?(?:https?:)?//", text(style)), style


@pytest.mark.slow
def test_links_out_of_docs_lead_to_pages_of_the_site(site: Path) -> None:
    """MkDocs looks at each; here is that they are what they are meant to be."""
    tutorial = Addresses(site / "tutorial.html").links
    assert "scenarios/bridge.py.html#L158" in tutorial
    assert "labs/06-ovs-and-gre/index.html" in tutorial
    source = text(site / "scenarios/bridge.py.html")
    number = next(link for link in tutorial if "bridge.py.html#L" in link).partition("#")[2]
    assert f'id="{number}"' in source
    assert "results/sample/report.html" in Addresses(site / "readme.html").links
    for report in ("results/sample/report.html", "results/sample/virtual/report.html"):
        local = [link for link in Addresses(site / report).links if ":" not in link]
        assert any("which-method.html" in link for link in local)
        for link in local:
            path = link.partition("#")[0]
            assert not path or (site / report).parent.joinpath(path).exists(), link
    assert (site / "results/sample/charts/throughput-ratio.svg").exists()


@pytest.mark.slow
def test_exercises_have_the_values_of_one_student(site: Path) -> None:
    """Those of all places of a page, so that boxes in its pictures close where they should."""
    for file in sorted(ROOT.glob("labs/*/README.md")):
        page = text(site / file.relative_to(ROOT).parent / "index.html")
        assert not re.search(r"(?<!\$)\{[a-z]\w*\}", re.sub(r"<[^>]+>", "", page)), file
    told = html.unescape(re.sub(r"<[^>]+>", "", text(site / "labs/02-one-bridge/index.html")))
    top, stations = re.findall(r"(?m)^ +[┌│].*[┐│]$", told)[:2]
    assert len(top) == len(stations)


@pytest.mark.slow
def test_a_bar_within_code_in_a_table_is_one(site: Path) -> None:
    assert r"`partition h1,h2 \| h3`" in text(ROOT / "docs/teaching.md")
    assert "<code>partition h1,h2 &#124; h3</code>" in text(site / "teaching.html")


@pytest.mark.slow
def test_wrong_links_end_the_build(tmp_path: Path) -> None:
    """To a page, an anchor, a file of the repository, a line of one."""
    links = ("no.md", "tutorial.md#no", "../scenarios/no.py", "../scenarios/weave.py#L9999")
    docs = tmp_path / "docs"
    docs.symlink_to(ROOT / "docs")
    real = tmp_path / "real"
    real.mkdir()
    for file in (ROOT / "docs").iterdir():
        (real / file.name).symlink_to(file)
    (real / "index.md").unlink()
    (real / "index.md").write_text("\n\n".join(f"[here]({link})" for link in links))
    docs.unlink()
    real.rename(docs)
    config = tmp_path / "mkdocs.yml"
    config.write_text(text(ROOT / "mkdocs.yml"))
    done = built(tmp_path / "site", config=config)
    assert done.returncode != 0
    for link in ("no.md", "#no", "scenarios/no.py", "#L9999"):
        assert re.search(rf"index\.md.*{re.escape(link)}", done.stderr), done.stderr


# -- what is made from the code -------------------------------------------------------------------


@pytest.mark.slow
def test_every_command_option_and_metric_is_in_the_reference(site: Path) -> None:

    told = text(site / "reference/commands.html")
    app = program()
    for name, command in app.commands.items():
        assert f"xlab {name}<" in told
        for parameter in command.params:
            assert all(option in told for option in parameter.opts if option.startswith("--"))
    assert "xlab lab grade<" in told
    told = text(site / "reference/metrics.html")
    assert all(row.label.format("N") in told for row in metrics.TABLE)


@pytest.mark.slow
def test_the_record_is_told_from_its_dataclasses(site: Path) -> None:
    told = text(site / "reference/record.html")
    assert all(f"<code>{field}</code>" in told for field in RunRecord.__dataclass_fields__)
    assert 'id="underlaypackets"' in told
    # A comment above a field, and a docstring.
    words = re.sub(r"<[^>]+>", "", told)
    assert "Every packet the proof sent crossed the link" in words
    assert "everything else on the link is stray" in words


@pytest.mark.slow
def test_the_api_is_told_from_its_docstrings(site: Path) -> None:
    told = re.sub(r"<[^>]+>", "", text(site / "reference/api.html"))
    for words in ("xlab.lab(", "LabHandle.fault(", "NodeHandle.popen(", "CapabilityError"):
        assert words in told
    assert "_connected" not in told


def test_a_word_leads_to_the_glossary_where_it_is_first_used() -> None:
    glossary = hook("glossary")
    page = (
        "<h2>The sleeve</h2><p><code>sleeve</code> is, like a <a href='#'>sleeve</a>, a sleeve. "
        "A sleeve, and the negative control; its control.</p><p>Control of the network.</p>"
    )
    linked = glossary.linked(page, "glossary.html")
    assert linked.count('href="glossary.html#sleeve"') == 1
    assert re.search(r', a <a class="term"[^>]*>sleeve</a>\. A sleeve,', linked)
    assert re.search(r'the <a [^>]*#negative-control"[^>]*>negative control</a>', linked)
    assert re.search(r'its <a [^>]*#control"[^>]*>control</a>', linked)
    assert "<p>Control of the network.</p>" in linked
    assert re.sub(r'<a class="term"[^>]*>(.*?)</a>', r"\1", linked) == page


@pytest.mark.slow
def test_each_word_of_the_glossary_has_two_sentences_and_is_used(site: Path) -> None:
    glossary = hook("glossary")
    names = [term.name for term in glossary.terms()]
    wanted = ["control", "baseline", "sleeve", "fastdp", "claim", "proof", "build", "round"]
    assert set(wanted) <= set(names)
    parts = re.split(r"(?m)^## ", text(ROOT / "docs/glossary.md"))[1:]
    assert sorted(names, key=str.lower) == [part.partition("\n")[0] for part in parts]
    for part in parts:
        said = " ".join(part.partition("\n")[2].partition("<!--")[0].split())
        assert len(re.findall(r"[.](?= |$)", said)) == 2, part
    pages = " ".join(text(page) for page in site.rglob("*.html") if "results" not in page.parts)
    for term in glossary.terms():
        assert f'glossary.html#{term.anchor}" title' in pages, f"{term.name} is nowhere used"


@pytest.mark.slow
def test_flowcharts_are_drawn(site: Path) -> None:
    pictures = hook("pictures")
    drawn = pictures.drawn('flowchart TD\n a["one & two"] -->|yes| b & c\n b --> d\n a --> d\n')
    assert drawn.count("<rect") == 4
    assert drawn.count('class="arrow"') == 4
    assert "one &amp; two" in drawn
    assert pictures.drawn("sequenceDiagram\n a->>b: hello\n") == ""
    for page in site.rglob("*.html"):
        assert 'class="mermaid"' not in text(page), page
        assert "language-mermaid" not in text(page), page


def test_cells_of_wide_tables_know_the_titles_of_their_columns() -> None:
    narrow = hook("narrow")
    head = "<table>\n<thead><tr><th></th><th>a <code>b</code></th>{}</tr></thead>\n"
    row = '<tbody><tr><td>one</td><td style="x">2 &amp; 3</td>{}</tr></tbody></table>'
    small = head.format("") + row.format("")
    assert narrow.on_page_content(small) == small
    wide = head.format("<th>c</th>") + row.format("<td></td>")
    told = narrow.on_page_content(wide)
    assert '<td data-label=""><span>one</span></td>' in told
    assert '<td style="x" data-label="a b"><span>2 &amp; 3</span></td>' in told
    assert '<td data-label="c"><span></span></td>' in told


def test_only_long_code_in_a_line_of_text_may_be_broken() -> None:
    narrow = hook("narrow")
    short = "<p><code>--fixed-cidr</code></p>"
    block = f"<pre><span></span><code>{'x' * 90}</code></pre>"
    assert narrow.on_page_content(short + block) == short + block
    long = "<code>sudo iptables -P FORWARD ACCEPT</code>"
    assert narrow.on_page_content(long) == long.replace("<code", '<code class="long"')


# -- in a browser --------------------------------------------------------------------------------

_CUT_OFF = """
[...document.querySelectorAll('article *')]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1
                 && !e.closest('.md-typeset__scrollwrap, pre, .diagram'))
    .map(e => e.tagName + ' ' + e.textContent.slice(0, 60))
"""
#: Tables that must be moved to be read.
_MOVED = """
[...document.querySelectorAll('.md-typeset__scrollwrap')]
    .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent.trim().slice(0, 60))
"""
#: Blocks of code with a line that is wider; on a phone they are moved.
_LONG_LINES = """
[...document.querySelectorAll('article pre code')]
    .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent.slice(0, 60))
"""
#: Each kind of page: prose, tables, long code, lines of code, charts, a drawing, what is generated.
_PAGES = (
    "index.html",
    "desks.html",
    "pipelines.html",
    "tutorial.html",
    "architecture.html",
    "readme.html",
    "which-method.html",
    "reference/commands.html",
    "reference/metrics.html",
    "reference/record.html",
    "scenarios/bridge.py.html",
    "labs/14-measure-and-choose/index.html",
)


@pytest.mark.slow
@pytest.mark.skipif(not browser.find(), reason="chromium is not installed")
@pytest.mark.parametrize("width_px", [390, 1280])
def test_nothing_is_cut_off_and_nothing_is_asked_of_others(
    site: Path, tmp_path: Path, width_px: int
) -> None:
    with browser.Chromium(tmp_path) as chromium:
        for name in _PAGES:
            with chromium.page(width_px=width_px, dark=False) as page:
                page.open(site / name)
                assert page.evaluate("document.documentElement.scrollWidth") <= width_px, name
                assert page.evaluate(_CUT_OFF) == [], name
                assert page.evaluate(_MOVED) == [], name
                assert width_px < 1280 or page.evaluate(_LONG_LINES) == [], name
                assert page.evaluate(
                    "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
                ), name
                others = [each for each in page.requests if not each.startswith(("file:", "data:"))]
                assert others == [], name
                assert page.complaints == [], name


@pytest.mark.slow
@pytest.mark.skipif(not browser.find(), reason="chromium is not installed")
def test_search_works_on_files(site: Path, tmp_path: Path) -> None:
    found = "document.querySelector('.md-search-result__list').textContent"
    with browser.Chromium(tmp_path) as chromium, chromium.page(width_px=1280, dark=False) as page:
        page.open(site / "index.html")
        page.evaluate("document.querySelector('#__search').click()")
        # Until the index has been read a key has no effect.
        wait_until(
            lambda: page.evaluate(_TYPE) or page.evaluate(found).strip(),
            timeout_s=browser.PATIENCE_S,
            awaited="what was searched for",
        )
        assert "Namespaces by hand" in page.evaluate(found)
        assert [each for each in page.requests if each.startswith("http")] == []


_TYPE = """
(query => {
    query.focus()
    query.value = 'masquerade'
    query.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true}))
})(document.querySelector('input[name=query]'))
"""
