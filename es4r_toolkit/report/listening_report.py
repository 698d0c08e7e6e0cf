"""The results of a listening test as a page: who is preferred, how surely, and how far raters agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.ticker import PercentFormatter

from es4r_toolkit.data.listening import ASPECTS, Key
from es4r_toolkit.data.records import Rejection
from es4r_toolkit.metrics.listening import Preference, RaterSummary
from es4r_toolkit.report.pages import render_template, write_page
from es4r_toolkit.report.pictures import GRID, INK, PALETTE, Picture, axes_of_size, label, legend, picture, plain

PAINT = {"win": PALETTE[0], "tie": GRID, "lose": PALETTE[1]}
ROOM = 0.06  # a share below this has no room for its number


def write_listening_report(
    path: str | Path,
    key: Key,
    found: Mapping[str, Preference],
    raters: Mapping[str, RaterSummary],
    left_out: Sequence[tuple[Path, Rejection]],
) -> Path:
    """Write the figures of a listening test as one page that needs no other file.

    Arguments
    ---------
    path : str or Path
        The file to write.
    key : Key
        Of the test.
    found : dict of str to Preference
        By aspect; as `preferences` gives it.
    raters : dict of str to RaterSummary
        By name.
    left_out : sequence of (Path, Rejection)
        Rows that are not in the figures.

    Raises
    ------
    ConfigError
        If the file cannot be written.
    """
    problems = Counter((str(where.name), rejection.kind, rejection.mend) for where, rejection in left_out)
    page = render_template(
        "listening_report.html",
        {"percent": _percent, "between": _between, "figure": _figure},
        test=key.test,
        first=key.systems[0],
        second=key.systems[1],
        dialogues=len(key.items),
        rows=[(name, ASPECTS[name], preference) for name, preference in found.items()],
        raters=raters,
        problems=[(*problem, count) for problem, count in problems.most_common()],
        pictures=[shares_picture(found, key.systems), net_picture(found, key.systems)] if found else [],
    )
    return write_page(path, page)


def shares_picture(found: Mapping[str, Preference], systems: tuple[str, str]) -> Picture:
    """Win, tie and lose as bars, an aspect each."""
    figure, axes = axes_of_size(5.9, 1.1 + 0.42 * len(found))
    names = {"win": f"{systems[0]} preferred", "tie": "no difference", "lose": f"{systems[1]} preferred"}
    start = [0.0] * len(found)
    for outcome, colour in PAINT.items():
        shares = [preference.shares[outcome] for preference in found.values()]
        axes.barh(range(len(found)), shares, 0.7, start, color=colour, label=plain(names[outcome], most=32))
        for place, share in enumerate(shares):
            if share >= ROOM:
                ink = INK if outcome == "tie" else "#ffffff"
                middle = start[place] + share / 2
                axes.text(middle, place, f"{100 * share:.0f}", ha="center", va="center", fontsize=10, color=ink)
        start = [low + share for low, share in zip(start, shares)]
    _aspects_down(axes, found)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    label(axes, "share of answers", "")
    legend(axes, 3)
    told = "; ".join(
        f"{name}: " + ", ".join(f"{outcome} {100 * share:.0f}%" for outcome, share in preference.shares.items())
        for name, preference in found.items()
    )
    return picture(figure, f"Bar chart of wins, ties and losses of {systems[0]}. {told}.")


def net_picture(found: Mapping[str, Preference], systems: tuple[str, str]) -> Picture:
    """Win less lose with its interval, an aspect each."""
    figure, axes = axes_of_size(4.7, 1.1 + 0.42 * len(found))
    axes.axvline(0, color=INK, linewidth=1.2, linestyle="--")
    for place, preference in enumerate(found.values()):
        low, high = preference.net_interval
        axes.plot([low, high], [place, place], color=PALETTE[0], linewidth=2.2, solid_capstyle="butt")
        axes.plot([preference.net], [place], "o", color=PALETTE[0], markersize=7)
    _aspects_down(axes, found)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_xlim(-1.04, 1.04)
    axes.set_xticks([-1, -0.5, 0, 0.5, 1])
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    label(axes, plain(f"← {systems[1]}    {systems[0]} →", most=60), "")
    told = "; ".join(f"{name}: {_percent(one.net)}, {_between(one.net_interval)}" for name, one in found.items())
    return picture(figure, f"Win less lose of {systems[0]}, with 95% intervals. {told}.")


def _aspects_down(axes: object, found: Mapping[str, Preference]) -> None:
    axes.set_yticks(range(len(found)), list(found), fontsize=10.5)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}%".replace("-", "−")


def _between(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}".replace("-", "−")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-", "−")
