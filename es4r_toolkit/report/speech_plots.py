"""Pictures of speech: how replies of each strategy sound, and how far the voice follows what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from es4r_toolkit.metrics.hearing import HeardReply
from es4r_toolkit.metrics.speech import Figure
from es4r_toolkit.report.pictures import GRID, INK, PALETTE, Picture, axes_of_size, label, legend, picture, plain

NO_STRATEGY = "no strategy"
REACH = (5, 95)  # percentiles that whiskers reach to
DOTS = 60  # replies of a box; beyond, dots hide one another


def figure_boxes(figure: Figure, systems: Mapping[str, Sequence[HeardReply]]) -> Picture:
    """A box for the replies of each strategy, those of two systems side by side.

    Arguments
    ---------
    figure : Figure
        What is shown of a reply.
    systems : mapping of str to sequence of HeardReply
        Name of the system -> its replies.
    """
    groups = {name: _by_strategy(figure, replies) for name, replies in systems.items()}
    strategies = sorted({strategy for one in groups.values() for strategy in one})
    drawing, axes = axes_of_size(4.2, 3.1)
    width, told = 0.7 / len(groups), []
    for place, ((system, found), colour) in enumerate(zip(groups.items(), PALETTE)):
        for index, strategy in enumerate(strategies):
            if values := found.get(strategy):
                middle = index - 0.35 + (place + 0.5) * width
                _box(axes, values, middle, 0.8 * width, colour)
                told.append(f"{system}, {strategy}: median {np.median(values):.{figure.digits}f}")
        axes.plot([], [], color=colour, linewidth=6, label=plain(system))
    axes.set_xticks(range(len(strategies)), [plain(strategy) for strategy in strategies])
    axes.set_xlim(-0.6, len(strategies) - 0.4)
    label(axes, "strategy", figure.unit.partition(",")[0])
    if len(groups) > 1:
        legend(axes, len(groups))
    return picture(drawing, f"Boxes of {figure.title} by strategy. {'; '.join(told)}.")


def slopes_picture(agreements: Mapping[str, Mapping[str, Mapping[str, Any]]], titles: Mapping[str, str]) -> Picture:
    """For each field of Prosody the slope of what was measured on what was asked, with its interval.

    Arguments
    ---------
    agreements : mapping
        Name of the system -> field -> `Agreement.as_dict` of it.
    titles : mapping of str to str
        Field -> its name on the page, in the order shown.
    """
    drawing, axes = axes_of_size(4.2, 3.1)
    shown = [field for field in titles if any(field in one for one in agreements.values())]
    axes.axvline(1, color=INK, linewidth=1.2, linestyle="--", label="as asked")
    axes.axvline(0, color=INK, linewidth=1.2, linestyle=":", label="not at all")
    told = []
    for place, ((system, found), colour) in enumerate(zip(agreements.items(), PALETTE)):
        for row, field in enumerate(shown):
            if field not in found:
                continue
            height = row + 0.22 * (place - (len(agreements) - 1) / 2)
            (low, high), slope = found[field]["slope_interval"], found[field]["slope"]
            axes.plot([low, high], [height, height], color=colour, linewidth=2.2, solid_capstyle="butt")
            axes.plot([slope], [height], "o", color=colour, markersize=7)
            told.append(f"{system}, {titles[field]}: {slope:.2f}, {low:.2f} to {high:.2f}")
        if len(agreements) > 1:
            axes.plot([], [], "o-", color=colour, label=plain(system))
    axes.set_yticks(range(len(shown)), [titles[field] for field in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    label(axes, "slope: 1 does just what is asked", "")
    legend(axes, 2)
    return picture(drawing, f"Slopes with 95% intervals. {'; '.join(told)}.")


def _by_strategy(figure: Figure, replies: Sequence[HeardReply]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for reply in replies:
        if (value := figure.of(reply)) is not None:
            name = NO_STRATEGY if reply.manner is None else reply.manner.strategy
            groups.setdefault(name, []).append(value)
    return groups


def _box(axes: Any, values: Sequence[float], middle: float, width: float, colour: str) -> None:
    axes.boxplot(
        [values],
        positions=[middle],
        widths=width,
        whis=REACH,
        showfliers=False,
        manage_ticks=False,
        patch_artist=True,
        boxprops={"facecolor": f"{colour}30", "edgecolor": colour, "linewidth": 1.2},
        medianprops={"color": colour, "linewidth": 2.4},
        whiskerprops={"color": colour, "linewidth": 1.2},
        capprops={"color": colour, "linewidth": 1.2},
    )
    if len(values) <= DOTS:
        # Spread evenly over the middle of the box, so that equal values can be told apart.
        places = middle + width * (np.linspace(-0.3, 0.3, len(values)) if len(values) > 1 else np.zeros(1))
        axes.plot(places, values, "o", color=colour, markersize=2.6, alpha=0.75)
