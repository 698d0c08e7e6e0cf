"""Single spoken replies, so that the worst can be heard first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from es4r_toolkit.metrics.hearing import HeardReply
from es4r_toolkit.metrics.speech import BY_STRATEGY, FIGURES
from es4r_toolkit.metrics.speech_comparison import paired

Spoken = tuple[HeardReply, ...]


def worst_spoken(systems: Sequence[Sequence[HeardReply]]) -> tuple[list[Spoken], str]:
    """What one system or two spoke, the worst of the first system first.

    Arguments
    ---------
    systems : sequence of sequence of HeardReply
        Of two, the dialogues of both alone.

    Returns
    -------
    replies : list of tuple of HeardReply
        To each dialogue, of each system.
    order : str
        By what they are ordered: word errors where words were recognized, opinion scores where those were predicted,
        and how far a reply lies from the system's others where neither was.
    """
    first, *others = systems
    replies: list[Spoken] = paired(first, others[0]) if others else [(reply,) for reply in first]
    if all(reply.errors is not None for pair in replies for reply in pair):
        bad = [[_misheard(reply) for reply in pair] for pair in replies]
        order = "how many more word errors than the other's" if others else "word errors"
    elif all(reply.mos is not None for pair in replies for reply in pair):
        bad = [[-reply.mos for reply in pair] for pair in replies]
        order = "how far the predicted opinion is below the other's" if others else "predicted opinion"
    else:
        bad = [[one] for one in _oddness([pair[0] for pair in replies])]
        order = "how far each lies from the mean of all in rate, pitch, range or level (in standard deviations)"
    behind = [own - sum(rest) for own, *rest in bad]
    ranked = sorted(range(len(replies)), key=lambda place: -behind[place])
    return [replies[place] for place in ranked], order


def _misheard(reply: HeardReply) -> float:
    return reply.errors / max(reply.words, 1)


def _oddness(replies: Sequence[HeardReply]) -> list[float]:
    """How many standard deviations each reply is from the mean, in the figure in which it is farthest."""
    farthest = np.zeros(len(replies))
    for name in BY_STRATEGY:
        values = np.array([np.nan if (value := FIGURES[name].of(reply)) is None else value for reply in replies])
        there = np.isfinite(values)
        if there.any() and (spread := values[there].std()) > 0:
            away = np.abs(values - values[there].mean()) / spread
            farthest = np.fmax(farthest, away)
    return farthest.tolist()
