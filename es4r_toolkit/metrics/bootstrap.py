"""Bootstrap intervals: how far a score could lie off for the choice of test dialogues alone (Efron, 1979)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nltk.translate.bleu_score import closest_ref_length, modified_precision

from es4r_toolkit.errors import ConfigError, require

RESAMPLES, LEVEL = 2000, 0.95
# NLTK's smoothing method 1 puts this in place of no match.
EPSILON = 0.1


class Bootstrap:
    """The same resamples of a test set for all its scores.

    Arguments
    ---------
    number : int
        Replies in the test set.
    resamples : int
        How often as many are drawn from them, with replacement.
    level : float
        Share of the resamples inside an interval.
    seed : int

    Raises
    ------
    ConfigError
        If there is nothing to resample.

    Example
    -------
    >>> low, high = Bootstrap(100).mean([1.0] * 80 + [0.0] * 20)
    >>> 0.70 < low < 0.75 and 0.85 < high < 0.90
    True
    """

    def __init__(self, number: int, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0):
        require(number > 0 and resamples > 0, "bootstrap", (number, resamples), "needs replies and resamples")
        self.tails = [(1 - level) / 2, (1 + level) / 2]
        # How often each reply is in each resample (resamples, number); floats, since every score multiplies them.
        drawn = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=resamples)
        self.counts = drawn.astype(float)

    def mean(self, values: Sequence[float], present: Sequence[bool] | None = None) -> tuple[float, float]:
        """Interval of the mean of a value a reply has, over those replies where it is ``present``."""
        return self.quantiles(self.means(values, present))

    def means(self, values: Sequence[float], present: Sequence[bool] | None = None) -> np.ndarray:
        """That mean in each resample; one that holds none of those replies is left out."""
        if len(values) != self.counts.shape[1]:
            raise ConfigError("values", f"are {len(values)} for {self.counts.shape[1]} replies", "give one for each")
        weights = self.counts if present is None else self.counts * np.asarray(present, dtype=float)
        number = weights.sum(axis=1)
        return (weights @ np.asarray(values, dtype=float))[number > 0] / number[number > 0]

    def quantiles(self, scores: np.ndarray) -> tuple[float, float]:
        """Interval of a score that each resample has; NaN without any."""
        low, high = np.quantile(scores, self.tails) if len(scores) else (float("nan"),) * 2
        return float(low), float(high)


@dataclass(frozen=True)
class NgramCounts:
    """What BLEU needs of each reply, as NLTK counts it.

    Attributes
    ----------
    matches, possible : array (N, orders)
        N-grams of order 1, 2 and so on that its reference has too, and those that it has.
    spoken, wanted : array (N,)
        Tokens of the reply, and of its reference.
    """

    matches: np.ndarray
    possible: np.ndarray
    spoken: np.ndarray
    wanted: np.ndarray

    @classmethod
    def of(
        cls, hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[str]], orders: int = 4
    ) -> NgramCounts:
        """Count them once, for any number of resamples and weights."""
        pairs = list(zip(hypotheses, references))
        shares = [[modified_precision([two], one, order + 1) for order in range(orders)] for one, two in pairs]
        return cls(
            np.array([[share.numerator for share in row] for row in shares], dtype=float),
            np.array([[share.denominator for share in row] for row in shares], dtype=float),
            np.array([len(one) for one, _ in pairs], dtype=float),
            np.array([closest_ref_length([two], len(one)) for one, two in pairs], dtype=float),
        )


def resampled_bleu(counts: np.ndarray, ngrams: NgramCounts, weights: Sequence[float]) -> np.ndarray:
    """NLTK's corpus BLEU, smoothing method 1, of each resample.

    Arguments
    ---------
    counts : array (resamples, N)
        How often each reply is in each resample.
    ngrams : NgramCounts
        Of N replies.
    weights : sequence of float
        Of n-grams of order 1, 2 and so on.

    Returns
    -------
    array (resamples,)
    """
    orders = len(weights)
    matches, possible = counts @ ngrams.matches[:, :orders], counts @ ngrams.possible[:, :orders]
    spoken, wanted = counts @ ngrams.spoken, counts @ ngrams.wanted
    precisions = np.where(matches == 0, EPSILON, matches) / possible
    brevity = np.exp(np.minimum(0.0, 1 - wanted / np.maximum(spoken, 1)))
    scores = brevity * np.exp(np.log(precisions) @ np.asarray(weights))
    return np.where((matches[:, 0] == 0) | (spoken == 0), 0.0, scores)
