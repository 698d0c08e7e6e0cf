"""The cohesion ratio against a plain double loop, and the file that representations come in."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from es4r_toolkit.cli import app
from es4r_toolkit.data.representations import read_representations, write_representations
from es4r_toolkit.errors import ConfigError, DialogueError
from es4r_toolkit.metrics.cohesion import Cohesion

RNG = np.random.default_rng(5)


def some_dialogues(number=7, shift=1.0):
    return [RNG.normal(size=(int(turns), 6)) + shift for turns in RNG.integers(1, 5, size=number)]


def by_loops(dialogues):
    within, between = [], []
    for i, one in enumerate(dialogues):
        for j, other in enumerate(dialogues):
            for k, a in enumerate(one):
                for n, b in enumerate(other):
                    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                    if i != j:
                        between.append(cosine)
                    elif k != n:
                        within.append(cosine)
    return np.mean(within) / np.mean(between)


def test_the_ratio_is_that_of_a_plain_double_loop():
    dialogues = some_dialogues()
    assert Cohesion(dialogues).ratio == pytest.approx(by_loops(dialogues))


def test_dialogues_that_stay_alike_cohere_and_random_ones_do_not():
    themes = RNG.normal(size=(30, 6)) + 1
    alike = Cohesion([theme + 0.1 * RNG.normal(size=(4, 6)) for theme in themes])
    random = Cohesion([RNG.normal(size=(4, 6)) + 1 for _ in range(30)])
    assert alike.ratio > 1.3
    assert alike.interval()[0] > 1.2
    assert random.interval()[0] < 1 < random.interval()[1]


def test_a_dialogue_drawn_twice_is_no_other_dialogue():
    """Else a resample of copies of one dialogue would count it as alike to another."""
    theme = [np.array([[1.0, 0, 0.2], [1, 0, 0.2]]), np.array([[0, 1.0, 0.2], [0, 1, 0.2]])]
    cohesion = Cohesion(theme)
    _, across = cohesion._means(np.array([[2, 1]]))
    assert across[0] == pytest.approx(cohesion.between)


def test_turns_that_point_away_from_other_dialogues_have_no_ratio():
    away = Cohesion([np.array([[1.0, 0], [1, 0]]), np.array([[-1.0, 0], [-1, 0]])])
    assert away.ratio is None
    assert away.interval() is None


@pytest.mark.parametrize(
    "dialogues",
    [
        [],
        [np.ones((2, 3))],
        [np.ones((1, 3)), np.ones((1, 3))],
        [np.ones((2, 3)), np.ones((2, 4))],
        [np.ones(3), np.ones(3)],
    ],
    ids=["none", "one dialogue", "single turns", "sizes", "no turns"],
)
def test_what_cannot_cohere_is_refused(dialogues):
    with pytest.raises(ConfigError, match="representations"):
        Cohesion(dialogues)


def test_representations_come_back_as_they_were_written(tmp_path):
    dialogues = some_dialogues()
    write_representations(tmp_path, [(str(n), {"after": turns.tolist()}) for n, turns in enumerate(dialogues)])
    found, rejected = read_representations(tmp_path / "representations.jsonl")
    assert not rejected
    assert len(found["after"]) == len(dialogues)
    for own, read in zip(dialogues, found["after"]):
        np.testing.assert_allclose(read, own, rtol=1e-4)


def test_a_representation_that_is_not_finite_is_named(tmp_path):
    with pytest.raises(DialogueError, match="test-7: has a representation that is not finite"):
        write_representations(tmp_path, [("test-7", {"after": [[1.0, float("nan")]]})])


def test_resamples_without_a_pair_of_turns_do_not_count(tmp_path):
    """One dialogue of twelve has two turns: a third of the resamples miss it, and have no ratio, not a ratio of 0."""
    singles = [RNG.normal(size=(1, 4)) + 2 for _ in range(11)]
    cohesion = Cohesion([np.array([[1.0, 1, 1, 1], [1, 1, 1, 0.9]]), *singles])
    low, high = cohesion.interval()
    assert low > 0.9 * cohesion.ratio
    assert high < 1.2 * cohesion.ratio


GOOD = {"id": "a", "turns": {"after": [[1, 2.0], [2, 1]]}}
FAULTS = {
    "not an object": [1, 2],
    "no turns": {"id": "x"},
    "no kind": {"turns": {}},
    "no vector": {"turns": {"after": []}},
    "a word": {"turns": {"after": [[1, "2"]]}},
    "true": {"turns": {"after": [[1, True]]}},
    "ragged": {"turns": {"after": [[1, 2], [1]]}},
    "another size": {"turns": {"after": [[1, 2, 3]]}},
    "another name": {"turns": {"before": [[1, 2]]}},
    "flat": {"turns": {"after": [1, 2]}},
    "NaN": {"turns": {"after": [[1, float("nan")]]}},
    "other numbers of turns": {"turns": {"after": [[1, 2]], "before": [[1, 2], [1, 2]]}},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_broken_record_is_named_and_the_others_are_kept(tmp_path, fault):
    path = tmp_path / "representations.jsonl"
    path.write_text("\n".join(map(json.dumps, (GOOD, fault, GOOD))))
    found, rejected = read_representations(path)
    assert [len(vectors) for vectors in found.values()] == [2]
    assert [rejection.line for rejection in rejected] == [2]
    assert "turns" in str(rejected[0].error(path))


def test_evaluate_gives_the_cohesion_ratio_of_what_lies_beside_the_predictions(tmp_path):
    line = {"id": "a", "response": "good day", "reference": "good day"}
    (tmp_path / "predictions.jsonl").write_text(json.dumps(line))
    dialogues = some_dialogues(40)
    write_representations(tmp_path, [(str(n), {"after": turns.tolist()}) for n, turns in enumerate(dialogues)])
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path / "predictions.jsonl")])
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["cohesion_ratio"]["after"] == pytest.approx(by_loops(dialogues), rel=1e-3)
    low, high = metrics["cohesion_interval"]["after"]
    assert low < metrics["cohesion_ratio"]["after"] < high
    assert "(after)" in done.output


def test_evaluate_names_broken_representations(tmp_path):
    (tmp_path / "predictions.jsonl").write_text(json.dumps({"response": "good day", "reference": "good day"}))
    (tmp_path / "turns.jsonl").write_text("\n".join(map(json.dumps, (GOOD, FAULTS["ragged"], GOOD))))
    arguments = ["evaluate", str(tmp_path / "predictions.jsonl"), "--representations", str(tmp_path / "turns.jsonl")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "turns.jsonl, line 2" in done.output
