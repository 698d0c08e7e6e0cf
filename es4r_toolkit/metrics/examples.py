"""Single replies with what they score, so that the worst can be looked at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from es4r_toolkit.data.predictions import Prediction
from es4r_toolkit.metrics.slots import SlotTable, slots_right


@dataclass(frozen=True)
class Said:
    """What one system said to one dialogue.

    Attributes
    ----------
    text : str
    rouge : float
        ROUGE-L against the reference.
    slots : mapping of str to bool
        Whether each slot of the dialogue is right.
    """

    text: str
    rouge: float
    slots: Mapping[str, bool]

    @property
    def right(self) -> float:
        """Share of its slots; 0 without any."""
        return sum(self.slots.values()) / len(self.slots) if self.slots else 0.0


@dataclass(frozen=True)
class Example:
    """One dialogue.

    Attributes
    ----------
    id : str
    reference : str
    said : tuple of Said
        Of one system, or of two.
    """

    id: str
    reference: str
    said: tuple[Said, ...]

    @property
    def merit(self) -> tuple[float, float]:
        """How good the first system's reply is, or how much better than the second's: slots first, then ROUGE-L."""
        first, *others = self.said
        return (
            first.right - sum(one.right for one in others),
            first.rouge - sum(one.rouge for one in others),
        )


def examples(
    systems: Sequence[Sequence[Prediction]], table: SlotTable | None, rouge: Sequence[Sequence[float]]
) -> list[Example]:
    """The dialogues that one system or two answered, the least merit first.

    Arguments
    ---------
    systems : sequence of sequence of Prediction
        The same dialogues in the same order for each.
    table : SlotTable or None
        For slots.
    rouge : sequence of sequence of float
        ROUGE-L of each reply, for each system.

    Example
    -------
    >>> said = [Prediction("1", 1, "I am so sorry.", "I am so sorry."), Prediction("2", 2, "Hm.", "I hear you.")]
    >>> [(one.id, one.merit) for one in examples([said], None, [[1.0, 0.25]])]
    [('2', (0.0, 0.25)), ('1', (0.0, 1.0))]
    """
    scored = [_scored(predictions, table, scores) for predictions, scores in zip(systems, rouge, strict=True)]
    found = [
        Example(one.item, one.reference, said) for one, said in zip(systems[0], zip(*scored, strict=True), strict=True)
    ]
    return sorted(found, key=lambda example: example.merit)


def _scored(predictions: Sequence[Prediction], table: SlotTable | None, rouge: Sequence[float]) -> list[Said]:
    texts = [one.response for one in predictions]
    hits = {} if table is None else slots_right(texts, [one.slots for one in predictions], table)
    return [
        Said(text, value, {slot: bool(right[place]) for slot, right in hits.items() if right[place] is not None})
        for place, (text, value) in enumerate(zip(texts, rouge))
    ]
