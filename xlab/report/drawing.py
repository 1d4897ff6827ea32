"""How every chart is drawn: one style, 312 px wide, as SVG in a page or as files of its own.

    drawing (charts.py, line_chart.py) ──> Canvas, px from the upper left corner ──> matplotlib
        embedded()    an SVG element: colours become the page's variables (page.css), so a chart
                      follows its light or dark scheme; text stays text
        save()        NAME.svg and NAME.png with title and key in them, on white

312 px is what a phone shows at full size.  matplotlib is imported where it draws: it costs a
quarter of a second.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import textwrap
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from xlab.kernel import disk
from xlab.report import text
from xlab.report.markup import Html

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 312
#: By the colour that matplotlib is given: the page's variable that takes its place.  Those of lines
#: are Okabe and Ito's, which the colour-blind tell apart; each has a dash of its own besides.
_COLOURS = {
    "#1b1f24": "--ink",
    "#59626d": "--dim",
    "#d5dae0": "--rule",
    "#ffffff": "--card",
    "#0072b2": "--method",
    "#aab3bd": "--control",
    "#6d7781": "--control-edge",
    "#e7bfd5": "--published",
    "#a84f80": "--published-edge",
    "#eef1f4": "--sunken",
    "#d55e00": "--line-2",
    "#007d5a": "--line-3",
    "#b0508a": "--line-4",
    "#9a6b00": "--line-5",
    "#2f93cc": "--line-6",
}
#: A colour by the name of its variable: "ink", "method".
PALETTE = {variable.removeprefix("--"): colour for colour, variable in _COLOURS.items()}
INK, DIM, RULE, CARD = (PALETTE[name] for name in ("ink", "dim", "rule", "card"))

SIZE, HEADING_SIZE, SMALL_SIZE = 10.5, 12, 9.5
SIDE = 4
#: So many columns of text of the usual size fill the chart.
COLUMNS = 50
_FONT = "DejaVu Sans"
_TITLE_H, _KEY_LINE_H, _KEY_COLUMNS = 30, 13, 56
#: Dots of a PNG a px: sharp on a phone.
_DOTS = 2


class Drawing(Protocol):
    """What can be drawn: it knows how high it is, and draws itself on a canvas that is so high."""

    @property
    def title(self) -> str: ...

    @property
    def height(self) -> float:
        """In px."""

    def in_words(self) -> str:
        """What it shows, for whoever does not see it."""

    def key(self) -> Sequence[tuple[str, str]]:
        """The signs in it: the name of each (page.css, k-…) and what it means."""

    def draw(self, canvas: Canvas) -> None: ...


class Canvas:
    """A figure whose places are counted in px, downwards from `top`."""

    def __init__(self, figure: Figure, height: float, top: float = 0.0) -> None:
        self._figure, self._height, self._top = figure, height, top

    def axes(self, top: float, height: float, *, left: float = SIDE, right: float = SIDE) -> Axes:
        """Bare axes, without a frame but for the line at the bottom."""
        bottom = 1 - (self._top + top + height) / self._height
        axes = self._figure.add_axes(
            (left / WIDTH, bottom, 1 - (left + right) / WIDTH, height / self._height)
        )
        axes.set_facecolor("none")
        for side in ("left", "top", "right"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(RULE)
        axes.tick_params(length=3, color=RULE, pad=3, labelsize=SIZE)
        return axes

    def say(
        self,
        said: str,
        *,
        y: float,
        x: float = SIDE,
        at_right: bool = False,
        colour: str = INK,
        size: float = SIZE,
        weight: str = "normal",
        room: int = COLUMNS,
    ) -> None:
        """A line of text from `x`, or up to the right edge, with its base line at `y`."""
        self._figure.text(
            1 - SIDE / WIDTH if at_right else x / WIDTH,
            1 - (self._top + y) / self._height,
            text.cut(said, room),
            horizontalalignment="right" if at_right else "left",
            verticalalignment="baseline",
            color=colour,
            fontsize=size,
            fontweight=weight,
            # A dollar sign begins no formula.
            parse_math=False,
            zorder=6,
        )


def even_marks(low: float, high: float) -> list[float]:
    """About five for an axis that reaches so far."""
    from matplotlib.ticker import MaxNLocator

    return [x for x in MaxNLocator(nbins=5).tick_values(low, high) if low <= x <= high]


def strokes(axes: Axes, ends: Sequence[tuple[float, float, float]], **style: Any) -> None:
    """Upright ones, each by its x and both its ends: one path, a tenth as large as a mark each."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    vertices = [(x, y) for x, *both in ends for y in both]
    path = Path(vertices, [Path.MOVETO, Path.LINETO] * len(ends))
    axes.add_patch(PathPatch(path, fill=False, zorder=3, **style))


def embedded(drawing: Drawing, name: str) -> Html:
    """The drawing as an SVG element; `name` is unique in its page, and begins the ids in it."""
    with _figure(drawing.height, name) as figure:
        drawing.draw(Canvas(figure, drawing.height))
        document = _svg(figure, transparent=True)
    return _embedded(document, name, drawing.in_words())


def save(drawings: Mapping[str, Drawing], folder: Path) -> list[Path]:
    """Write NAME.svg and NAME.png of each, with title and key in them; returns the files.

    Those of one drawing are there whole or not at all.  Raises OSError.
    """
    disk.make_folder(folder)
    files = []
    for name, drawing in drawings.items():
        written = {f"{name}{end}": found for end, found in pictures(drawing, name).items()}
        disk.write(folder, written)
        files += [folder / file for file in written]
    return files


def pictures(drawing: Drawing, name: str) -> dict[str, bytes]:
    """The drawing with its title and key, by the ending of a file's name."""
    signs = "; ".join(f"{_SIGNS.get(kind, kind)}: {said}" for kind, said in drawing.key())
    key = textwrap.wrap(f"{signs}." if signs else "", _KEY_COLUMNS)
    height = _TITLE_H + drawing.height + _KEY_LINE_H * len(key) + 8
    with _figure(height, name) as figure:
        whole = Canvas(figure, height)
        whole.say(drawing.title, y=18, size=HEADING_SIZE + 1, weight="bold")
        drawing.draw(Canvas(figure, height, top=_TITLE_H))
        for number, line in enumerate(key, 1):
            y = _TITLE_H + drawing.height + _KEY_LINE_H * number
            whole.say(line, y=y, colour=DIM, size=SMALL_SIZE, room=_KEY_COLUMNS + 1)
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=72 * _DOTS, facecolor=CARD)
        svg = _svg(figure, transparent=False).encode()
    return {".svg": svg, ".png": png.getvalue()}


#: What stands for a sign of the page's key where there is only text.
_SIGNS = {
    "method": "blue",
    "control": "grey",
    "round": "○",
    "sample": "small line",
    "interval": "├─┤",
    "published": "pink",
    "broken": "orange",
    "mended": "green line",
    "load": "shaded",
    "lost": "×",
}


@contextmanager
def _figure(height: float, name: str) -> Iterator[Figure]:
    """Of matplotlib as it comes, with our settings and nobody's matplotlibrc."""
    style: dict[Any, Any] = {
        "font.family": "sans-serif",
        "font.sans-serif": [_FONT],
        "font.size": SIZE,
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.color": INK,
        "axes.labelcolor": DIM,
        "xtick.color": DIM,
        "ytick.color": DIM,
        "axes.unicode_minus": False,
        "path.simplify": False,
    }
    # Without a cache folder of its own matplotlib says so, to somebody who has not heard of it.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    if "matplotlib" not in sys.modules:
        _import_elsewhere()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(style)
        # A glyph that this machine's fonts lack is the reader's browser's to find.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        # A point of matplotlib is a px of SVG.
        yield Figure(figsize=(WIDTH / 72, height / 72), facecolor="none")


def _import_elsewhere() -> None:
    """First of all it reads a matplotlibrc of the working directory, whoever left it there."""
    here = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        os.chdir("/")
        import matplotlib as mpl  # noqa: F401
    finally:
        os.fchdir(here)
        os.close(here)


def _svg(figure: Figure, *, transparent: bool) -> str:
    written = io.StringIO()
    figure.savefig(
        written,
        format="svg",
        transparent=transparent,
        facecolor="none" if transparent else CARD,
        metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
    )
    return written.getvalue()


# ------------------------------------------------------------------------------- into a page


def _embedded(document: str, name: str, words: str) -> Html:
    """matplotlib's document as an element among others: no ids but those in use, no colours."""
    root = ET.fromstring(document)
    for parent in root.iter():
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    used = _references(root)
    for element in root.iter():
        element.tag = _local(element.tag)
        attributes = {_local(key): value for key, value in element.attrib.items()}
        for key, value in list(attributes.items()):
            if key == "id":
                attributes.pop(key)
                if value in used:
                    attributes[key] = f"{name}-{value}"
            elif key == "href":
                attributes[key] = f"#{name}-{value.removeprefix('#')}"
            elif "url(#" in value:
                attributes[key] = value.replace("url(#", f"url(#{name}-")
            elif key == "style":
                attributes[key] = _themed(value)
        element.attrib = attributes
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "class": "chart",
        "role": "img",
        "aria-label": words,
        # What its style sheet said of every element of the page.
        "stroke-linejoin": "round",
        "stroke-linecap": "butt",
    }
    return Html(ET.tostring(root, encoding="unicode"))


def _references(root: Any) -> set[str]:
    values = [value for element in root.iter() for value in element.attrib.values()]
    found = {value[1:] for value in values if value.startswith("#")}
    return found | {part.partition(")")[0] for value in values for part in value.split("url(#")[1:]}


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _themed(style: str) -> str:
    """Colours by the page's names for them, fonts as around the chart."""
    kept = [part for part in style.split(";") if not part.strip().startswith("font-family")]
    style = ";".join(kept).replace(f"'{_FONT}', sans-serif", "sans-serif")
    for colour, variable in _COLOURS.items():
        style = style.replace(colour, f"var({variable},{colour})")
    return style.strip()
