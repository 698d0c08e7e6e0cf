"""Two systems on one test set: paired by dialogue, with intervals and p values that mean what they say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from es4r_toolkit.data.predictions import Prediction
from es4r_toolkit.errors import DialogueError
from es4r_toolkit.metrics.bootstrap import Bootstrap
from es4r_toolkit.metrics.comparison import compare, difference, unpaired
from es4r_toolkit.metrics.evaluation import evaluate
from es4r_toolkit.metrics.slots import SlotTable

TABLE = SlotTable({"affect": {"joy": ("glad",), "anger": ("cross",)}})
REFERENCE = "You sound glad today, my friend."


def system(hits: list[bool], names: list[str] | None = None) -> list[Prediction]:
    """Replies that say the right affect or the wrong one."""
    return [
        Prediction(
            names[place] if names else f"line {place + 1}",
            place + 1,
            f"You sound {'glad' if hit else 'cross'} today.",
            REFERENCE,
            {"affect": "joy"},
            names is not None,
        )
        for place, hit in enumerate(hits)
    ]


def test_a_system_is_as_good_as_itself():
    same = system([True, False] * 20)
    found = compare(same, same, TABLE)
    assert found.paired == 40
    for one in found.metrics.values():
        assert (one.difference, one.p, one.interval) == (0, 1, (0, 0))


def test_a_clear_difference_is_one_and_turns_its_sign_with_the_order():
    better, worse = system([True] * 90 + [False] * 10), system([True] * 60 + [False] * 40)
    found, turned = compare(better, worse, TABLE).metrics["affect"], compare(worse, better, TABLE).metrics["affect"]
    assert (found.first, found.second) == (0.9, 0.6)
    assert found.difference == pytest.approx(0.3)
    assert 0.2 < found.interval[0] < 0.3 < found.interval[1] < 0.4
    assert found.p < 0.001
    assert turned.difference == pytest.approx(-0.3)
    assert turned.p == pytest.approx(found.p, abs=1e-3)
    assert set(compare(better, worse).metrics) == {"bleu1", "bleu2", "bleu3", "bleu4", "rouge1", "rouge2", "rougeL"}


def test_pairing_sees_what_separate_intervals_do_not():
    """Both are right in half of the cases; one is right wherever the other is, and in five more."""
    rng = np.random.default_rng(0)
    base = rng.random(400) < 0.5
    more = base.copy()
    more[np.flatnonzero(~base)[:12]] = True
    found = compare(system(list(more)), system(list(base)), TABLE).metrics["affect"]
    assert found.difference == pytest.approx(0.03)
    assert found.p < 0.01
    assert found.interval[0] > 0


def test_of_equal_systems_one_in_twenty_differs_at_five_percent():
    rng, rejected = np.random.default_rng(1), 0
    for seed in range(200):
        bootstrap = Bootstrap(60, resamples=500, seed=seed)
        first, second = (rng.random(60) < 0.7 for _ in range(2))
        drawn = bootstrap.means(first) - bootstrap.means(second)
        rejected += difference(first.mean(), second.mean(), drawn, bootstrap).p < 0.05
    # Of 200, 10 expected; 3 to 20 hold 99 % of cases.
    assert 3 <= rejected <= 20


def test_dialogues_are_paired_by_id_whatever_their_order():
    first = system([True, True, False], ["a", "b", "c"])
    second = system([False, True, True], ["c", "b", "d"])
    found = compare(first, second, TABLE)
    assert (found.paired, found.only_first, found.only_second) == (2, ["a"], ["d"])
    assert (found.metrics["affect"].first, found.metrics["affect"].second) == (0.5, 0.5)


def test_of_many_that_one_system_alone_answered_three_are_named():
    assert unpaired({"a.jsonl": list("vwxyz")}) == [
        "5 dialogues are in a.jsonl alone, and are not compared: v, w, x and 2 more"
    ]


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        (system([True] * 3), system([True] * 2), "are 3 and 2, without ids"),
        (system([True], ["a"]), system([True], ["b"]), "no id in common"),
        (system([True] * 2, ["a", "a"]), system([True], ["a"]), "more than once"),
    ],
)
def test_what_cannot_be_paired_is_refused(first, second, problem):
    with pytest.raises(DialogueError, match=problem):
        compare(first, second)


def test_other_references_are_another_test_set():
    other = [Prediction("line 1", 1, "x", "Another reference.")]
    with pytest.raises(DialogueError, match="another reference"):
        compare(system([True]), other)


def test_an_evaluation_tells_the_comparison_and_what_it_left_out(tmp_path):
    paths = [tmp_path / name for name in ("a.jsonl", "b.jsonl")]
    for path, names, word in zip(paths, ("abc", "bcd"), ("glad", "cross")):
        lines = [{"id": name, "response": f"You sound {word}.", "reference": REFERENCE} for name in names]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines) + ("{\n" if word == "cross" else ""))
    found = evaluate(paths[0], other=paths[1])
    told = found.metrics["comparison"]
    assert (told["other"], told["paired"]) == (str(paths[1]), 2)
    assert told["metrics"]["bleu1"]["difference"] > 0
    assert [note for note in found.notes if "METEOR" not in note] == [
        f"{paths[1]}: predictions left out: 1, the first line 4",
        "1 dialogue is in this file alone, and is not compared: a",
        "1 dialogue is in b.jsonl alone, and is not compared: d",
    ]
