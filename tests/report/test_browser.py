"""The page as a browser shows it: nothing fetched, nothing wrong, nothing that runs over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import browser
from tests.support.browser import Chromium
from tests.support.reports import compared, everything, hostile
from xlab.record.record import RunRecord
from xlab.report import content, files
from xlab.report.forms import html

pytestmark = [
    pytest.mark.usefixtures("same_charts_drawn_once"),
    pytest.mark.skipif(
        browser.find() is None, reason="no chromium, chromium-browser or google-chrome is installed"
    ),
]

#: Words whose colour is too near to that of what is behind them, as [text, ratio].
#: 4.5 is what WCAG 2.1 asks of text (1.4.3); marks of pictures are checked by their text alone.
_FAINT = """
(() => {
  const channel = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) =>
    0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
  };
  const faint = [];
  let words = 0;
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || !e.getClientRects().length) continue;
    words += 1;
    const style = getComputedStyle(e);
    const ink = parse(e instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [luminance(ink), luminance(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) faint.push([e.textContent.slice(0, 40), ratio]);
  }
  return {faint, words};
})()
"""
#: Text of drawings that their frames cut off, and blocks wider than the screen.
_CUT_OFF = """
[...document.querySelectorAll("svg text")].filter(t => {
  const box = t.getBBox(), frame = t.ownerSVGElement.viewBox.baseVal;
  return box.x < -1 || box.x + box.width > frame.width + 1 || box.y + box.height > frame.height + 1;
}).map(t => t.textContent)
"""
_TOO_WIDE = """
[...document.querySelectorAll("body *")].filter(e => {
  const box = e.getBoundingClientRect(), style = getComputedStyle(e);
  return box.right > innerWidth + 1 && style.position !== "absolute" && !e.closest("thead");
}).map(e => e.tagName + " " + e.textContent.slice(0, 40))
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind."""
    folder = tmp_path_factory.mktemp("results") / "a-compare"
    return {
        "records": written(tmp_path_factory.mktemp("records"), everything()),
        "comparison": files.of_comparison(folder, compared(folder)),
    }


def screens() -> list[Any]:
    """All of them with --all; otherwise each page in each width and each scheme, but not in all."""
    found = []
    for number, width_px in enumerate((360, 800, 1010, 1280)):
        for of in ("records", "comparison"):
            for dark in (False, True):
                turn = (number + (of == "records")) % 2 == dark
                marks = () if turn else pytest.mark.slow
                said = f"{of}-{width_px}-{'dark' if dark else 'light'}"
                found.append(pytest.param(of, width_px, dark, marks=marks, id=said))
    return found


@pytest.mark.parametrize(("of", "width_px", "dark"), screens())
def test_the_page_is_whole_by_itself_and_fits_the_screen(
    chromium: Chromium, pages: dict[str, Path], of: str, width_px: int, dark: bool
) -> None:
    file = pages[of]
    with chromium.page(width_px=width_px, dark=dark) as shown:
        shown.open(file)
        assert shown.evaluate("innerWidth") == width_px
        assert shown.evaluate("document.querySelectorAll('svg').length") > 4
        assert shown.evaluate("document.documentElement.scrollWidth") <= width_px, shown.evaluate(
            _TOO_WIDE
        )
        assert shown.evaluate(_CUT_OFF) == []
        contrast = shown.evaluate(_FAINT)
        assert contrast["words"] > 500
        assert contrast["faint"] == []
        assert shown.complaints == []
        local = [url for url in shown.requests if url != "data:,"]
        assert local == [file.as_uri()]


def test_hostile_text_neither_runs_nor_fetches_nor_runs_over(
    chromium: Chromium, tmp_path: Path
) -> None:
    told = hostile()
    endless = told.scenario + "x" * 2000
    file = written(tmp_path, {tmp_path / "run.json": told, tmp_path / "x" / "run.json": told})
    source = file.read_text(encoding="utf-8")
    file.write_text(source.replace("6.12.0", endless), encoding="utf-8")
    with chromium.page(width_px=360, dark=False) as shown:
        shown.open(file)
        assert shown.evaluate("document.documentElement.scrollWidth") <= 360
        assert shown.evaluate("document.querySelectorAll('script, img').length") == 0
        assert shown.complaints == []
        assert [url for url in shown.requests if url != "data:,"] == [file.as_uri()]


def test_what_a_browser_would_complain_of_is_heard(chromium: Chromium, tmp_path: Path) -> None:
    """The tests above would pass if nothing were listened to."""
    file = tmp_path / "bad.html"
    file.write_text(
        f"<body style='width:9000px;color:#ccc;background:#fff'>faint"
        f"<script>console.error('x')</script><img src={json.dumps('missing.png')}>",
        encoding="utf-8",
    )
    with chromium.page(width_px=360, dark=False) as shown:
        shown.open(file)
        assert shown.evaluate("document.documentElement.scrollWidth") > 360
        assert any("consoleAPI" in each or '"x"' in each for each in shown.complaints)
        assert any(url.endswith("missing.png") for url in shown.requests)


def written(folder: Path, records: dict[Path, RunRecord]) -> Path:
    file = folder / "report.html"
    file.write_text(html.of_results(content.of_records(records), folder), encoding="utf-8")
    return file
