"""Whether replies were spoken as their strategies asked: rate, pitch, loudness and pitch range."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from es4r_toolkit.data.manners import NEUTRAL
from es4r_toolkit.metrics.bootstrap import Bootstrap
from es4r_toolkit.metrics.hearing import HeardReply

FEWEST = 5  # replies that must be asked for something else than most are
PARTS = 20  # of the resamples


@dataclass(frozen=True)
class Measured:
    """What follows a field of Prosody where a voice honours it.

    Attributes
    ----------
    name : str
        What is measured.
    of : callable
        HeardReply -> it, or None.
    asked, found : callable
        Bring what is asked and what is measured to scales on which a voice that does as it is told has slope 1.
    """

    name: str
    of: Callable[[HeardReply], float | None]
    asked: Callable[[np.ndarray], np.ndarray]
    found: Callable[[np.ndarray], np.ndarray]


def _semitones(hertz: np.ndarray) -> np.ndarray:
    return 12 * np.log2(hertz)


def _as_it_is(values: np.ndarray) -> np.ndarray:
    return values


MEASURED = {
    "rate": Measured("words per second", lambda reply: reply.words_per_second, np.log2, np.log2),
    "pitch_shift": Measured("median F0", lambda reply: reply.prosody.f0, _as_it_is, _semitones),
    "expressiveness": Measured("F0 range", lambda reply: reply.prosody.f0_range, np.log2, np.log2),
    "energy": Measured("level", lambda reply: reply.prosody.level, _as_it_is, _as_it_is),
}


@dataclass(frozen=True)
class Agreement:
    """How one thing that was asked of the voice and what was measured go together.

    Attributes
    ----------
    measured : str
        What was measured.
    replies : int
        Over which.
    correlation : float
        Spearman's rank correlation, in [-1, 1].
    slope : float
        Of the straight line: 1 where the voice does just what is asked (twice the rate, a semitone for a semitone,
        a dB for a dB, twice the range), 0 where it does nothing.
    correlation_interval, slope_interval : tuple of float
        Of the bootstrap over replies, at 95 %.
    """

    measured: str
    replies: int
    correlation: float
    slope: float
    correlation_interval: tuple[float, float]
    slope_interval: tuple[float, float]

    def as_dict(self) -> dict[str, object]:
        """Plain values, rounded."""
        rounded = {
            name: [round(end, 4) for end in value] if isinstance(value, tuple) else round(value, 4)
            for name, value in vars(self).items()
            if name not in ("measured", "replies")
        }
        return {"measured": self.measured, "replies": self.replies, **rounded}


def prosody_agreement(heard: Sequence[HeardReply]) -> tuple[dict[str, Agreement], list[str]]:
    """Agreement of what was asked with what was measured, for each field of Prosody.

    Replies say different words, and words alone change rate, pitch and level: what the voice does shows over many.

    Arguments
    ---------
    heard : sequence of HeardReply
        Those without a manner are passed over.

    Returns
    -------
    agreements : dict of str to Agreement
        Field -> agreement, where enough differs.
    notes : list of str
        Why a field has none, and which fields the voice does not honour.
    """
    told = [reply for reply in heard if reply.manner is not None]
    agreements, notes = {}, []
    if len(told) < len(heard):
        notes.append(f"{len(heard) - len(told)} replies do not say with which strategy they were spoken")
    for field, measured in MEASURED.items():
        pairs = [pair for reply in told if (pair := asked_and_found(reply, field)) is not None]
        deaf = sum(reply.manner.honours is not None and field not in reply.manner.honours for reply in told)
        if deaf:
            notes.append(f"{field}: the voice of {deaf} replies does not honour it; agreement is then of chance")
        commonest, others = commonest_and_others(pairs, field)
        if others < FEWEST:
            told_else = f"only {others} replies were asked for anything but {commonest:g}"
            notes.append(f"no agreement of {field}: {told_else}, and {FEWEST} are needed")
            continue
        agreements[field] = _agreement(measured.name, *scaled(pairs, field))
    return agreements, notes


def asked_and_found(reply: HeardReply, field: str) -> tuple[float, float] | None:
    """What was asked of the voice for one reply and what was measured of it; None where one is not known."""
    found = None if reply.manner is None else MEASURED[field].of(reply)
    # One word without its vowel has no range, and nothing has a logarithm of 0.
    if found is None or (found <= 0 and field != "energy"):
        return None
    return reply.manner.prosody[field], found


def commonest_and_others(pairs: Sequence[tuple[float, float]], field: str) -> tuple[float, int]:
    """What most replies were asked for, and how many were asked for anything else."""
    commonest, times = Counter(asked for asked, _ in pairs).most_common(1)[0] if pairs else (NEUTRAL[field], 0)
    return commonest, len(pairs) - times


def scaled(pairs: Sequence[tuple[float, float]], field: str) -> tuple[np.ndarray, np.ndarray]:
    """What was asked (N,) and measured (N,), on the scales of `MEASURED`."""
    asked, found = (np.array(column) for column in zip(*pairs))
    return MEASURED[field].asked(asked), MEASURED[field].found(found)


def resampled(
    figure: Callable[[np.ndarray, np.ndarray], np.ndarray], asked: np.ndarray, found: np.ndarray, bootstrap: Bootstrap
) -> np.ndarray:
    """`spearman` or `slope` in each resample; NaN in one where all were asked for the same."""
    draws = np.stack([np.repeat(np.arange(len(asked)), times) for times in bootstrap.counts.astype(int)])
    # Some at a time, for of ten thousand replies all would take a gigabyte.
    return np.concatenate([figure(asked[some], found[some]) for some in np.array_split(draws, PARTS)])


def spearman(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Rank correlation along the last axis, ties at their mean rank; NaN where one of them is constant.

    Example
    -------
    >>> spearman(np.array([1, 2, 2, 3]), np.array([10, 20, 40, 30])).round(4).item()
    0.6325
    """
    one, other = (_centred(rankdata(column, axis=-1)) for column in (one, other))
    return _divided((one * other).sum(-1), np.sqrt((one * one).sum(-1) * (other * other).sum(-1)))


def slope(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Slope of the least squares line of ``other`` on ``one``, along the last axis; NaN where ``one`` is constant.

    Example
    -------
    >>> slope(np.array([0.0, 1.0, 2.0]), np.array([5.0, 5.5, 6.0])).item()
    0.5
    """
    one, other = _centred(one), _centred(other)
    return _divided((one * other).sum(-1), (one * one).sum(-1))


def _centred(column: np.ndarray) -> np.ndarray:
    return column - column.mean(axis=-1, keepdims=True)


def _divided(product: np.ndarray, spread: np.ndarray) -> np.ndarray:
    # The mean of equal numbers may differ from them in its last digit.
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > 1e-12, product / spread, np.nan)


def _agreement(name: str, asked: np.ndarray, found: np.ndarray) -> Agreement:
    bootstrap = Bootstrap(len(asked))

    def interval(figure: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> tuple[float, float]:
        drawn = resampled(figure, asked, found, bootstrap)
        return bootstrap.quantiles(drawn[np.isfinite(drawn)])

    return Agreement(
        name,
        len(asked),
        float(spearman(asked, found)),
        float(slope(asked, found)),
        interval(spearman),
        interval(slope),
    )
