"""Figures of a listening test: how often one system wins, with intervals, and how far raters agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from es4r_toolkit.data.listening import ASPECTS, Key, Rating
from es4r_toolkit.metrics.agreement import krippendorff_alpha, same_answers
from es4r_toolkit.metrics.bootstrap import LEVEL, Bootstrap

OUTCOMES = {"win": 1, "tie": 0, "lose": -1}


@dataclass(frozen=True)
class Preference:
    """What raters preferred on one aspect.

    Attributes
    ----------
    ratings, dialogues, raters : int
        How many answers there are, to how many dialogues, by how many raters.
    shares : dict of str to float
        ``win``, ``tie`` and ``lose`` of the first system, as shares of the answers.
    intervals : dict of str to tuple of float
        95 % of resamples of the dialogues and of the raters have those shares in them.
    net : float
        Win less lose.
    net_interval : tuple of float
        The same for it: a system is preferred where it does not hold 0.
    agreement : float or None
        Share of pairs of raters that gave the same answer; None where no dialogue has two.
    alpha : float or None
        Krippendorff's, for answers in the order lose, tie, win; None where it is not defined.
    """

    ratings: int
    dialogues: int
    raters: int
    shares: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    net: float
    net_interval: tuple[float, float]
    agreement: float | None
    alpha: float | None

    def as_dict(self) -> dict[str, object]:
        """Plain values, rounded."""
        counts = {name: getattr(self, name) for name in ("ratings", "dialogues", "raters")}
        shares = {name: round(share, 4) for name, share in self.shares.items()}
        intervals = {f"{name}_interval": _rounded(interval) for name, interval in self.intervals.items()}
        net = {"net": round(self.net, 4), "net_interval": _rounded(self.net_interval)}
        raters = {name: _round(getattr(self, name)) for name in ("agreement", "alpha")}
        return counts | shares | intervals | net | raters


@dataclass(frozen=True)
class RaterSummary:
    """What one rater did; those who always take the same side stand out here.

    Attributes
    ----------
    answered, asked : int
        Answers given, and questions of the test.
    ties : float
        Share of "no difference".
    shown_first : float or None
        Of the other answers, the share that prefers the reply shown as A: about a half for one who does not care
        about places, since they are shuffled. None without any.
    """

    answered: int
    asked: int
    ties: float
    shown_first: float | None

    def as_dict(self) -> dict[str, object]:
        """Plain values, rounded."""
        return vars(self) | {"ties": round(self.ties, 4), "shown_first": _round(self.shown_first)}


def preferences(ratings: Sequence[Rating], seed: int = 0) -> dict[str, Preference]:
    """Win, tie and lose of the first system on each aspect that was rated.

    Intervals are of a bootstrap that draws dialogues and raters, independently of one another, with replacement
    (Owen, 2007, *The pigeonhole bootstrap*): other dialogues and other raters would have given other figures. With a
    single rater it is one over dialogues, and says nothing of raters. A share of 0 or 1 is the same in all resamples,
    which does not make it certain: it reaches as far as the exact interval (Clopper and Pearson, 1934) of one trial
    a dialogue.

    Arguments
    ---------
    ratings : sequence of Rating
        At most one by a rater to a question.
    seed : int
        Of the resamples.

    Example
    -------
    >>> ratings = [Rating("Anna", str(item), "topic", 1 if item < 6 else -1, 1) for item in range(8)]
    >>> found = preferences(ratings)["topic"]
    >>> found.shares, found.net
    ({'win': 0.75, 'tie': 0.0, 'lose': 0.25}, 0.5)
    """
    by_aspect = {name: [rating for rating in ratings if rating.aspect == name] for name in ASPECTS}
    return {name: _preference(answers, seed) for name, answers in by_aspect.items() if answers}


def rater_summaries(ratings: Sequence[Rating], key: Key) -> dict[str, RaterSummary]:
    """What each rater did, by name."""
    asked = sum(len(item.aspects) for item in key.items.values())
    found = {}
    for rater in sorted({rating.rater for rating in ratings}):
        places = [rating.place for rating in ratings if rating.rater == rater]
        decided = [place for place in places if place]
        first = sum(place == 1 for place in decided) / len(decided) if decided else None
        found[rater] = RaterSummary(len(places), asked, 1 - len(decided) / len(places), first)
    return found


def _preference(answers: Sequence[Rating], seed: int) -> Preference:
    items, raters = (_places(getattr(rating, name) for rating in answers) for name in ("item", "rater"))
    # What each rater said of each dialogue (dialogues, raters); NaN for nothing.
    said = np.full((len(items), len(raters)), np.nan)
    for rating in answers:
        said[items[rating.item], raters[rating.rater]] = rating.preference
    draws = Bootstrap(len(items), seed=seed), Bootstrap(len(raters), seed=seed + 1)
    shares, resampled = {}, {}
    for name, preference in OUTCOMES.items():
        shares[name] = float(np.mean([rating.preference == preference for rating in answers]))
        resampled[name] = _resampled(said == preference, ~np.isnan(said), *draws)
    units = [row[~np.isnan(row)].tolist() for row in said]
    return Preference(
        len(answers),
        len(items),
        len(raters),
        shares,
        {name: _interval(values, draws[0]) for name, values in resampled.items()},
        shares["win"] - shares["lose"],
        _net_interval(resampled["win"] - resampled["lose"], draws[0]),
        same_answers(units),
        krippendorff_alpha(units),
    )


def _places(names: Iterable[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(sorted(set(names)))}


def _resampled(hits: np.ndarray, present: np.ndarray, dialogues: Bootstrap, raters: Bootstrap) -> np.ndarray:
    """The share of hits in each resample, from (dialogues, raters); a resample without answers is left out."""
    hit, answered = (((dialogues.counts @ table) * raters.counts).sum(axis=1) for table in (hits, present))
    return hit[answered > 0] / answered[answered > 0]


def _interval(resampled: np.ndarray, dialogues: Bootstrap) -> tuple[float, float]:
    low, high = dialogues.quantiles(resampled)
    reach = 0.0 if low < high else _unseen(dialogues)
    return max(low - reach, 0.0), min(high + reach, 1.0)


def _net_interval(resampled: np.ndarray, dialogues: Bootstrap) -> tuple[float, float]:
    low, high = dialogues.quantiles(resampled)
    # Where all answers are wins, each that is not takes a win away and is a loss.
    reach = 0.0 if low < high else _unseen(dialogues) * (2 if low else 1)
    return max(low - reach, -1.0), min(high + reach, 1.0)


def _unseen(dialogues: Bootstrap) -> float:
    """The largest share that may well be without being seen in any dialogue."""
    return 1 - ((1 - LEVEL) / 2) ** (1 / dialogues.counts.shape[1])


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(value, 4) for value in interval]
