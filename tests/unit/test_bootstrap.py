"""Bootstrap intervals: as wide as theory has them, and of the very scores that NLTK gives."""

from __future__ import annotations

import numpy as np
import pytest
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

from es4r_toolkit.errors import ConfigError
from es4r_toolkit.metrics.bootstrap import Bootstrap, NgramCounts, resampled_bleu
from es4r_toolkit.metrics.slots import SlotTable, slot_intervals
from es4r_toolkit.metrics.text import BLEU_WEIGHTS, TextScores, tokenize

REPLIES = ["I can hear how sad you are.", "Nothing alike at all", "", "You sound glad today.", "so"]
REFERENCES = [
    "I can hear how sad you are, friend.",
    "Quite other words here.",
    "Say something.",
    "You sound glad.",
    "so",
]


@pytest.mark.parametrize("weights", BLEU_WEIGHTS.values(), ids=BLEU_WEIGHTS)
def test_each_resample_scores_as_nltk_scores_it(weights):
    replies, references = ([tokenize(text) for text in texts] for texts in (REPLIES, REFERENCES))
    counts = np.array([[1, 1, 1, 1, 1], [0, 3, 0, 2, 0], [0, 5, 0, 0, 0], [0, 0, 5, 0, 0], [2, 0, 1, 1, 1]])
    found = resampled_bleu(counts, NgramCounts.of(replies, references), weights)
    for row, score in zip(counts, found):
        chosen = np.repeat(np.arange(5), row)
        expected = corpus_bleu(
            [[references[index]] for index in chosen],
            [replies[index] for index in chosen],
            weights=weights,
            smoothing_function=SmoothingFunction().method1,
        )
        assert score == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_an_interval_of_a_share_is_as_wide_as_the_binomial_has_it(share):
    number = 400
    low, high = Bootstrap(number).mean([1.0] * round(share * number) + [0.0] * round((1 - share) * number))
    error = (share * (1 - share) / number) ** 0.5
    assert low == pytest.approx(share - 1.96 * error, abs=0.25 * error)
    assert high == pytest.approx(share + 1.96 * error, abs=0.25 * error)


def test_the_same_replies_have_the_same_interval():
    values = np.random.default_rng(3).random(50).tolist()
    assert Bootstrap(50).mean(values) == Bootstrap(50).mean(values)
    assert Bootstrap(50).mean(values) != Bootstrap(50, seed=1).mean(values)


def test_replies_without_a_slot_do_not_count_in_its_interval():
    table = SlotTable(
        {"affect": {"sad": ("so sad",), "glad": ("so glad",)}, "trend": {"up": ("up",), "down": ("down",)}}
    )
    slots = [{"affect": "sad"}, {"affect": "glad", "trend": "up"}] * 20
    found = slot_intervals(["so sad"] * 40, slots, table)
    assert found["trend"] == (0.0, 0.0)
    assert found["affect"][0] < 0.5 < found["affect"][1]


def test_intervals_hold_the_scores_of_the_whole():
    intervals = TextScores(REPLIES * 10, REFERENCES * 10).intervals()
    assert set(intervals) == {*BLEU_WEIGHTS, "rouge1", "rouge2", "rougeL"}
    assert all(0 <= low < high <= 1 for low, high in intervals.values())


def test_nothing_has_no_interval():
    with pytest.raises(ConfigError, match="needs replies"):
        Bootstrap(0)
    with pytest.raises(ConfigError, match="are 1 for 2 replies"):
        Bootstrap(2).mean([1.0])
