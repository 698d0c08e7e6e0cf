"""Bootstrap intervals: how far a score could lie off for the choice of test dialogues alone (Efron, 1979)."""

from __future__ import annotations

from collections.abc import Sequence

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
        # How often each reply is in each resample (resamples, number).
        self.counts = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=resamples)

    def mean(self, values: Sequence[float], present: Sequence[bool] | None = None) -> tuple[float, float]:
        """Interval of the mean of a value a reply has, over those replies where it is ``present``."""
        return self.quantiles(self.means(values, present))

    def means(self, values: Sequence[float], present: Sequence[bool] | None = None) -> np.ndarray:
        """That mean in each resample; one that holds none of those replies is left out."""
        if len(values) != self.counts.shape[1]:
            raise ConfigError("values", f"are {len(values)} for {self.counts.shape[1]} replies", "give one for each")
        weights = self.counts if present is None else self.counts * np.asarray(present, dtype=int)
        number = weights.sum(axis=1)
        return (weights @ np.asarray(values, dtype=float))[number > 0] / number[number > 0]

    def bleu(
        self, hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[str]], weights: Sequence[float]
    ) -> tuple[float, float]:
        """Interval of NLTK's corpus BLEU, smoothing method 1, of tokenized replies with one reference each."""
        return self.quantiles(resampled_bleu(self.counts, hypotheses, references, weights))

    def quantiles(self, scores: np.ndarray) -> tuple[float, float]:
        """Interval of a score that each resample has; NaN without any."""
        low, high = np.quantile(scores, self.tails) if len(scores) else (float("nan"),) * 2
        return float(low), float(high)


def resampled_bleu(
    counts: np.ndarray,
    hypotheses: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    weights: Sequence[float],
) -> np.ndarray:
    """Corpus BLEU of each resample from n-grams that NLTK counts once a reply.

    Arguments
    ---------
    counts : array (resamples, N)
        How often each reply is in each resample.
    hypotheses, references : sequence of sequence of str
        Tokens, N of each.
    weights : sequence of float
        Of n-grams of order 1, 2 and so on.

    Returns
    -------
    array (resamples,)
    """
    pairs = list(zip(hypotheses, references))
    found, lengths = [], []
    for hypothesis, reference in pairs:
        shares = [modified_precision([reference], hypothesis, order + 1) for order in range(len(weights))]
        found.append([(share.numerator, share.denominator) for share in shares])
        lengths.append((len(hypothesis), closest_ref_length([reference], len(hypothesis))))
    matches, possible = (counts @ np.array(found, dtype=float)[:, :, part] for part in (0, 1))
    spoken, wanted = (counts @ np.array(lengths, dtype=float)[:, part] for part in (0, 1))
    precisions = np.where(matches == 0, EPSILON, matches) / possible
    brevity = np.exp(np.minimum(0.0, 1 - wanted / np.maximum(spoken, 1)))
    scores = brevity * np.exp(np.log(precisions) @ np.asarray(weights))
    return np.where((matches[:, 0] == 0) | (spoken == 0), 0.0, scores)
