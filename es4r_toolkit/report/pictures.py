"""The look that all pictures of the report share, and the way into the page: SVG as a data address."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, GRID = "#1b1f24", "#57606a", "#d8dee4"
# Okabe and Ito's palette, told apart with every common kind of colour vision; its yellow is too pale for lines.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
GREY = "#6e7781"
# Fixed, so that a run or a strategy has one colour all over the page and from one report to the next.
RUN_COLOURS = {"plus": PALETTE[0], "paper": PALETTE[1], "text_only": GREY}
STRATEGY_COLOURS = {"comfort": PALETTE[0], "encourage": PALETTE[1], "neutral": GREY}
PIXELS_PER_INCH = 96


@dataclass(frozen=True)
class Picture:
    """A figure as a data address, with what it shows in words and its natural width in CSS pixels."""

    source: str
    alt: str
    width: int


def colours(names: Iterable[str], fixed: dict[str, str]) -> dict[str, str]:
    """A colour for each name: the fixed ones, then the rest of the palette in turn.

    Example
    -------
    >>> colours(["comfort", "joke"], STRATEGY_COLOURS)
    {'comfort': '#0072b2', 'joke': '#009e73'}
    """
    names = list(names)
    spare = [colour for colour in PALETTE if colour not in fixed.values()]
    others = [name for name in names if name not in fixed]
    return {name: fixed.get(name) or spare[others.index(name) % len(spare)] for name in names}


def plain(text: object, most: int = 24) -> str:
    """Text safe to draw: never read as a formula, no control characters, cut at ``most`` characters.

    Example
    -------
    >>> plain("costs $5 and $6"), plain("a\\x00b"), plain("abcdef", most=4)
    ('costs \\\\$5 and \\\\$6', 'a�b', 'abc…')
    """
    text = "".join(letter if letter.isprintable() else "�" for letter in str(text))
    text = text if len(text) <= most else text[: most - 1] + "…"
    return text.replace("$", r"\$")


def axes_of_size(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of ``width`` by ``height`` inches with one dressed set of axes; pyplot knows nothing of it."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=10)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def label(axes: Axes, across: str, up: str) -> None:
    """Name both axes, with units."""
    axes.set_xlabel(across, fontsize=10.5, color=INK)
    axes.set_ylabel(up, fontsize=10.5, color=INK)


def legend(axes: Axes, entries: int, **options: object) -> None:
    """A legend above the drawing, where it can hide nothing."""
    settings = {
        "fontsize": 9.5,
        "loc": "lower left",
        "bbox_to_anchor": (0, 1.0),
        "ncols": min(entries, 3),
        "borderaxespad": 0.2,
    }
    axes.legend(frameon=False, handlelength=1.8, columnspacing=1.2, **{**settings, **options})


def picture(figure: Figure, alt: str) -> Picture:
    """Draw a figure to an SVG data address; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    # Identifiers inside an SVG are random unless salted.
    with matplotlib.rc_context({"svg.hashsalt": "es4r", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawing = buffer.getvalue()
    # The prologue names a document type on a foreign host; the page must point nowhere.
    drawing = drawing[drawing.index(b"<svg") :]
    source = "data:image/svg+xml;base64," + base64.b64encode(drawing).decode("ascii")
    return Picture(source, alt, round(figure.get_figwidth() * PIXELS_PER_INCH))


def write_picture(path: str | Path, shown: Picture) -> None:
    """A picture as an SVG file of its own."""
    Path(path).write_bytes(base64.b64decode(shown.source.partition(",")[2]))
