"""Tokens to text as it grows, and text to what a voice can begin with."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from es4r_toolkit.errors import require

UNITS = ("sentence", "clause")
_SENTENCE = r"(?<=[.!?…])\s+|(?<=[。！？])"
_ENDS = {"sentence": re.compile(_SENTENCE), "clause": re.compile(rf"{_SENTENCE}|(?<=[,;:—–])\s+|(?<=[，；：、])")}
FEWEST_WORDS = 3  # of a clause; less than that sounds broken off


class GrowingText:
    """Token ids in, what they add to the text out; what may still change waits.

    Arguments
    ---------
    decode : callable
        Token ids -> text without blanks around it.

    Example
    -------
    >>> letters = {1: "I", 2: " am", 3: " here."}
    >>> text = GrowingText(lambda ids: "".join(letters[id] for id in ids).strip())
    >>> [text.add(id) for id in (1, 2, 3)], text.whole
    (['I', ' am', ' here.'], 'I am here.')
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]):
        self.decode, self.ids, self.whole, self._given = decode, [], "", 0

    def add(self, token: int) -> str:
        """What the text has gained, "" while a character is not whole yet."""
        self.ids.append(token)
        self.whole = self.decode(self.ids)
        # Bytes of a character that is not whole decode to this sign.
        return self._upto(len(self.whole.rstrip("\ufffd")))

    def rest(self) -> str:
        """What was kept back to the end."""
        return self._upto(len(self.whole))

    def _upto(self, end: int) -> str:
        gained, self._given = self.whole[self._given : end], max(self._given, end)
        return gained


class Pieces:
    """Cuts a growing text where a voice can begin: at the ends of sentences, or of clauses.

    However the text arrives, its pieces are the same.

    Arguments
    ---------
    unit : str
        ``sentence``, or ``clause`` for an earlier start at some cost to the melody.

    Example
    -------
    >>> pieces = Pieces()
    >>> pieces.add("I see. Tell"), pieces.add(" me more"), pieces.rest()
    (['I see.'], [], ['Tell me more'])
    >>> clauses = Pieces("clause")
    >>> clauses.add("Oh, that is good news, truly. "), clauses.rest()
    (['Oh, that is good news,', 'truly.'], [])
    """

    def __init__(self, unit: str = "sentence"):
        require(unit in UNITS, "unit", unit, f"must be one of {', '.join(UNITS)}")
        self.unit, self._text, self._whole, self._any = unit, "", "", False

    def add(self, text: str) -> list[str]:
        """The pieces that are whole now."""
        self._text += text
        self._whole += text
        *whole, self._text = self._cut(self._text)
        return self._spoken(whole)

    def rest(self) -> list[str]:
        """What is left at the end; a text without a word is given whole, for the voice to refuse."""
        left, self._text = self._text, ""
        return self._spoken([left]) or ([] if self._any else [self._whole])

    def _cut(self, text: str) -> list[str]:
        parts, start = [], 0
        for end in _ENDS[self.unit].finditer(text):
            part = text[start : end.start()]
            closed = self.unit == "sentence" or _SENTENCE_ENDS.search(part) or len(part.split()) >= FEWEST_WORDS
            if closed and end.end() > start:
                parts.append(part)
                start = end.end()
        return [*parts, text[start:]]

    def _spoken(self, parts: Sequence[str]) -> list[str]:
        pieces = [part for part in parts if any(map(str.isalnum, part))]
        self._any = self._any or bool(pieces)
        return pieces


_SENTENCE_ENDS = re.compile(r"[.!?…。！？]$")
