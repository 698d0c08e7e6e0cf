"""Agreement of raters: Krippendorff's alpha, and how often two of them say the same."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np


def krippendorff_alpha(units: Sequence[Sequence[float]]) -> float | None:
    """Krippendorff's alpha of ordinal answers: 1 is full agreement, 0 what chance gives, below 0 is worse than chance.

    Raters need not have answered everything. After Krippendorff, *Content Analysis*, section "The alpha-agreement";
    own code, since the known package for it is under the GPL.

    Arguments
    ---------
    units : sequence of sequence of float
        The answers to each question, in any order; a question with fewer than two tells nothing and is passed over.

    Returns
    -------
    float or None
        None where it is not defined: no question has two answers, or all answers are the same.

    Example
    -------
    >>> krippendorff_alpha([[1, 1], [-1, -1], [0, 0]])
    1.0
    >>> krippendorff_alpha([[1, 1], [1, 1]]) is None
    True
    """
    units = [unit for unit in units if len(unit) > 1]
    values = sorted({value for unit in units for value in unit})
    if len(values) < 2:
        return None
    # How often each value was given to each question (units, values).
    given = np.array([[unit.count(value) for value in values] for unit in map(list, units)], dtype=float)
    # How often values meet as answers of two raters to one question, each question counting as its answers.
    met = (given / (given.sum(axis=1, keepdims=True) - 1)).T @ given
    met -= np.diag((given / (given.sum(axis=1, keepdims=True) - 1)).sum(axis=0))
    totals = met.sum(axis=1)
    # The distance of two ordinal values is the number of answers from one to the other.
    ranks = np.cumsum(totals) - totals / 2
    distances = (ranks[:, None] - ranks[None, :]) ** 2
    expected = (np.outer(totals, totals) * distances).sum()
    return float(1 - (totals.sum() - 1) * (met * distances).sum() / expected)


def same_answers(units: Sequence[Sequence[float]]) -> float | None:
    """The share of pairs of raters that gave the same answer to a question that both answered; None without any.

    Example
    -------
    >>> same_answers([[1, 1, 0], [0, 0]])
    0.5
    """
    pairs = [one == other for unit in units for one, other in combinations(unit, 2)]
    return sum(pairs) / len(pairs) if pairs else None
