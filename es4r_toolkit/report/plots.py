"""Pictures of the whole run: slot accuracies, training curves, confusions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from es4r_toolkit.report.content import is_number
from es4r_toolkit.report.pictures import (
    GREY,
    INK,
    PALETTE,
    RUN_COLOURS,
    Picture,
    axes_of_size,
    colours,
    label,
    legend,
    picture,
    plain,
)

History = Sequence[Mapping[str, float | None]]


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95% interval of a share seen in ``count`` trials (Wilson 1927).

    Example
    -------
    >>> low, high = wilson_interval(0.5, 100)
    >>> round(low, 3), round(high, 3)
    (0.404, 0.596)
    """
    z = 1.959964
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def slot_bars(
    runs: Mapping[str, Mapping[str, Any]],
    names: Mapping[str, str],
    slots: Sequence[str],
    chance: Mapping[str, float],
    oracles: Mapping[str, tuple[str, float]],
) -> Picture:
    """Slot accuracies of each run, with the level of guessing and of oracles.

    Arguments
    ---------
    runs : dict
        Run -> metrics, slot accuracies as shares.
    names : dict
        Run -> its name on the page.
    slots : sequence of str
        In the order shown.
    chance : dict
        Slot -> accuracy of guessing.
    oracles : dict
        Slot -> (what the oracle knows, its accuracy).
    """
    figure, axes = axes_of_size(5.4, 3.5)
    paint, width = colours(runs, RUN_COLOURS), 0.8 / len(runs)
    for place, (run, metrics) in enumerate(runs.items()):
        middles = [index - 0.4 + (place + 0.5) * width for index in range(len(slots))]
        shares = [float(metrics[slot]) if is_number(metrics.get(slot)) else math.nan for slot in slots]
        axes.bar(middles, shares, width * 0.88, color=paint[run], label=plain(names[run]))
        count = metrics.get("count")
        for middle, share in zip(middles, shares):
            top = share
            if is_number(share) and is_number(count) and count > 0:
                low, top = wilson_interval(share, int(count))
                axes.plot([middle, middle], [low, top], color=INK, linewidth=1.3)
            if is_number(share):
                axes.text(middle, top + 0.015, f"{100 * share:.0f}", ha="center", va="bottom", fontsize=9.5, color=INK)
    for index, slot in enumerate(slots):
        if is_number(chance.get(slot)):
            first = not any(is_number(chance.get(other)) for other in slots[:index])
            axes.hlines(
                chance[slot], index - 0.44, index + 0.44, INK, "--", linewidth=1.6, label="chance" if first else None
            )
        if slot in oracles:
            known, level = oracles[slot]
            text = plain(f"{slot} from {known}", most=30)
            axes.hlines(level, index - 0.44, index + 0.44, PALETTE[3], ":", linewidth=2.4, label=text)
    axes.set_xticks(range(len(slots)), [plain(slot) for slot in slots], fontsize=11)
    axes.set_ylim(0, 1.08)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    label(axes, "slot of the reply", "replies that say it right")
    legend(axes, 3)
    told = "; ".join(
        f"{names[run]}: "
        + ", ".join(f"{slot} {100 * metrics[slot]:.0f}%" for slot in slots if is_number(metrics.get(slot)))
        for run, metrics in runs.items()
    )
    return picture(figure, f"Bar chart of slot accuracies with chance lines. {told}.")


def loss_curves(histories: Mapping[str, History], names: Mapping[str, str]) -> Picture | None:
    """Training (dashed) and validation loss by epoch, or None where no run recorded any."""
    series = {
        (run, key): _series(history, key)
        for run, history in histories.items()
        for key in ("train_loss", "valid_loss")
        if _series(history, key)[0]
    }
    if not series:
        return None
    figure, axes = axes_of_size(4.2, 3.1)
    paint = colours(histories, RUN_COLOURS)
    for place, ((run, key), (epochs, values)) in enumerate(series.items()):
        solid = key == "valid_loss"
        # One entry a run: the caption says which line is dashed.
        text = names[run] if solid or (run, "valid_loss") not in series else ""
        style = {
            "linestyle": "-" if solid else "--",
            "linewidth": 2 if solid else 1.4,
            "marker": "o" if solid else None,
        }
        axes.plot(
            epochs, values, color=paint[run], label=plain(text) or None, markersize=3.5, zorder=3 - place, **style
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    label(axes, "epoch", "loss")
    legend(axes, 3)
    ends = ", ".join(
        f"{names[run]} {key.replace('_', ' ')} {values[-1]:.2f}" for (run, key), (_, values) in series.items()
    )
    return picture(figure, f"Loss by epoch. At the end: {ends}.")


def metric_curves(
    histories: Mapping[str, History], names: Mapping[str, str], metric: str, chance: float | None, as_share: bool
) -> Picture | None:
    """One metric on the validation dialogues by epoch, or None where no run recorded it.

    Arguments
    ---------
    histories, names : dict
        Run -> its epochs; run -> its name on the page.
    metric : str
        Key of the epochs.
    chance : float or None
        Accuracy of guessing, drawn as a dashed line.
    as_share : bool
        Whether the axis runs from 0 to 100%.
    """
    series = {run: _series(history, metric) for run, history in histories.items() if _series(history, metric)[0]}
    if not series:
        return None
    figure, axes = axes_of_size(4.2, 3.1)
    paint = colours(histories, RUN_COLOURS)
    for place, (run, (epochs, values)) in enumerate(series.items()):
        marker = "os^Dv"[place % 5]
        axes.plot(
            epochs,
            values,
            color=paint[run],
            label=plain(names[run]),
            marker=marker,
            markersize=4,
            linewidth=2,
            zorder=9 - place,
        )
    if is_number(chance):
        axes.axhline(chance, color=INK, linestyle="--", linewidth=1.4, label="chance")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if as_share:
        axes.set_ylim(0, 1.04)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    else:
        axes.set_ylim(bottom=0)
    label(axes, "epoch", "replies that say it right" if as_share else "score, 0 to 1")
    legend(axes, len(series) + 1)
    ends = ", ".join(f"{names[run]} {values[-1]:.2f}" for run, (_, values) in series.items())
    return picture(figure, f"{metric} on the validation dialogues by epoch. At the end: {ends}.")


def confusion_table(slot: str, labels: Sequence[str], counts: Any) -> Picture:
    """Counts of reference values (rows) against the reply's values (columns), shaded by share of the row."""
    counts = np.asarray(counts, dtype=np.float64)
    across = [*labels, "none"] if counts.shape[1] > len(labels) else list(labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(2.6, 0.46 * len(labels) + 1.3)
    figure, axes = axes_of_size(side + 0.46 * (len(across) - len(labels)), side)
    axes.grid(visible=False)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.0, interpolation="none", aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        ink = "white" if shares[row, column] > 0.55 else INK if count else GREY
        weight = "bold" if row == column else "normal"
        axes.text(column, row, f"{count:g}", ha="center", va="center", fontsize=10, color=ink, fontweight=weight)
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if len(across) > 3 else {}
    axes.set_xticks(range(len(across)), [plain(text, 14) for text in across], **turned)
    axes.set_yticks(range(len(labels)), [plain(text, 14) for text in labels])
    axes.tick_params(length=0)
    label(axes, "said in the reply", "right answer")
    right = int(np.trace(counts))
    return picture(figure, f"Confusion of {slot}: {right} of {int(counts.sum())} replies on the diagonal.")


def _series(history: History, key: str) -> tuple[list[float], list[float]]:
    points = [
        (float(epoch["epoch"]) if is_number(epoch.get("epoch")) else float(place), float(epoch[key]))
        for place, epoch in enumerate(history, start=1)
        if is_number(epoch.get(key))
    ]
    return [epoch for epoch, _ in points], [value for _, value in points]
