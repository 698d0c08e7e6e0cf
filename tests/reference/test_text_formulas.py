"""Scores of a fixed set of pairs against plain formulas, for what the paper's script computes.

It takes corpus BLEU with smoothing method 1 (BLEU-3 with weights of .33), ROUGE of rouge-score, METEOR and distinct-n
over NLTK's words. Words and METEOR's alignments are written out by hand here.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass

import nltk
import pytest
from nltk.corpus import wordnet
from text_models import write_wordnet

from es4r_toolkit.metrics.meteor import Meteor
from es4r_toolkit.metrics.text import TextScores, tokenize

EXACT = 1e-6


@dataclass(frozen=True)
class Pair:
    """A reply, its reference, the words of both, and which of them METEOR matches."""

    reply: str
    reference: str
    words: str
    wanted: str
    matches: tuple[tuple[int, int], ...]


PAIRS = [
    Pair(
        "I'm so sorry to hear that.",
        "I am so sorry to hear that, my friend.",
        "I 'm so sorry to hear that .",
        "I am so sorry to hear that , my friend .",
        ((0, 0), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 10)),
    ),
    Pair(
        "You must be glad! Really glad.",
        "You must be very content about it.",
        "You must be glad ! Really glad .",
        "You must be very content about it .",
        ((0, 0), (1, 1), (2, 2), (6, 4), (7, 7)),  # the later "glad" is the synonym of "content"
    ),
    Pair("", "Tell me more.", "", "Tell me more .", ()),
    Pair(
        "Don't worry, it's going to be fine.",
        "It's going to be fine, don't worry.",
        "Do n't worry , it 's going to be fine .",
        "It 's going to be fine , do n't worry .",
        ((0, 7), (1, 8), (2, 9), (3, 6), (4, 0), (5, 1), (6, 2), (7, 3), (8, 4), (9, 5), (10, 10)),
    ),
    Pair(
        "Dr. Lee called at 3 p.m. today?",
        "Did Dr. Lee call you today?",
        "Dr. Lee called at 3 p.m. today ?",
        "Did Dr. Lee call you today ?",
        ((0, 1), (1, 2), (2, 3), (6, 5), (7, 6)),  # "called" by its stem
    ),
    Pair("so so so sad", "so sad", "so so so sad", "so sad", ((2, 0), (3, 1))),
    Pair("Nothing alike here", "Quite other words", "Nothing alike here", "Quite other words", ()),
]


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    folder = write_wordnet(tmp_path_factory.mktemp("nltk"), {"adj": [["glad", "content"]]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nltk.data, "path", [str(folder)])
        texts = TextScores([pair.reply for pair in PAIRS], [pair.reference for pair in PAIRS], {"meteor": Meteor()})
        wordnet._unload()
    return texts.corpus()


def ngrams(words: list[str], order: int) -> Counter:
    return Counter(tuple(words[place : place + order]) for place in range(len(words) - order + 1))


def bleu(weights: list[float]) -> float:
    """Papineni et al. (2002) over the corpus; 0.1 in place of no match (Chen & Cherry, 2014, method 1)."""
    logarithm = 0.0
    for order, weight in enumerate(weights, start=1):
        matched = possible = 0
        for pair in PAIRS:
            said, wanted = ngrams(pair.words.split(), order), ngrams(pair.wanted.split(), order)
            matched += sum(min(times, wanted[gram]) for gram, times in said.items())
            possible += max(1, said.total())
        logarithm += weight * math.log((matched or 0.1) / possible)
    said, wanted = (sum(len(words.split()) for words in of) for of in zip(*((p.words, p.wanted) for p in PAIRS)))
    return math.exp(min(0.0, 1 - wanted / said) + logarithm)


def mean_f(matched, said, wanted) -> float:
    """Mean over pairs of the F measure of counts; each argument is a function of a pair."""
    values = [2 * matched(pair) / (said(pair) + wanted(pair)) if matched(pair) else 0.0 for pair in PAIRS]
    return sum(values) / len(values)


def plain(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", text.lower())


def rouge(order: int) -> float:
    def grams(text: str) -> Counter:
        return ngrams(plain(text), order)

    return mean_f(
        lambda pair: (grams(pair.reply) & grams(pair.reference)).total(),
        lambda pair: grams(pair.reply).total(),
        lambda pair: grams(pair.reference).total(),
    )


def common(one: list[str], other: list[str]) -> int:
    """Length of the longest common subsequence."""
    if not one or not other:
        return 0
    if one[-1] == other[-1]:
        return common(one[:-1], other[:-1]) + 1
    return max(common(one[:-1], other), common(one, other[:-1]))


def meteor(pair: Pair) -> float:
    """Lavie & Agarwal (2007), Sec. 2, of a given alignment."""
    matched = len(pair.matches)
    if not matched:
        return 0.0
    precision, recall = matched / len(pair.words.split()), matched / len(pair.wanted.split())
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    neighbours = zip(pair.matches, pair.matches[1:])
    chunks = 1 + sum((i + 1, j + 1) != following for (i, j), following in neighbours)
    return mean * (1 - 0.5 * (chunks / matched) ** 3)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.reply or "empty")
def test_words_are_those_of_the_script(pair):
    assert tokenize(pair.reply) == pair.words.split()
    assert tokenize(pair.reference) == pair.wanted.split()


@pytest.mark.parametrize(
    ("name", "weights"), [("bleu1", [1]), ("bleu2", [0.5] * 2), ("bleu3", [0.33] * 3), ("bleu4", [0.25] * 4)]
)
def test_bleu_is_the_script_s(scores, name, weights):
    assert scores[name] == pytest.approx(bleu(weights), abs=EXACT)


def test_rouge_is_the_script_s(scores):
    assert scores["rouge1"] == pytest.approx(rouge(1), abs=EXACT)
    assert scores["rouge2"] == pytest.approx(rouge(2), abs=EXACT)
    longest = mean_f(
        lambda pair: common(plain(pair.reply), plain(pair.reference)),
        lambda pair: len(plain(pair.reply)),
        lambda pair: len(plain(pair.reference)),
    )
    assert scores["rougeL"] == pytest.approx(longest, abs=EXACT)


def test_meteor_is_the_script_s(scores):
    assert scores["meteor"] == pytest.approx(sum(map(meteor, PAIRS)) / len(PAIRS), abs=EXACT)


@pytest.mark.parametrize("order", [1, 2])
def test_distinct_is_the_script_s(scores, order):
    grams = [ngrams(pair.words.split(), order) for pair in PAIRS]
    different = len(set().union(*grams))
    assert scores[f"distinct{order}"] == pytest.approx(different / sum(one.total() for one in grams), abs=EXACT)
