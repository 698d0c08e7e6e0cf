"""The dialogue cohesion ratio: how much more alike turns of one dialogue are than turns of different ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from es4r_toolkit.errors import ConfigError
from es4r_toolkit.metrics.bootstrap import Bootstrap


class Cohesion:
    """Cosine similarity of turns within dialogues over that between dialogues.

    ES4R (arXiv 2601.16225) reports such a ratio, 1.00 without dual attention
    and 1.08 with it, and gives no formula. Here it is the mean cosine over all
    pairs of turns of one dialogue, over the mean cosine of all pairs of turns
    of two dialogues, without the mean taken out of the vectors.

    Arguments
    ---------
    dialogues : sequence of array (turns, F)
        A vector for each turn; a zero vector is like nothing.

    Raises
    ------
    ConfigError
        If there are fewer than two dialogues, none of two turns, or vectors
        of different sizes.

    Example
    -------
    >>> alike = Cohesion([np.eye(2)[[0, 0]] + 0.5, np.eye(2)[[1, 1]] + 0.5])
    >>> round(alike.within, 3), round(alike.between, 3), round(alike.ratio, 3)
    (1.0, 0.6, 1.667)
    """

    def __init__(self, dialogues: Sequence[np.ndarray]):
        arrays = [np.asarray(turns, dtype=float) for turns in dialogues]
        if len({turns.shape[1:] for turns in arrays if turns.ndim == 2}) != 1 or any(a.ndim != 2 for a in arrays):
            raise ConfigError("representations", "differ in size", "give a vector of one size for each turn")
        self.turns = np.array([len(turns) for turns in arrays])
        if len(arrays) < 2 or self.turns.max() < 2:
            raise ConfigError("representations", f"of {len(arrays)} dialogues", "two are needed, one of two turns")
        units = [_unit(turns) for turns in arrays]
        self._sums = np.stack([unit.sum(axis=0) for unit in units])
        # Sums of cosines over all ordered pairs of turns of a dialogue, with each turn and itself, and without.
        self._whole = np.square(self._sums).sum(axis=1)
        self._inside = self._whole - [np.square(unit).sum() for unit in units]
        once = np.ones((1, len(arrays)))
        self.within, self.between = (float(part[0]) for part in self._means(once))

    @property
    def ratio(self) -> float | None:
        """None where turns of different dialogues are not alike at all, and nothing can be divided by it."""
        return self.within / self.between if self.between > 0 else None

    def interval(self) -> tuple[float, float] | None:
        """Of the bootstrap over dialogues, at 95 %; a dialogue drawn twice is no other dialogue to itself."""
        bootstrap = Bootstrap(len(self.turns))
        # A resample without any dialogue of two turns has no ratio.
        within, between = self._means(bootstrap.counts[bootstrap.counts @ (self.turns > 1) > 0])
        return bootstrap.quantiles(within / between) if (between > 0).all() else None

    def _means(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean cosines within and between dialogues where each is there so many times (resamples, dialogues)."""
        pairs = self.turns * (self.turns - 1)
        within = counts @ self._inside / np.maximum(counts @ pairs, 1)
        squares = np.square(counts)
        across = np.square(counts @ self._sums).sum(axis=1) - squares @ self._whole
        number = np.square(counts @ self.turns) - squares @ np.square(self.turns)
        return within, across / np.maximum(number, 1)


def similarity(dialogues: Sequence[np.ndarray]) -> np.ndarray:
    """Cosines (N, N) between all turns of some dialogues, in order.

    Example
    -------
    >>> similarity([np.array([[1.0, 0.0]]), np.array([[0.0, 2.0], [3.0, 0.0]])]).tolist()
    [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    """
    turns = _unit(np.concatenate([np.asarray(turns, dtype=float) for turns in dialogues]))
    return turns @ turns.T


def _unit(turns: np.ndarray) -> np.ndarray:
    return turns / np.linalg.norm(turns, axis=1, keepdims=True).clip(min=1e-12)
