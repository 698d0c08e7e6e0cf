"""Tables of scores on a page: a name for each row, and cells with a value and what stands below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

Cell = tuple[str, str]
SYSTEMS = ("this system", "the other")
LEVEL = 0.05  # the intervals are of 95 %


class Row(NamedTuple):
    """A row: its name, cells (each a value and what stands below it), and what stands below the name."""

    name: str
    cells: Sequence[Cell]
    below: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the page."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Row]
    remark: str = ""


def cell(value: float | None, interval: Sequence[float] | None = None, digits: int = 3) -> Cell:
    """A value and its interval; a dash where there is no value.

    Example
    -------
    >>> cell(0.25, (0.2, 0.31)), cell(-1.5, digits=1), cell(None)
    (('0.250', '0.200 to 0.310'), ('−1.5', ''), ('–', ''))
    """
    if value is None:
        return "–", ""
    low_high = "" if interval is None else f"{interval[0]:z.{digits}f} to {interval[1]:z.{digits}f}"
    return f"{value:z.{digits}f}".replace("-", "−"), low_high.replace("-", "−")


def comparison_table(
    caption: str,
    comparison: Mapping[str, Any],
    names: Mapping[str, str],
    digits: Mapping[str, int] = MappingProxyType({}),
    remark: str = "",
) -> Table:
    """What two systems have, by how much they differ, and how likely chance makes such a difference.

    Arguments
    ---------
    caption : str
    comparison : mapping
        ``paired``, ``other``, and ``metrics``: by name, `Difference.as_dict` of it.
    names : mapping
        Of a metric -> its name on the page, where it has another.
    digits : mapping
        Of a metric -> decimal places, where not 3.
    remark : str
        What a reader should know beyond what p is.
    """
    rows = []
    for name, row in comparison["metrics"].items():
        places = digits.get(name, 3)
        low, high = row["interval"]
        apart = tuple(
            text.replace("-", "−")
            for text in (f"{row['difference']:+z.{places}f}", f"{low:+z.{places}f} to {high:+z.{places}f}")
        )
        sure = f"{row['p']:.3f}", "differs" if low * high > 0 and row["p"] < LEVEL else ""
        both = [cell(row[side], digits=places) for side in ("first", "second")]
        rows.append(Row(names.get(name, name), [*both, apart, sure]))
    told = (
        f"Over the {comparison['paired']} dialogues of both; the other is {comparison['other']}. p: how often "
        'resamples of two equal systems would differ as much (paired bootstrap, Koehn 2004). "differs": p is below '
        f"{LEVEL}, and 0 is not in the interval of the difference. Many scores are many looks at the same replies: a "
        f"single small p says little. {remark}"
    )
    return Table(caption, ["score", "this", "other", "difference", "p"], rows, told.strip())
