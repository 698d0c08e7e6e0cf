"""Pictures of many dialogues: how their energies move, and how alike their turns are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from es4r_toolkit.errors import ConfigError
from es4r_toolkit.metrics.cohesion import Cohesion, similarity
from es4r_toolkit.report.content import EnergyPath
from es4r_toolkit.report.pictures import (
    INK,
    MUTED,
    STRATEGY_COLOURS,
    Picture,
    axes_of_size,
    colours,
    label,
    legend,
    picture,
    plain,
)

# So many turns can be told apart at the width of the page.
MOST_TURNS = 48


def energy_trajectories(paths: Sequence[EnergyPath]) -> Picture | None:
    """A thin line for each dialogue and a thick one for the mean of each strategy; None without dialogues."""
    shown = [path for path in paths if len(path.energies) > 1 and np.mean(path.energies) > 0]
    if not shown:
        return None
    names = sorted({path.strategy for path in shown})
    paint = colours(names, STRATEGY_COLOURS)
    figure, axes = axes_of_size(6.4, 3.8)
    means = {}
    for name in names:
        own = [np.asarray(path.energies) / np.mean(path.energies) for path in shown if path.strategy == name]
        thin = max(0.06, min(0.5, 8 / len(shown)))
        for energies in own:
            axes.plot(range(1, len(energies) + 1), energies, color=paint[name], linewidth=0.8, alpha=thin, zorder=1)
        longest = max(map(len, own))
        # Few dialogues are that long: where there are under three, a mean is one of them.
        steps = [[energies[step] for energies in own if len(energies) > step] for step in range(longest)]
        means[name] = [float(np.mean(step)) for step in steps if len(step) >= min(3, len(own))]
        axes.plot(
            range(1, len(means[name]) + 1), means[name], "o-", color=paint[name], linewidth=2.6, markersize=5, zorder=3
        )
    axes.axhline(1.0, color=MUTED, linewidth=0.8, linestyle=":", zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    label(axes, "turn, of those that count", "energy, share of the dialogue's mean")
    entries = [
        Line2D(
            [],
            [],
            color=paint[name],
            marker="o",
            linewidth=2.6,
            label=f"{plain(name)} ({sum(path.strategy == name for path in shown)})",
        )
        for name in names
    ]
    legend(axes, len(entries), handles=entries)
    told = "; ".join(f"{name}: " + ", ".join(f"{100 * mean:.0f}%" for mean in means[name]) for name in names)
    return picture(figure, f"Mean energy of {len(shown)} dialogues by turn. {told}.")


def cohesion_maps(kinds: dict[str, Sequence[np.ndarray]]) -> Picture | None:
    """How alike turns are, for the first dialogues: a map for each kind of representation; None where there is none.

    Arguments
    ---------
    kinds : dict
        Such as ``before`` and ``after`` the dual attention: an array (turns, F) for each dialogue, the same dialogues
        for each kind.
    """
    if not kinds:
        return None
    numbers = [[len(turns) for turns in dialogues] for dialogues in kinds.values()]
    if any(other != numbers[0] for other in numbers):
        raise ConfigError("representations", "hold other turns from kind to kind", "give the same dialogues for each")
    ends = np.cumsum(numbers[0])
    first = max(1, int(np.searchsorted(ends, MOST_TURNS, side="right")))
    ends = ends[:first]
    figure = Figure(figsize=(5.0 * len(kinds) + 0.6, 5.4), layout="compressed")
    FigureCanvasSVG(figure)
    maps = {kind: similarity(dialogues[:first]) for kind, dialogues in kinds.items()}
    least = min(float(np.quantile(cosines, 0.01)) for cosines in maps.values())
    told = []
    panels = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axes, (kind, dialogues) in zip(panels, kinds.items()):
        image = axes.imshow(maps[kind], cmap="Blues", vmin=least, vmax=1, interpolation="none")
        start = 0
        for end in ends:
            corner, size = (start - 0.5, start - 0.5), end - start
            axes.add_patch(Rectangle(corner, size, size, fill=False, edgecolor=INK, linewidth=1.2))
            start = end
        middles = (np.array([0, *ends[:-1]]) + ends - 1) / 2
        for place in (axes.set_xticks, axes.set_yticks):
            place(middles, range(1, first + 1))
        axes.tick_params(colors=INK, labelsize=9.5, length=0)
        label(axes, "dialogue", "dialogue")
        heading = f"{plain(kind)} dual attention"
        try:
            ratio = Cohesion(dialogues).ratio
            heading += f": ratio {ratio:.2f}" if ratio is not None else ""
        except ConfigError:
            # A single dialogue has nothing to be compared with.
            pass
        axes.set_title(heading, fontsize=11, color=INK)
        told.append(heading)
    bar = figure.colorbar(image, ax=list(panels), pad=0.015, aspect=30, shrink=0.9)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=9, colors=MUTED)
    bar.set_label("cosine of two turns", fontsize=9.5, color=INK)
    return picture(figure, f"How alike {ends[-1]} turns of {first} dialogues are. {'; '.join(told)}.")
