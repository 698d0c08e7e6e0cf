"""Two systems' speech on the same dialogues: by how much it differs, and whether chance could have done it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from es4r_toolkit.errors import DialogueError
from es4r_toolkit.metrics.bootstrap import Bootstrap
from es4r_toolkit.metrics.comparison import Difference, difference
from es4r_toolkit.metrics.hearing import HeardReply
from es4r_toolkit.metrics.prosody_agreement import (
    FEWEST,
    MEASURED,
    asked_and_found,
    commonest_and_others,
    resampled,
    scaled,
    spearman,
)
from es4r_toolkit.metrics.speech import FIGURES, weighted_means

Pair = tuple[HeardReply, HeardReply]


@dataclass(frozen=True)
class SpeechComparison:
    """How two systems speak.

    Attributes
    ----------
    paired : int
        Dialogues of which both replies were heard.
    only_first, only_second : list of str
        Ids of the dialogues of which one reply alone was; they are not compared.
    metrics : dict of str to Difference
        Of each figure of speech, over the replies of both that have it, and of ``<field>_correlation``, the rank
        correlation of what was asked with what was measured.
    """

    paired: int
    only_first: list[str]
    only_second: list[str]
    metrics: dict[str, Difference]

    def as_dict(self) -> dict[str, object]:
        """Plain values, rounded."""
        return {"paired": self.paired, "metrics": {name: one.as_dict() for name, one in self.metrics.items()}}


def compare_speech(first: Sequence[HeardReply], second: Sequence[HeardReply], seed: int = 0) -> SpeechComparison:
    """Compare two systems over the dialogues of which both replies were heard.

    Arguments
    ---------
    first, second : sequence of HeardReply
        Paired by ``id``.
    seed : int
        Of the resamples.

    Raises
    ------
    DialogueError
        If they have no dialogue in common.
    """
    pairs = paired(first, second)
    if not pairs:
        raise DialogueError("spoken replies", "have no id in common", "speak the same dialogues")
    metrics: dict[str, Difference] = {}
    for name, figure in FIGURES.items():
        columns = [figure.columns(side) for side in zip(*pairs)]
        # A reply without pitch in one system says nothing of the difference.
        there = np.logical_and(*(~np.isnan(amounts) for amounts, _ in columns))
        columns = [(amounts[there], weights[there]) for amounts, weights in columns]
        if all(weights.any() for _, weights in columns):
            metrics[name] = _figure_difference(columns, Bootstrap(int(there.sum()), seed=seed))
    for field in MEASURED:
        if (found := _agreement_difference(pairs, field, seed)) is not None:
            metrics[f"{field}_correlation"] = found
    both = {reply.id for reply, _ in pairs}
    only_first, only_second = ([reply.id for reply in side if reply.id not in both] for side in (first, second))
    return SpeechComparison(len(pairs), only_first, only_second, metrics)


def paired(first: Sequence[HeardReply], second: Sequence[HeardReply]) -> list[Pair]:
    """The replies of both to the same dialogues, in the order of the first."""
    others = {reply.id: reply for reply in second}
    return [(reply, others[reply.id]) for reply in first if reply.id in others]


def _figure_difference(columns: Sequence[tuple[np.ndarray, np.ndarray]], bootstrap: Bootstrap) -> Difference:
    once = np.ones((1, bootstrap.counts.shape[1]))
    values = [float(weighted_means(once, *column)[0]) for column in columns]
    drawn = np.subtract(*(weighted_means(bootstrap.counts, *column) for column in columns))
    return difference(*values, drawn[np.isfinite(drawn)], bootstrap)


def _agreement_difference(pairs: Sequence[Pair], field: str, seed: int) -> Difference | None:
    """None where either system was not asked for enough that differs."""
    both = [[asked_and_found(reply, field) for reply in pair] for pair in pairs]
    sides = list(zip(*(pair for pair in both if None not in pair)))
    if not sides or any(commonest_and_others(side, field)[1] < FEWEST for side in sides):
        return None
    bootstrap = Bootstrap(len(sides[0]), seed=seed)
    columns = [scaled(side, field) for side in sides]
    values = [float(spearman(*column)) for column in columns]
    drawn = np.subtract(*(resampled(spearman, *column, bootstrap) for column in columns))
    # Where all that was measured is one value there is no rank.
    return difference(*values, drawn[np.isfinite(drawn)], bootstrap) if np.isfinite(values).all() else None
