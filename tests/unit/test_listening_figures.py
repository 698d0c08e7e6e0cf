"""Results of listening tests: what is read, what is left out, and figures checked against hand-computed ones."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from es4r_toolkit.data.listening import COLUMNS, Key, KeyItem, Rating, read_key, read_ratings
from es4r_toolkit.errors import DialogueError
from es4r_toolkit.metrics.agreement import krippendorff_alpha, same_answers
from es4r_toolkit.metrics.bootstrap import Bootstrap
from es4r_toolkit.metrics.listening import preferences, rater_summaries
from es4r_toolkit.report.listening_report import write_listening_report

BOTH = ("DMOS-E", "topic")
KEY = Key(
    "Tabc",
    ("ours", "theirs"),
    {"1": KeyItem("d-1", "x", BOTH), "2": KeyItem("d-2", "y", BOTH), "3": KeyItem("d-3", "x", ("topic",))},
)


def row(
    item: object, aspect: str, answer: str, rater: str = "Anna", test: str = "Tabc", shown_first: str = "x"
) -> list:
    return [test, rater, item, aspect, answer, shown_first, "2026-01-01T00:00:00Z"]


def write(path, *rows, delimiter=",", encoding="utf-8", columns=COLUMNS):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([columns, *rows])
    path.write_bytes(text.getvalue().encode(encoding))
    return path


def answers(aspect: str, **said: str) -> list[Rating]:
    """One letter a dialogue for each rater: w, t, l, or a blank for none."""
    signs = {"w": 1, "t": 0, "l": -1}
    return [
        Rating(rater, f"{item:03d}", aspect, signs[letter], signs[letter])
        for rater, letters in said.items()
        for item, letter in enumerate(letters)
        if letter != " "
    ]


# -- the key and the results ------------------------------------------------------------------------------------------


def test_a_key_comes_back_as_it_was_written(tmp_path):
    KEY.write(tmp_path / "key.json")
    assert read_key(tmp_path / "key.json") == KEY
    KEY.write(tmp_path / "key.json")  # the same test again


def test_the_key_of_another_test_is_not_overwritten(tmp_path):
    KEY.write(tmp_path / "key.json")
    with pytest.raises(DialogueError, match="key of another test"):
        Key("Tother", KEY.systems, KEY.items).write(tmp_path / "key.json")
    assert read_key(tmp_path / "key.json") == KEY


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"test": "T", "systems": ["a"], "items": {}},
        {"test": "T", "systems": ["a", "b"], "items": {"1": {"dialogue": "d", "first": "z", "aspects": ["topic"]}}},
        {"test": "T", "systems": ["a", "b"], "items": {"1": {"dialogue": "d", "first": "x", "aspects": ["warmth"]}}},
        {"test": 7, "systems": ["a", "b"], "items": {}},
    ],
)
def test_what_is_no_key_is_refused(tmp_path, content):
    (tmp_path / "key.json").write_text(json.dumps(content))
    with pytest.raises(DialogueError, match="is no key"):
        read_key(tmp_path / "key.json")


def test_an_answer_counts_for_the_system_that_the_key_says(tmp_path):
    path = write(
        tmp_path / "anna.csv",
        row(1, "topic", "x"),  # x is of the first system
        row(2, "topic", "x"),  # x is of the second
        row(3, "topic", "same"),
        row(2, "DMOS-E", "y", shown_first="y"),
    )
    ratings, left_out = read_ratings([path], KEY)
    assert left_out == []
    assert ratings == [
        Rating("Anna", "1", "topic", 1, 1),
        Rating("Anna", "2", "topic", -1, 1),
        Rating("Anna", "3", "topic", 0, 0),
        Rating("Anna", "2", "DMOS-E", 1, 1),
    ]


@pytest.mark.parametrize(("delimiter", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-8")])
def test_results_that_a_spreadsheet_saved_again_are_read(tmp_path, delimiter, encoding):
    path = write(tmp_path / "j.csv", row(1, "topic", "x", "Jörg, der Ältere"), delimiter=delimiter, encoding=encoding)
    ratings, left_out = read_ratings([path], KEY)
    assert ([rating.rater for rating in ratings], left_out) == (["Jörg, der Ältere"], [])


@pytest.mark.parametrize(
    ("bad", "field", "problem"),
    [
        (row(1, "topic", "x", test="Told"), "test", "is 'Told', not 'Tabc'"),
        (row(1, "topic", "x", rater=" "), "rater", "is empty"),
        (row(9, "topic", "x"), "item", "'9' is not in the key"),
        (row(1, "warmth", "x"), "aspect", "'warmth' is not known"),
        (row(3, "DMOS-E", "x"), "aspect", "'DMOS-E' was not asked of item '3'"),
        (row(1, "topic", "A"), "answer", "is 'A'"),
        (row(1, "topic", "x", shown_first="left"), "shown_first", "is 'left'"),
        (row(1, "topic", "x")[:4], "row", "has another number of fields than the header"),
        ([*row(1, "topic", "x"), "more"], "row", "has another number of fields than the header"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_and_the_others_stay(tmp_path, bad, field, problem):
    path = write(tmp_path / "anna.csv", row(2, "topic", "x"), bad, row(2, "DMOS-E", "x"))
    ratings, [(where, rejection)] = read_ratings([path], KEY)
    assert len(ratings) == 2
    assert (where, rejection.line, rejection.field, rejection.problem) == (path, 3, field, problem)


def test_repeated_rows_count_once_and_are_named(tmp_path):
    early = write(tmp_path / "early.csv", row(1, "topic", "x"))
    late = write(tmp_path / "late.csv", row(1, "topic", "x"), row(2, "topic", "y"))
    ratings, [(where, rejection)] = read_ratings([early, late], KEY)
    assert [rating.item for rating in ratings] == ["1", "2"]
    assert (where, rejection.line) == (late, 2)
    assert rejection.problem.endswith("repeats line 2 of 'early.csv'")


def test_of_rows_that_contradict_one_another_none_counts(tmp_path):
    path = write(
        tmp_path / "anna.csv", row(1, "topic", "x"), row(1, "topic", "same"), row(1, "topic", "x", rater="Ben")
    )
    ratings, left_out = read_ratings([path], KEY)
    assert [rating.rater for rating in ratings] == ["Ben"]
    assert [rejection.line for _, rejection in left_out] == [2, 3]
    assert all("'Anna' on 'topic' of item '1' is not the same in" in rejection.problem for _, rejection in left_out)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "has no column"),
        (b"a,b\n1,2\n", "has no column test, rater, item"),
        (b"\xff\xfe", "is not UTF-8"),
        (None, "does not exist"),
    ],
)
def test_a_file_without_results_is_named_and_the_others_count(tmp_path, content, problem):
    bad, good = tmp_path / "bad.csv", write(tmp_path / "good.csv", row(1, "topic", "x"))
    if content is not None:
        bad.write_bytes(content)
    ratings, [(where, rejection)] = read_ratings([bad, good], KEY)
    assert len(ratings) == 1
    assert where == bad
    assert problem in rejection.problem


# -- agreement --------------------------------------------------------------------------------------------------------


def test_alpha_is_that_of_krippendorffs_own_example():
    """Four observers, twelve units, gaps: .815 for ordinal data (Computing Krippendorff's Alpha-Reliability, 2011)."""
    units = [
        [1, 1, 1],
        [2, 2, 3, 2],
        [3, 3, 3, 3],
        [3, 3, 3, 3],
        [2, 2, 2, 2],
        [1, 2, 3, 4],
        [4, 4, 4, 4],
        [1, 1, 2, 1],
        [2, 2, 2, 2],
        [5, 5, 5],
        [1, 1],
        [3],
    ]
    assert krippendorff_alpha(units) == pytest.approx(0.815, abs=5e-4)


def test_alpha_of_two_raters_by_hand():
    """Two raters: (w, w), (w, t), (l, l). Values -1, 0, 1 were given 2, 1, 3 times, six in all.

    Ordinal distances squared, from the ranks' middles 1, 2.5 and 4.5: (-1, 0) 2.25, (0, 1) 4, (-1, 1) 12.25.
    Observed: the pair (w, t) alone, in both orders: 2 x 4 = 8. Expected, in both orders: 2 x (2 x 1 x 2.25 +
    1 x 3 x 4 + 2 x 3 x 12.25) = 180. So alpha = 1 - (6 - 1) x 8 / 180 = 7 / 9.
    """
    assert krippendorff_alpha([[1, 1], [1, 0], [-1, -1]]) == pytest.approx(7 / 9)


def test_alpha_does_not_hang_on_the_order_of_raters_and_passes_over_lonely_answers():
    units = [[1, 0, -1], [1, 1], [0, 0, 1], [-1, 1]]
    assert krippendorff_alpha([unit[::-1] for unit in units]) == pytest.approx(krippendorff_alpha(units))
    assert krippendorff_alpha([*units, [1], []]) == pytest.approx(krippendorff_alpha(units))


def test_alpha_is_below_nothing_where_raters_contradict_one_another():
    assert krippendorff_alpha([[1, -1], [-1, 1], [1, -1]]) < 0


@pytest.mark.parametrize("units", [[], [[1], [0]], [[1, 1], [1, 1, 1]]])
def test_alpha_is_undefined_without_pairs_or_with_one_answer_throughout(units):
    assert krippendorff_alpha(units) is None


def test_pairs_of_raters_that_say_the_same_are_counted():
    assert same_answers([[1, 1, 0], [0, 0], [1]]) == 2 / 4
    assert same_answers([[1], []]) is None


# -- preferences ------------------------------------------------------------------------------------------------------


def test_win_tie_and_lose_are_shares_of_the_answers():
    found = preferences(answers("topic", anna="wwtl", ben="wlt ") + answers("DMOS-E", anna="l   "))
    assert list(found) == ["DMOS-E", "topic"]
    topic = found["topic"]
    assert (topic.ratings, topic.dialogues, topic.raters) == (7, 4, 2)
    assert topic.shares == {"win": 3 / 7, "tie": 2 / 7, "lose": 2 / 7}
    assert topic.net == pytest.approx(1 / 7)
    assert topic.agreement == 2 / 3
    assert found["DMOS-E"].alpha is None


def test_the_interval_of_one_rater_is_that_of_a_bootstrap_over_dialogues():
    found = preferences(answers("topic", anna="w" * 60 + "l" * 40))["topic"]
    assert found.intervals["win"] == pytest.approx(Bootstrap(100).mean([1] * 60 + [0] * 40))
    low, high = found.net_interval
    assert -0.02 < low < 0.05 < 0.35 < high < 0.42


def test_raters_of_two_minds_make_a_wide_interval_whatever_the_number_of_dialogues():
    split = preferences(answers("topic", anna="w" * 100, ben="l" * 100))["topic"]
    assert split.net_interval == (-1.0, 1.0)
    agreed = preferences(answers("topic", anna="wl" * 50, ben="wl" * 50))["topic"]
    assert agreed.net_interval[1] < 0.25


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for seed in range(60):
        letters = "".join(rng.choice(list("wtl"), size=50, p=[0.5, 0.2, 0.3]))
        low, high = preferences(answers("topic", anna=letters), seed)["topic"].net_interval
        covered += low <= 0.2 <= high
    # Of 60, 57 expected; 52 to 60 hold 99 % of cases.
    assert covered >= 52


def test_a_share_of_nothing_is_not_certain():
    """No loss in 10 dialogues: up to 1 - .025 ** (1 / 10) = 30.8 % may lose (Clopper and Pearson)."""
    found = preferences(answers("topic", anna="w" * 10))["topic"]
    assert found.intervals["lose"] == pytest.approx((0.0, 0.3085), abs=1e-4)
    assert found.intervals["win"] == pytest.approx((0.6915, 1.0), abs=1e-4)
    assert found.net_interval == pytest.approx((1 - 2 * 0.3085, 1.0), abs=1e-4)
    ties = preferences(answers("topic", anna="t" * 10))["topic"]
    assert ties.net_interval == pytest.approx((-0.3085, 0.3085), abs=1e-4)


def test_a_rater_who_always_takes_the_same_side_stands_out():
    ratings = [Rating("Anna", item, "topic", sign, 1) for item, sign in (("1", 1), ("2", -1))]
    ratings += [Rating("Ben", "1", "topic", 0, 0), Rating("Ben", "2", "DMOS-E", 1, -1)]
    found = rater_summaries(ratings, KEY)
    assert vars(found["Anna"]) == {"answered": 2, "asked": 5, "ties": 0.0, "shown_first": 1.0}
    assert vars(found["Ben"]) == {"answered": 2, "asked": 5, "ties": 0.5, "shown_first": 0.0}


def test_the_page_of_results_shows_its_figures_and_escapes_names(tmp_path):
    ratings = answers("topic", anna="wwwl", ben="wwwt")
    key = Key("Tabc", ("<b>ours</b>", "theirs"), KEY.items)
    found = preferences(ratings)
    page = write_listening_report(tmp_path / "page.html", key, found, rater_summaries(ratings, KEY), []).read_text()
    assert "&lt;b&gt;ours&lt;/b&gt;" in page
    assert "<b>ours</b>" not in page
    assert "75.0%" in page  # win: 6 of 8
    assert page.count("data:image/svg+xml") == 2
    empty = write_listening_report(tmp_path / "empty.html", key, {}, {}, []).read_text()
    assert "There are no ratings." in empty
