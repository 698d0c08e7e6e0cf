"""Attention over tokens made readable: tokens joined to words, and words to phrases where they are too many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# sentencepiece and byte-level BPE mark the start of a word, each with its own sign.
WORD_STARTS = ("\u2581", "\u0120", " ")
LINE_BREAK = "\u010a"


@dataclass(frozen=True)
class Column:
    """Neighbouring tokens shown as one column: indices from ``start`` up to ``end``, of one ``turn`` (-1: none)."""

    label: str
    start: int
    end: int
    turn: int


def columns(tokens: Sequence[str], turn_of_token: Sequence[int], most: int = 60) -> list[Column]:
    """Columns for an attention picture: tokens, else words, else phrases, never across turns.

    Arguments
    ---------
    tokens : sequence of str (T)
        With their tokenizer's word marks.
    turn_of_token : sequence of int (T)
        Index of each token's turn.
    most : int
        Columns wanted at most; only a dialogue of more turns than that gets more.

    Returns
    -------
    list of Column
        Covering every token once, in order.

    Example
    -------
    >>> [column.label for column in columns(["\u2581I", "\u2581walk", "ed", "\u2581home"], [0, 0, 0, 1], most=3)]
    ['I', 'walked', 'home']
    """
    singles = [
        Column(_visible(token), place, place + 1, turn)
        for place, (token, turn) in enumerate(zip(tokens, turn_of_token))
    ]
    if len(singles) <= most:
        return singles
    words = []
    marked = any(token.startswith(WORD_STARTS) for token in tokens)
    for column, token in zip(singles, tokens):
        same_turn = bool(words) and words[-1].turn == column.turn
        if marked and same_turn and _continues(token, tokens[column.start - 1]):
            words[-1] = _join(words[-1], column, "")
        else:
            words.append(column)
    return _phrases(words, most)


def by_column(attention: np.ndarray, shown: Sequence[Column]) -> np.ndarray:
    """Attention (L, T) -> (L, columns), adding up the weights of each column's tokens.

    Example
    -------
    >>> by_column(np.array([[0.25, 0.25, 0.5]]), [Column("walked", 0, 2, 0), Column("home", 2, 3, 0)])
    array([[0.5, 0.5]])
    """
    return np.stack([attention[:, column.start : column.end].sum(axis=1) for column in shown], axis=1)


def spans(turns: Sequence[int]) -> list[tuple[int, int, int]]:
    """Runs of equal turns as (turn, start, end).

    Example
    -------
    >>> spans([0, 0, 1])
    [(0, 0, 2), (1, 2, 3)]
    """
    found = []
    for place, turn in enumerate(turns):
        if found and found[-1][0] == turn:
            found[-1] = (turn, found[-1][1], place + 1)
        else:
            found.append((turn, place, place + 1))
    return found


def _phrases(words: Sequence[Column], most: int) -> list[Column]:
    """Join the two neighbours of one turn that make the shortest phrase, until there are few enough."""
    phrases = list(words)
    while len(phrases) > most:
        pairs = [place for place in range(len(phrases) - 1) if phrases[place].turn == phrases[place + 1].turn]
        if not pairs:
            break
        # The search is linear, so a history of thousands of words gives up several pairs at a time.
        pairs.sort(key=lambda place: (phrases[place + 1].end - phrases[place].start, len(phrases[place].label)))
        joined = set()
        for place in pairs[: max(1, (len(phrases) - most) // 4)]:
            if not joined & {place - 1, place, place + 1}:
                joined.add(place)
        for place in sorted(joined, reverse=True):
            phrases[place : place + 2] = [_join(phrases[place], phrases[place + 1], " ")]
    return phrases


def _join(left: Column, right: Column, between: str) -> Column:
    return Column(left.label + between + right.label, left.start, right.end, left.turn)


def _continues(token: str, before: str) -> bool:
    special = token.startswith("<") or before.startswith("<") or LINE_BREAK in before or "\n" in before
    return not special and not token.startswith((*WORD_STARTS, LINE_BREAK, "\n"))


def _visible(token: str) -> str:
    for sign in WORD_STARTS:
        token = token.replace(sign, " ")
    return token.replace(LINE_BREAK, "↵").replace("\n", "↵").strip() or "␣"
