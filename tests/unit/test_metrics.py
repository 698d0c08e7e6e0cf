"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from es4r_toolkit.errors import ConfigError, DialogueError
from es4r_toolkit.metrics.evaluation import evaluate
from es4r_toolkit.metrics.slots import SlotTable, chance, slot_accuracies
from es4r_toolkit.metrics.text import distinct, text_scores, tokenize

TABLE = SlotTable(
    {
        "affect": {"sad": ("so sorry", "that hurts"), "glad": ("wonderful",), "angry": ("unfair",)},
        "trend": {"better": ("easier now",), "worse": ("harder now",)},
    }
)


def test_bleu_of_a_short_reply_pays_the_brevity_penalty():
    # All n-grams match; 3 words for 6: exp(1 - 6/3). No 4-gram exists: method 1 counts 0.1 of 1.
    scores = text_scores(["the cat sat"], ["the cat sat on the mat"])
    for name in ("bleu1", "bleu2", "bleu3"):
        assert scores[name] == pytest.approx(math.exp(-1))
    assert scores["bleu4"] == pytest.approx(0.1**0.25 * math.exp(-1))


def test_bleu_orders_and_the_paper_s_weight_of_bleu3():
    # Of 5, 4, 3 and 2 n-grams, 4, 3, 2 and 1 match.
    scores = text_scores(["a b c d x"], ["a b c d y"])
    assert scores["bleu1"] == pytest.approx(4 / 5)
    assert scores["bleu2"] == pytest.approx((4 / 5 * 3 / 4) ** 0.5)
    assert scores["bleu3"] == pytest.approx((4 / 5 * 3 / 4 * 2 / 3) ** 0.33)
    assert scores["bleu4"] == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)


def test_bleu_counts_over_the_corpus_and_not_by_sentence():
    # All 3 words match, 3 words for 5; the mean over sentences would be (1 + exp(-2)) / 2.
    assert text_scores(["the cat", "dog"], ["the cat", "a big dog"])["bleu1"] == pytest.approx(math.exp(1 - 5 / 3))


def test_a_word_said_too_often_counts_as_often_as_in_the_reference():
    assert text_scores(["the the the the"], ["the cat sat here"])["bleu1"] == pytest.approx(1 / 4)


def test_rouge_is_the_f_measure():
    # 2 of 3 and 2 of 5 words, 1 of 2 and 1 of 4 pairs, a common subsequence of 2.
    scores = text_scores(["the cat sat"], ["The cat on the mat"])
    assert scores["rouge1"] == pytest.approx(0.5)
    assert scores["rouge2"] == pytest.approx(1 / 3)
    assert scores["rougeL"] == pytest.approx(0.5)


def test_rouge_l_needs_the_order():
    scores = text_scores(["mat cat"], ["cat mat"])
    assert scores["rouge1"] == 1
    assert scores["rougeL"] == 0.5


def test_distinct_counts_over_the_corpus():
    # so so so sad | so sad: 2 of 6 words; so-so, so-so, so-sad, so-sad: 2 of 4 pairs.
    scores = text_scores(["so so so sad", "so sad"], ["x", "x"])
    assert scores["distinct1"] == pytest.approx(2 / 6)
    assert scores["distinct2"] == pytest.approx(2 / 4)
    assert distinct([["one"]], 2) == 0


def test_an_empty_reply_scores_nothing_and_breaks_nothing():
    assert set(text_scores([""], ["the cat"]).values()) == {0.0}


def test_sentences_lose_their_full_stop_and_abbreviations_keep_it():
    # What nltk.word_tokenize gives with its downloaded model.
    text = "That's tough. I can't imagine, Dr. Lee! Call at 3 p.m. today... ok?"
    wanted = "That 's tough . I ca n't imagine , Dr. Lee ! Call at 3 p.m. today ... ok ?"
    assert tokenize(text) == wanted.split()


@pytest.mark.parametrize(("hypotheses", "references"), [([], []), (["a"], ["a", "b"])])
def test_scores_of_nothing_or_of_unequal_lists_are_refused(hypotheses, references):
    with pytest.raises(ConfigError, match="hypotheses"):
        text_scores(hypotheses, references)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), min_size=1, max_size=4))
def test_every_score_of_any_text_lies_between_0_and_1(pairs):
    scores = text_scores([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    assert all(0 <= score <= 1 + 1e-9 for score in scores.values())


@pytest.mark.parametrize(
    ("text", "affect"),
    [
        ("I am so sorry.", "sad"),
        ("I am SO  sorry", "sad"),
        ("So sorry - that hurts!", "sad"),
        ("so\nsorry", "sad"),
        ("How wonderfully odd", None),
        ("also sorry", None),
        ("so sorrynot", None),
        ("Wonderful, so sorry", None),
        ("", None),
    ],
)
def test_a_value_is_predicted_where_its_phrases_alone_are_said(text, affect):
    assert TABLE.predicted(text) == {"affect": affect, "trend": None}


def test_a_typographic_apostrophe_is_an_apostrophe():
    table = SlotTable({"affect": {"sad": ("it's hard",), "glad": ("great",)}})
    assert table.predicted("It’s hard.")["affect"] == "sad"


def test_slot_accuracies_count_none_and_several_as_wrong():
    texts = ["so sorry, easier now", "wonderful and unfair", "hm", "unfair, harder now"]
    slots = [{"affect": "sad", "trend": "better"}, {"affect": "glad"}, {"affect": "sad"}, {"affect": "angry"}]
    assert slot_accuracies(texts, slots, TABLE) == {"affect": 2 / 4, "trend": 1.0}


def test_slots_nobody_names_have_no_accuracy():
    assert slot_accuracies(["so sorry"], [{"affect": "sad"}], TABLE) == {"affect": 1.0}


def test_chance_is_one_of_the_values():
    assert chance(TABLE) == {"affect": 1 / 3, "trend": 1 / 2}


@pytest.mark.parametrize("slots", [{"mood": "sad"}, {"affect": "bored"}])
def test_a_slot_or_value_that_the_table_lacks_is_refused(slots):
    with pytest.raises(DialogueError, match="not in the slot table"):
        slot_accuracies(["so sorry"], [slots], TABLE)


def test_unequal_texts_and_slots_are_refused():
    with pytest.raises(ConfigError, match="slots"):
        slot_accuracies(["a"], [], TABLE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("{", "is not JSON"),
        ("[]", "holds a list"),
        ("{}", "not a table of slots"),
        ('{"affect": ["sad"]}', "'affect' is a list"),
        ('{"affect": {"sad": "so sorry", "glad": ["great"]}}', "affect.sad is not a list of strings"),
        ('{"affect": {"sad": [1], "glad": ["great"]}}', "affect.sad is not a list of strings"),
        ('{"affect": {"sad": [], "glad": ["great"]}}', "has no phrase, or an empty one, for 'sad'"),
        ('{"affect": {"sad": [" "], "glad": ["great"]}}', "has no phrase, or an empty one, for 'sad'"),
        ('{"affect": {"sad": ["so sorry"]}}', "has 1 value(s)"),
        ('{"affect": {"sad": ["not great"], "glad": ["Great"]}}', "'Great' (glad) stands inside 'not great' (sad)"),
        ('{"affect": {"sad": ["x"], "sad": ["y"]}}', "the key 'sad' twice"),
    ],
)
def test_a_bad_slot_table_is_refused_with_its_file(tmp_path, content, words):
    (tmp_path / "slots.json").write_text(content)
    with pytest.raises(DialogueError) as caught:
        SlotTable.read(tmp_path / "slots.json")
    assert words in str(caught.value)
    assert str(tmp_path / "slots.json") in str(caught.value)


def write_predictions(folder: Path, *lines: object) -> Path:
    path = folder / "predictions.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_evaluation_scores_the_good_and_names_the_bad(tmp_path):
    (tmp_path / "slots.json").write_text(json.dumps(TABLE.phrases))
    path = write_predictions(
        tmp_path,
        {"response": "the cat sat, so sorry", "reference": "the cat sat", "slots": {"affect": "sad"}},
        "broken",
        {"response": 3, "reference": "x"},
        {"id": "four", "response": "x"},
        {"response": "x", "reference": " "},
        {"response": "x", "reference": "x", "slots": {"affect": "bored"}},
        {"response": "", "reference": "x", "slots": {"affect": "glad"}},
        [1],
        {"response": "half \ud83d", "reference": "x"},
    )
    evaluation = evaluate(path)
    assert [rejection.line for rejection in evaluation.rejected] == [2, 3, 4, 5, 6, 8, 9]
    fields = [rejection.field for rejection in evaluation.rejected]
    assert fields == ["record", "response", "reference", "reference", "slots.affect", "record", "response"]
    assert evaluation.rejected[2].item == "four"
    metrics = evaluation.metrics
    assert (metrics["scored"], metrics["rejected"], metrics["empty_replies"]) == (2, 7, 1)
    assert metrics["slot_accuracy"] == {"affect": 0.5}
    assert metrics["slot_chance"] == {"affect": 1 / 3}
    # "the cat sat , so sorry": 3 of 6 words match, NLTK counts an empty reply as one wrong word, and 6 words for 4
    # pay no penalty.
    assert metrics["bleu1"] == pytest.approx(3 / 7)


def test_metrics_that_are_missing_are_explained(tmp_path):
    path = write_predictions(tmp_path, {"response": "a", "reference": "a", "slots": {"affect": "sad"}})
    without_table = evaluate(path)
    assert "slot_accuracy" not in without_table.metrics
    assert "no slots.json" in without_table.notes[0]
    (tmp_path / "table.json").write_text(json.dumps(TABLE.phrases))
    path = write_predictions(tmp_path, {"response": "a", "reference": "a"})
    assert "was not used" in evaluate(path, tmp_path / "table.json").notes[0]


def test_an_evaluation_of_bad_lines_only_has_counts_and_no_scores(tmp_path):
    evaluation = evaluate(write_predictions(tmp_path, "broken"))
    assert evaluation.metrics == {"scored": 0, "rejected": 1, "empty_replies": 0}
