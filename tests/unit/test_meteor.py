"""METEOR against numbers worked out by hand, with a WordNet of five words, and never without one."""

from __future__ import annotations

import json

import nltk
import pytest
from nltk.corpus import wordnet
from text_models import write_wordnet

from es4r_toolkit.errors import BackendError
from es4r_toolkit.metrics.evaluation import evaluate
from es4r_toolkit.metrics.meteor import GET_WORDNET, Meteor

SYNONYMS = {"adj": [["glad", "content"], ["sad", "blue", "low"]]}


@pytest.fixture
def looking_in(monkeypatch):
    """Make NLTK look for its data in one folder."""

    def look(folder) -> None:
        monkeypatch.setattr(nltk.data, "path", [str(folder)])
        wordnet._unload()

    yield look
    wordnet._unload()


@pytest.fixture
def meteor(tmp_path, looking_in) -> Meteor:
    looking_in(write_wordnet(tmp_path / "nltk_data", SYNONYMS))
    return Meteor()


def penalty(chunks: int, matches: int) -> float:
    return 1 - 0.5 * (chunks / matches) ** 3


@pytest.mark.parametrize(
    ("reply", "reference", "expected"),
    [
        ("you look glad", "you look glad", penalty(1, 3)),
        ("You look glad", "you look CONTENT", penalty(1, 3)),
        ("you look sad", "you look low", penalty(1, 3)),
        # Of three words two match, in one chunk.
        ("you look sad", "you look glad", 2 / 3 * penalty(1, 2)),
        # By their stems.
        ("she listened", "she listens", penalty(1, 2)),
        # Every word stands alone: three chunks of three.
        ("glad you look", "look you glad", penalty(3, 3)),
        # Precision 1, recall 2 of 4.
        ("you look", "you look so glad", 0.5 / (0.9 + 0.1 * 0.5) * penalty(1, 2)),
        ("", "you look glad", 0.0),
        ("nothing", "you look glad", 0.0),
    ],
)
def test_scores_worked_out_by_hand(meteor, reply, reference, expected):
    assert meteor([reply], [reference]) == [pytest.approx(expected)]


def test_without_a_wordnet_there_is_no_meteor(tmp_path, looking_in):
    looking_in(tmp_path)
    with pytest.raises(BackendError, match=GET_WORDNET):
        Meteor()


def test_a_broken_wordnet_is_no_wordnet(tmp_path, looking_in):
    folder = write_wordnet(tmp_path, SYNONYMS)
    (folder / "corpora" / "wordnet" / "index.adj").write_text("glad a broken\n")
    looking_in(folder)
    with pytest.raises(BackendError, match=r"cannot be read .*index\.adj"):
        Meteor()
    (tmp_path / "other" / "corpora").mkdir(parents=True)
    (tmp_path / "other" / "corpora" / "wordnet.zip").write_bytes(b"PK, and no archive")
    looking_in(tmp_path / "other")
    with pytest.raises(BackendError, match="cannot be read"):
        Meteor()


def test_an_evaluation_has_it_with_its_interval_and_in_comparisons(tmp_path, meteor):
    for name, word in (("a", "content"), ("b", "blue")):
        lines = [{"id": str(n), "response": f"you look {word}", "reference": "you look glad"} for n in range(9)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = evaluate(tmp_path / "a.jsonl", other=tmp_path / "b.jsonl")
    assert found.metrics["meteor"] == pytest.approx(penalty(1, 3))
    assert found.metrics["interval"]["meteor"] == [pytest.approx(penalty(1, 3), abs=1e-4)] * 2
    row = found.metrics["comparison"]["metrics"]["meteor"]
    assert row["difference"] == pytest.approx(penalty(1, 3) - 2 / 3 * penalty(1, 2), abs=1e-4)
    assert not any("METEOR" in note for note in found.notes)


def test_an_evaluation_without_a_wordnet_says_the_line_that_gets_one(tmp_path, looking_in):
    looking_in(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"response": "a b", "reference": "a b"}\n')
    found = evaluate(tmp_path / "a.jsonl")
    assert "meteor" not in found.metrics
    assert "meteor" not in found.metrics["interval"]
    (note,) = found.notes
    assert note == (
        "no METEOR: WordNet is in none of the folders that NLTK looks in; "
        "get it with: python -m nltk.downloader wordnet"
    )
