"""write_corpus_report: what a corpus holds and what is wrong with it, as one HTML page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from es4r_toolkit.data.inspection import Corpus, Remark, by_kind
from es4r_toolkit.data.records import Rejection
from es4r_toolkit.report.pages import render_template, write_page
from es4r_toolkit.report.pictures import PALETTE, Picture, axes_of_size, label, picture, plain

EXAMPLES = 3
MOST_BARS = 12


def write_corpus_report(
    path: str | Path,
    title: str,
    corpus: Corpus,
    rejected: Sequence[Rejection],
    remarks: Sequence[Remark],
    rejects: str = "",
) -> Path:
    """Write the page.

    Arguments
    ---------
    path : str or Path
        The file to write; its folder is made where it is missing.
    title : str
        What the corpus is called.
    corpus : Corpus
        Its figures.
    rejected, remarks : sequence
        What was left out, and what is worth a look.
    rejects : str
        The file that holds what was left out.

    Raises
    ------
    ConfigError
        If the file cannot be written.
    """
    page = render_template(
        "corpus.html",
        title=title,
        tiles=_tiles(corpus, rejected),
        decoded=bool(corpus.levels),
        rejected=_kinds(rejected),
        rejects=rejects,
        remarks=_kinds(remarks),
        histograms=_histograms(corpus),
    )
    return write_page(path, page)


def _kinds(problems: Sequence[Rejection | Remark]) -> list[dict[str, object]]:
    return [
        {"name": name, "count": len(own), "examples": [_example(one) for one in own[:EXAMPLES]], "mend": own[0].mend}
        for name, own in by_kind(problems)
    ]


def _example(problem: Rejection | Remark) -> str:
    seen = problem.seen if isinstance(problem, Remark) else f"{problem.field} {problem.problem}"
    return f"{problem.item}: {seen}"


def _tiles(corpus: Corpus, rejected: Sequence[Rejection]) -> list[tuple[str, str, str]]:
    tiles = [("dialogues", f"{len(corpus.turns):,}", f"{len(rejected):,} left out")]
    if len(corpus.splits) > 1:
        tiles[0] = (*tiles[0][:2], ", ".join(f"{count:,} {split}" for split, count in corpus.splits.most_common()))
        tiles.append(("left out", f"{len(rejected):,}", "see below"))
    tiles.append(("utterances", f"{len(corpus.words):,}", "each counted once"))
    if corpus.seconds:
        tiles.append(("speech", _hours(sum(corpus.seconds)), f"{np.mean(corpus.seconds):.1f} s an utterance"))
    if corpus.speakers:
        (busiest, count), *_ = corpus.speakers.most_common(1)
        beside = f"{plain(busiest)} speaks {count / sum(corpus.speakers.values()):.0%} of the utterances"
        tiles.append(("speakers", f"{len(corpus.speakers):,}", beside))
    return tiles


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _histograms(corpus: Corpus) -> list[tuple[str, Picture]]:
    drawn = [
        ("Turns of a dialogue", _histogram(corpus.turns, "turns, the reply too", "dialogues", whole=True)),
        ("Length of a dialogue", _histogram(corpus.dialogue_seconds, "seconds of its history", "dialogues")),
        ("Length of an utterance", _histogram(corpus.seconds, "seconds", "utterances")),
        ("Words of an utterance", _histogram(corpus.words, "words", "utterances", whole=True)),
        ("Level of an utterance", _histogram(corpus.levels, "dB (0 is full scale)", "utterances")),
        ("Emotions", _bars(corpus.emotions, "utterances")),
        ("Speakers", _bars(corpus.speakers, "utterances")),
    ]
    return [(caption, drawing) for caption, drawing in drawn if drawing is not None]


def _histogram(values: Sequence[float], across: str, up: str, whole: bool = False) -> Picture | None:
    """Counts of values; the last hundredth is drawn together where it lies far out. None without values."""
    finite = np.asarray([value for value in values if np.isfinite(value)], dtype=float)
    if not len(finite):
        return None
    least, most, far = finite.min(), finite.max(), np.quantile(finite, 0.99)
    cut = most - far > 2 * (far - least) > 0
    top = far if cut else most
    if whole:
        step = max(1, int(np.ceil((top - least + 1) / 40)))
        edges = np.arange(least, top + step + 1, step) - 0.5
    else:
        edges = np.linspace(least, top if top > least else least + 1, 31)
    figure, axes = axes_of_size(4.2, 2.8)
    axes.hist(np.minimum(finite, edges[-1] - 1e-9), bins=edges, color=PALETTE[0], rwidth=0.92)
    axes.xaxis.set_major_locator(MaxNLocator(integer=whole, nbins=7))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    label(axes, across + (f" (the last bar: up to {most:,.0f})" if cut else ""), up)
    told = f"from {least:,.1f} to {most:,.1f}, half of them at most {np.median(finite):,.1f}"
    return picture(figure, f"{len(finite):,} {up}: {across} {told}.")


def _bars(counts: Counter[str], across: str) -> Picture | None:
    if not counts:
        return None
    shown = counts.most_common(MOST_BARS)
    rest = sum(counts.values()) - sum(count for _, count in shown)
    if rest:
        shown.append((f"{len(counts) - MOST_BARS} others", rest))
    names = [plain(name) for name, _ in shown]
    figure, axes = axes_of_size(4.2, 0.9 + 0.26 * len(shown))
    axes.barh(range(len(shown)), [count for _, count in shown], color=PALETTE[0], height=0.7)
    axes.set_yticks(range(len(shown)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    label(axes, across, "")
    return picture(figure, "; ".join(f"{name}: {count:,}" for name, count in shown) + ".")
