"""Slot accuracies: whether a reply expresses the affect, trend or topic that it should."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from es4r_toolkit.data.records import read_json, read_text, type_name
from es4r_toolkit.errors import ConfigError, DialogueError
from es4r_toolkit.metrics.bootstrap import Bootstrap

SHAPE = "write {slot: {value: [phrase, ...]}}"


@dataclass(frozen=True)
class SlotTable:
    """Which phrases express which value of which slot (ours).

    Attributes
    ----------
    phrases : dict
        ``{slot: {value: (phrase, ...)}}``. No phrase may stand inside a phrase of another value of its slot, for a
        reply that used it would then express both.

    Raises
    ------
    DialogueError
        If a slot has fewer than two values, a value has no phrase, or two values cannot be told apart.

    Example
    -------
    >>> table = SlotTable({"affect": {"sad": ("so sorry",), "glad": ("wonderful", "so happy")}})
    >>> table.predicted("I am SO sorry to hear it."), table.predicted("So happy, so sorry!")
    ({'affect': 'sad'}, {'affect': None})
    """

    phrases: dict[str, dict[str, tuple[str, ...]]]

    def __post_init__(self) -> None:
        for slot, values in self.phrases.items():
            if len(values) < 2:
                raise DialogueError(f"slot {slot}", f"has {len(values)} value(s)", "give at least two to choose from")
            for value, phrases in values.items():
                if not phrases or not all(_normal(phrase) for phrase in phrases):
                    raise DialogueError(f"slot {slot}", f"has no phrase, or an empty one, for {value!r}", "give one")
            _check_apart(slot, values)

    @classmethod
    def read(cls, path: str | Path) -> SlotTable:
        """Read a slots.json, ``{slot: {value: [phrase, ...]}}``.

        Raises
        ------
        DialogueError
            If the file is missing, not JSON, of another shape, or its values cannot be told apart.
        """
        path = Path(path)
        table = read_json(path, read_text(path))
        if not isinstance(table, dict) or not table:
            raise DialogueError(path, f"holds {type_name(table)}, not a table of slots", SHAPE)
        for slot, values in table.items():
            if not isinstance(values, dict):
                raise DialogueError(path, f"slot {slot!r} is {type_name(values)}, not an object", SHAPE)
            for value, phrases in values.items():
                if not isinstance(phrases, list) or not all(isinstance(phrase, str) for phrase in phrases):
                    raise DialogueError(path, f"{slot}.{value} is not a list of strings", SHAPE)
        try:
            return cls({slot: {value: tuple(p) for value, p in values.items()} for slot, values in table.items()})
        except DialogueError as error:
            raise DialogueError(f"{path}, {error.item}", error.problem, error.mend) from None

    def predicted(self, text: str) -> dict[str, str | None]:
        """The value of each slot that a text expresses; None where it expresses none, or more than one.

        Case is ignored, phrases are matched as whole words, any white space between words will do.
        """
        plain = _normal(text)
        found = {}
        for slot, values in self.phrases.items():
            said = [value for value, phrases in values.items() if any(_says(plain, phrase) for phrase in phrases)]
            found[slot] = said[0] if len(said) == 1 else None
        return found

    def check(self, slots: Mapping[str, str]) -> None:
        """Raise DialogueError if a reference names a slot or a value that the table lacks."""
        for slot, value in slots.items():
            known = self.phrases.get(slot)
            if known is None:
                raise DialogueError(f"slots.{slot}", "is not in the slot table", f"use {', '.join(self.phrases)}")
            if value not in known:
                raise DialogueError(f"slots.{slot}", f"is {value!r}, not in the slot table", f"use {', '.join(known)}")


def slot_accuracies(texts: Sequence[str], slots: Sequence[Mapping[str, str]], table: SlotTable) -> dict[str, float]:
    """Share of replies that express the right value, for each slot.

    Arguments
    ---------
    texts : sequence of str
        The replies.
    slots : sequence of mapping
        ``{slot: right value}`` of each; a reply counts for the slots it names.
    table : SlotTable
        Which phrases express what.

    Returns
    -------
    dict of str to float
        In [0, 1], for each slot that any reply names. No value and more than one are wrong.

    Raises
    ------
    ConfigError
        If texts and slots differ in number.
    DialogueError
        If a slot or value is not in the table.
    """
    right = slots_right(texts, slots, table)
    return {slot: sum(hits) / len(hits) for slot in right if (hits := [hit for hit in right[slot] if hit is not None])}


def slot_intervals(
    texts: Sequence[str], slots: Sequence[Mapping[str, str]], table: SlotTable
) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals (95 %) of ``slot_accuracies``, from the same arguments."""
    bootstrap = Bootstrap(len(texts))
    return {
        slot: bootstrap.mean([bool(hit) for hit in hits], [hit is not None for hit in hits])
        for slot, hits in slots_right(texts, slots, table).items()
        if any(hit is not None for hit in hits)
    }


def slots_right(
    texts: Sequence[str], slots: Sequence[Mapping[str, str]], table: SlotTable
) -> dict[str, list[bool | None]]:
    """Slot -> whether each reply expresses the right value; None where it has no such slot."""
    if len(texts) != len(slots):
        raise ConfigError("slots", f"are {len(slots)} for {len(texts)} texts", "give one mapping for each")
    right: dict[str, list[bool | None]] = {slot: [] for slot in table.phrases}
    for text, wanted in zip(texts, slots):
        table.check(wanted)
        said = table.predicted(text)
        for slot in table.phrases:
            right[slot].append(said[slot] == wanted[slot] if slot in wanted else None)
    return right


def chance(table: SlotTable) -> dict[str, float]:
    """The accuracy of a guess among equally likely values, for each slot.

    Example
    -------
    >>> chance(SlotTable({"trend": {"better": ("lighter",), "worse": ("heavier",)}}))
    {'trend': 0.5}
    """
    return {slot: 1 / len(values) for slot, values in table.phrases.items()}


def _normal(text: str) -> str:
    # Language models write typographic apostrophes as they please.
    return " ".join(text.replace("’", "'").casefold().split())


def _says(normal_text: str, phrase: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(_normal(phrase))}(?!\w)", normal_text) is not None


def _check_apart(slot: str, values: Mapping[str, Sequence[str]]) -> None:
    entries = [(value, phrase) for value, phrases in values.items() for phrase in phrases]
    for value, phrase in entries:
        for other, longer in entries:
            if value != other and _says(_normal(longer), phrase):
                problem = f"{phrase!r} ({value}) stands inside {longer!r} ({other})"
                raise DialogueError(f"slot {slot}", problem, "choose phrases that do not contain one another")
