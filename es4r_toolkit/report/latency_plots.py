"""The picture of a wait: the segments from the end of a turn to its reply, one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from es4r_toolkit.errors import require
from es4r_toolkit.report.content import is_number
from es4r_toolkit.report.pictures import GRID, INK, PALETTE, Picture, axes_of_size, label, legend, picture, plain

FIRST_AUDIO = "first_audio"
# What a segment ends with is named; what is computed in it is not.
NAMES = {"rest": "rest of the reply"}
# Apart from what is waited for: words that came written down are not recognized, and the rest is heard already.
COLOURS = {"recognition": PALETTE[4], "rest": "#afb8c1"}


def waterfall(segments: Mapping[str, float], p95: Mapping[str, float] | None = None) -> Picture:
    """Contiguous segments as a waterfall: each bar begins where the one above it ends.

    Arguments
    ---------
    segments : dict of str to float
        Segment -> seconds, in order, such as ``Timings.segments``; of several replies, their medians. The end of
        ``first_audio``, where it is among them, is marked.
    p95 : dict of str to float, optional
        Segment -> 95th percentile of its seconds, drawn as a whisker from its bar.

    Raises
    ------
    ConfigError
        If there is no segment, or one that is not a number of seconds, 0 or more.

    Example
    -------
    >>> waterfall({"decoding": 0.004, "first_audio": 0.096, "rest": 0.2}).alt
    'Waterfall of seconds: decoding 4 ms, first audio 96 ms, rest of the reply 200 ms. First audio after 100 ms.'
    """
    require(len(segments) > 0, "segments", dict(segments), "must hold at least one segment")
    for name, seconds in {**segments, **(p95 or {})}.items():
        require(is_number(seconds) and seconds >= 0, f"segments[{name}]", seconds, "must be seconds, 0 or more")
    figure, axes = axes_of_size(5.6, 0.9 + 0.31 * len(segments))
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.grid(visible=False, axis="y")
    whole, unit, factor = sum(segments.values()), "ms", 1000
    if whole >= 10:
        unit, factor = "s", 1
    start, told, furthest = 0.0, [], whole
    for place, (name, seconds) in enumerate(segments.items()):
        axes.barh(place, seconds * factor, left=start * factor, height=0.62, color=COLOURS.get(name, PALETTE[0]))
        end, text = start + seconds, _told(seconds)
        if p95 is not None and name in p95:
            end = max(end, start + p95[name])
            axes.plot([(start + seconds) * factor, end * factor], [place, place], color=INK, linewidth=1.3)
            axes.plot([end * factor] * 2, [place - 0.17, place + 0.17], color=INK, linewidth=1.3)
            text += f" (95 %: {_told(p95[name])})"
        figures = axes.annotate(
            text, (end * factor, place), (5, 0), textcoords="offset points", va="center", fontsize=9, color=INK
        )
        figures.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})
        told.append(f"{_name(name)} {text}")
        start, furthest = start + seconds, max(furthest, end)
    heard = _until_first_audio(segments)
    if heard is not None:
        axes.axvline(heard * factor, color=PALETTE[1], linewidth=1.4, linestyle="--", zorder=0)
        axes.annotate(
            f"first audio {_told(heard)}",
            (heard * factor, 1.0),
            (0, 3),
            ("data", "axes fraction"),
            "offset points",
            ha="center",
            fontsize=9.5,
            color=PALETTE[1],
        )
    axes.set_yticks(range(len(segments)), [plain(_name(name)) for name in segments], fontsize=9.5)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    # Room for the last bar's figure.
    axes.set_xlim(0, max(furthest * factor, 1e-9) * (1.5 if p95 else 1.2))
    label(axes, f"{unit} from the end of the turn", "")
    after = "" if heard is None else f" First audio after {_told(heard)}."
    return picture(figure, f"Waterfall of seconds: {', '.join(told)}.{after}")


def by_history(turns: Sequence[Mapping[str, Any]]) -> Picture:
    """What each turn waited for its first sound, over the speech that went before it; recognition apart.

    Arguments
    ---------
    turns : sequence of mapping
        With ``history_seconds``, ``to_first_audio`` and ``segments``, as ``es4r latency`` writes them.
    """
    require(len(turns) > 0, "turns", turns, "must hold at least one turn")
    history = [turn["history_seconds"] for turn in turns]
    waits = [1000 * turn["to_first_audio"] for turn in turns]
    without = [wait - 1000 * turn["segments"]["recognition"] for wait, turn in zip(waits, turns)]
    figure, axes = axes_of_size(5.6, 3.0)
    recognized = any(turn["segments"]["recognition"] >= 0.001 for turn in turns)
    if recognized:
        axes.plot(history, waits, "o", markersize=4.5, color=COLOURS["recognition"], label="with recognition")
    axes.plot(history, without, "o", markersize=4.5, color=PALETTE[0], label="without recognition")
    axes.set_ylim(0, max(waits) * 1.12)
    axes.set_xlim(left=0)
    legend(axes, 2)
    label(axes, "speech of the history before the turn (s)", "to first audio (ms)")
    return picture(
        figure,
        f"Milliseconds to first audio of {len(turns)} turns over up to {max(history):.0f} s of history, "
        f"{min(without):.0f} to {max(without):.0f} without recognition.",
    )


def _until_first_audio(segments: Mapping[str, float]) -> float | None:
    names = list(segments)
    return sum(list(segments.values())[: names.index(FIRST_AUDIO) + 1]) if FIRST_AUDIO in names else None


def _told(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def _name(segment: str) -> str:
    return NAMES.get(segment, segment.replace("_", " "))
