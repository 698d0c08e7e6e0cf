"""Two systems on the same test set: by how much one scores better, and whether chance could have done it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from es4r_toolkit.data.predictions import Prediction
from es4r_toolkit.errors import DialogueError
from es4r_toolkit.metrics.bootstrap import Bootstrap
from es4r_toolkit.metrics.slots import SlotTable, slots_right
from es4r_toolkit.metrics.text import PairScorer, TextScores

NAMED = 3  # ids that a note gives


@dataclass(frozen=True)
class Difference:
    """One metric of two systems.

    Attributes
    ----------
    first, second : float
        What each scores on the dialogues that both answered.
    difference : float
        First less second.
    interval : tuple of float
        95 % of resamples of the dialogues have their difference in it.
    p : float
        How often resamples of two equal systems would differ as much, two-sided: the paired bootstrap (Koehn, 2004).
    """

    first: float
    second: float
    difference: float
    interval: tuple[float, float]
    p: float

    def as_dict(self) -> dict[str, object]:
        """Plain values, rounded."""
        rounded = {name: round(getattr(self, name), 4) for name in ("first", "second", "difference", "p")}
        return rounded | {"interval": [round(value, 4) for value in self.interval]}


@dataclass(frozen=True)
class Comparison:
    """Two systems.

    Attributes
    ----------
    paired : int
        Dialogues that both answered.
    only_first, only_second : list of str
        Ids of the dialogues that one alone answered; they are not compared.
    metrics : dict of str to Difference
        Of BLEU, ROUGE, the scores beside them and each slot.
    pairs : list of tuple of Prediction
        The dialogues that both answered.
    rouge : tuple of list of float
        ROUGE-L of each of their replies, of the first system and of the second.
    """

    paired: int
    only_first: list[str]
    only_second: list[str]
    metrics: dict[str, Difference]
    pairs: list[tuple[Prediction, Prediction]]
    rouge: tuple[list[float], list[float]]


def compare(
    first: Sequence[Prediction],
    second: Sequence[Prediction],
    table: SlotTable | None = None,
    seed: int = 0,
    more: Mapping[str, PairScorer] | None = None,
) -> Comparison:
    """Compare two systems over the dialogues that both answered.

    Arguments
    ---------
    first, second : sequence of Prediction
        Paired by ``id`` where every record has one, in their order otherwise.
    table : SlotTable or None
        For slot accuracies.
    seed : int
        Of the resamples.
    more : mapping of str to callable, optional
        Further scores of a pair, as `TextScores` takes them.

    Raises
    ------
    DialogueError
        If they cannot be paired: not as many without ids, an id twice, other references, or nothing in common.
    """
    pairs, only_first, only_second = pair(first, second)
    bootstrap = Bootstrap(len(pairs), seed=seed)
    references = [one.reference for one, _ in pairs]
    scores, resamples, rouge = [], [], []
    for place in (0, 1):
        texts = [pair[place].response for pair in pairs]
        scored = TextScores(texts, references, more)
        scores.append(scored.corpus())
        rouge.append(scored.each["rougeL"])
        resamples.append(scored.resamples(bootstrap))
        if table is not None:
            hits = slots_right(texts, [pair[0].slots for pair in pairs], table)
            for slot, right in hits.items():
                present = [hit is not None for hit in right]
                if any(present):
                    values = [bool(hit) for hit in right]
                    scores[-1][slot] = float(np.mean([hit for hit in right if hit is not None]))
                    resamples[-1][slot] = bootstrap.means(values, present)
    metrics = {
        name: difference(*(score[name] for score in scores), resamples[0][name] - drawn, bootstrap)
        for name, drawn in resamples[1].items()
    }
    return Comparison(len(pairs), only_first, only_second, metrics, pairs, tuple(rouge))


def difference(first: float, second: float, drawn: np.ndarray, bootstrap: Bootstrap) -> Difference:
    """Two scores, and their difference in each resample (resamples,) -> what is said of them."""
    found = first - second
    # Centred, resamples are those of two systems that are as good as one another.
    beyond = np.abs(drawn - drawn.mean()) >= abs(found) - 1e-12
    p = 1.0 if found == 0 else float((1 + beyond.sum()) / (1 + len(drawn)))
    return Difference(first, second, found, bootstrap.quantiles(drawn), p)


def unpaired(sources: Mapping[str, Sequence[str]]) -> list[str]:
    """What to say of the dialogues that one of two sources alone has: source -> their ids.

    Example
    -------
    >>> unpaired({"a.jsonl": [], "b.jsonl": ["7"]})
    ['1 dialogue is in b.jsonl alone, and is not compared: 7']
    """
    notes = []
    for source, ids in sources.items():
        things, are = ("dialogue", "is") if len(ids) == 1 else ("dialogues", "are")
        rest = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
        named = ", ".join(ids[:NAMED]) + rest
        notes += [f"{len(ids)} {things} {are} in {source} alone, and {are} not compared: {named}"] if ids else []
    return notes


def pair(
    first: Sequence[Prediction], second: Sequence[Prediction]
) -> tuple[list[tuple[Prediction, Prediction]], list[str], list[str]]:
    """The dialogues that both answered, and the ids of those that the first and the second alone did.

    Raises
    ------
    DialogueError
        As ``compare``.
    """
    pairs, only_first, only_second = _matched(first, second)
    for one, other in pairs:
        if one.reference != other.reference:
            raise DialogueError(one.item, "has another reference in the other file", "score both on the same test set")
    return pairs, only_first, only_second


def _matched(
    first: Sequence[Prediction], second: Sequence[Prediction]
) -> tuple[list[tuple[Prediction, Prediction]], list[str], list[str]]:
    named = [_by_id(predictions) for predictions in (first, second)]
    if None in named:
        if len(first) != len(second):
            raise DialogueError(
                "predictions", f"are {len(first)} and {len(second)}, without ids to pair them by", "give each its id"
            )
        return list(zip(first, second)), [], []
    common = [name for name in named[0] if name in named[1]]
    if not common:
        raise DialogueError("predictions", "have no id in common", "score both on the same test set")
    pairs = [(named[0][name], named[1][name]) for name in common]
    only_first, only_second = ([name for name in one if name not in other] for one, other in (named, named[::-1]))
    return pairs, only_first, only_second


def _by_id(predictions: Sequence[Prediction]) -> dict[str, Prediction] | None:
    """The predictions by id; None where one has none."""
    if not all(prediction.named for prediction in predictions):
        return None
    found = {prediction.item: prediction for prediction in predictions}
    if len(found) < len(predictions):
        raise DialogueError("predictions", "have an id more than once", "give each dialogue its own")
    return found
