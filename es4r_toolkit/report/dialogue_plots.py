"""Pictures of one dialogue: how its energy moves, whose style is taken, and where the speech looks in the text."""

from __future__ import annotations

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from es4r_toolkit.dialogue import SPEAKER
from es4r_toolkit.report.content import AnsweredDialogue, as_array
from es4r_toolkit.report.pictures import (
    GREY,
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
from es4r_toolkit.report.words import by_column, columns, spans


def energy_words(dialogue: AnsweredDialogue) -> str:
    """The decision in words, such as ``energy falls 6% per turn: comfort``."""
    percent = 100 * abs(dialogue.energy_change)
    amount = f"{percent:.0f}%" if percent >= 1 else f"{percent:.1f}%"
    moves = "rises" if dialogue.energy_change > 0 else "falls"
    unit = "per turn" if dialogue.strategy_turns == "all" else "per speaker turn"
    change = "stays the same" if percent < 0.05 else f"{moves} {amount} {unit}"
    return f"energy {change}: {dialogue.strategy}"


def energy_path(dialogue: AnsweredDialogue) -> Picture:
    """Energy of each turn, and the change that the strategy was chosen by as a line."""
    turns = dialogue.turns
    figure, axes = axes_of_size(4.8, 3.0)
    paint = colours([dialogue.strategy], STRATEGY_COLOURS)[dialogue.strategy]
    numbers, energies = np.arange(1, len(turns) + 1), np.array([turn.energy for turn in turns])
    axes.plot(numbers, energies, color=GREY, linewidth=1, zorder=1)
    used = [place for place, turn in enumerate(turns) if dialogue.strategy_turns == "all" or turn.role == SPEAKER]
    if len(used) > 1:
        # Eq. 9 ties the first and the last turn, so the line is drawn through the first with the change as its slope.
        end = energies[used[0]] + dialogue.energy_change * energies[used].mean() * (len(used) - 1)
        ends = [numbers[used[0]], numbers[used[-1]]]
        axes.plot(ends, [energies[used[0]], end], color=paint, linestyle="--", linewidth=2.2, zorder=2)
    for number, energy, turn in zip(numbers, energies, turns):
        speaks = turn.role == SPEAKER
        face, marker = (paint, "o") if speaks else ("white", "s")
        axes.plot(
            number, energy, marker, color=paint, markerfacecolor=face, markersize=9, markeredgewidth=1.8, zorder=3
        )
    axes.set_xticks(numbers[:: max(1, len(turns) // 12)])
    axes.set_xlim(0.6, len(turns) + 0.4)
    axes.set_ylim(0, max(float(energies.max()) * 1.18, 1e-9))
    label(axes, "turn of the history", "energy (mean mel norm)")
    axes.yaxis.label.set_fontsize(9.5)
    entries = [
        Line2D([], [], color=paint, marker="o", linestyle="", markersize=8, label="speaker"),
        Line2D([], [], color=paint, marker="s", linestyle="", markersize=8, markerfacecolor="white", label="listener"),
        Line2D([], [], color=paint, linestyle="--", linewidth=2.2, label="change used"),
    ]
    legend(axes, 3, handles=entries if len(used) > 1 else entries[:2])
    told = ", ".join(f"turn {number} {turn.role} {turn.energy:.3g}" for number, turn in zip(numbers, turns))
    return picture(figure, f"Energy by turn, {energy_words(dialogue)}. {told}.")


def style_bars(dialogue: AnsweredDialogue) -> Picture:
    """Share of each turn of the history in the style of the reply (ES4R Eq. 10)."""
    turns = dialogue.turns
    figure, axes = axes_of_size(4.8, 2.4)
    numbers, weights = np.arange(1, len(turns) + 1), [turn.style_weight for turn in turns]
    speaks = [turn.role == SPEAKER for turn in turns]
    paint = colours([dialogue.strategy], STRATEGY_COLOURS)[dialogue.strategy]
    # As in the energies: the speaker's turns are filled.
    faces = [paint if own else "white" for own in speaks]
    axes.bar(numbers, weights, width=0.6, color=faces, edgecolor=paint, linewidth=1.8)
    if len(turns) <= 12:
        for number, weight in zip(numbers, weights):
            axes.annotate(
                f"{100 * weight:.0f}%",
                (number, weight),
                (0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=9.5,
                color=INK,
            )
    axes.set_xticks(numbers[:: max(1, len(turns) // 12)])
    axes.set_xlim(0.4, max(len(turns), 3) + 0.6)
    top = max(*weights, 1e-9) * 1.2
    axes.set_yticks([tick for tick in MaxNLocator(5).tick_values(0, top) if 0 <= tick <= min(top, 1)])
    axes.set_ylim(0, top)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    label(axes, "turn of the history", "share of the style")
    axes.yaxis.label.set_fontsize(9.5)
    told = ", ".join(
        f"turn {number} {turn.role} {100 * turn.style_weight:.0f}%" for number, turn in zip(numbers, turns)
    )
    return picture(figure, f"Style weight by turn. {told}.")


def attention_scale(dialogue: AnsweredDialogue) -> float:
    """Where the colours of an attention map end; 0 without attention.

    One token that draws all attention would leave the rest white, so it is the 99th percentile.
    """
    if dialogue.attention is None:
        return 0.0
    weights = by_column(as_array(dialogue.attention), columns(dialogue.tokens, dialogue.turn_of_token))
    return max(float(np.quantile(weights, 0.99)), float(weights.max()) * 0.05, 1e-9)


def attention_map(dialogue: AnsweredDialogue, scale: float | None = None) -> Picture | None:
    """Where each speech position looks in the text, turn by turn; None without attention.

    Arguments
    ---------
    dialogue : AnsweredDialogue
    scale : float, optional
        Where the colours end, so that two maps can be compared; its own ``attention_scale`` if not given.
    """
    if dialogue.attention is None:
        return None
    shown = columns(dialogue.tokens, dialogue.turn_of_token)
    weights = by_column(as_array(dialogue.attention), shown)
    longest = max(len(column.label) for column in shown)
    rows = spans(dialogue.turn_of_position)
    height = 1.0 + max(2.2, 0.34 * len(rows), min(0.06 * len(weights), 4.0)) + 0.075 * min(longest, 18)
    figure, axes = axes_of_size(min(max(6.4, 1.9 + 0.165 * len(shown)), 11.2), height)
    axes.grid(visible=False)
    top = attention_scale(dialogue) if scale is None else scale
    image = axes.imshow(weights, cmap="Blues", vmin=0, vmax=top, interpolation="none", aspect="auto")
    crowded = len(shown) > 48
    axes.set_xticks(
        range(len(shown)), [plain(column.label, 18) for column in shown], rotation=90, fontsize=8.5 if crowded else 9.5
    )
    axes.set_yticks(
        [(start + end - 1) / 2 for _, start, end in rows],
        [_turn_name(dialogue, turn) for turn, _, _ in rows],
        fontsize=9.5,
    )
    axes.tick_params(axis="y", length=0)
    for _, start, _ in rows[1:]:
        axes.axhline(start - 0.5, color=INK, linewidth=1.0)
    texts = spans([column.turn for column in shown])
    for turn, start, end in texts:
        if start:
            axes.axvline(start - 0.5, color=INK, linewidth=1.0)
        if end - start > 2 and turn >= 0:
            middle, name = (start + end - 1) / 2, f"turn {turn + 1}" if end - start > 3 else f"{turn + 1}"
            axes.annotate(
                name,
                (middle, 1.0),
                (0, 4),
                ("data", "axes fraction"),
                "offset points",
                ha="center",
                fontsize=9.5,
                color=INK,
            )
    bar = figure.colorbar(
        image, ax=axes, pad=0.015, aspect=24, extend="max" if weights.max() > top * 1.001 else "neither"
    )
    bar.locator = MaxNLocator(4)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if top > 0.08 else 1))
    bar.ax.tick_params(labelsize=9, colors=MUTED)
    bar.set_label("share of the row's attention", fontsize=9.5, color=INK)
    label(axes, "text of the history", "speech of the history")
    return picture(
        figure, f"Attention of {len(weights)} speech positions over {len(shown)} pieces of text.{_own_turn(dialogue)}"
    )


def _turn_name(dialogue: AnsweredDialogue, turn: int) -> str:
    return f"turn {turn + 1}\n{dialogue.turns[turn].role}" if turn >= 0 else "prompt"


def _own_turn(dialogue: AnsweredDialogue) -> str:
    weights = as_array(dialogue.attention)
    same = np.asarray(dialogue.turn_of_position)[:, None] == np.asarray(dialogue.turn_of_token)[None, :]
    total = float(weights.sum())
    return (
        f" {100 * float((weights * same).sum()) / total:.0f}% of it falls on the text of the same turn."
        if total
        else ""
    )
