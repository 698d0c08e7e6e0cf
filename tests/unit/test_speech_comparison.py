"""Speech of two systems on the same dialogues: paired by id, told apart from chance, and the worst heard first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from es4r_toolkit.data.manners import NEUTRAL, Manner
from es4r_toolkit.errors import DialogueError
from es4r_toolkit.metrics.hearing import HeardReply
from es4r_toolkit.metrics.prosody import SpokenProsody
from es4r_toolkit.metrics.speech_comparison import compare_speech
from es4r_toolkit.metrics.speech_examples import worst_spoken

PROSODY = SpokenProsody(6.0, 5.0, -20.0, 20.0, 0.6, 150.0, 6.0)


def heard(name: object, words: int = 10, **measured: float | None) -> HeardReply:
    """Five seconds at 150 Hz, six semitones wide, at -20 dB, where nothing else is said."""
    of_reply = {key: measured.pop(key) for key in ("errors", "mos", "manner") if key in measured}
    return HeardReply(str(name), words, replace(PROSODY, **measured), **of_reply)


def test_replies_are_paired_by_id_and_what_one_system_alone_spoke_is_named():
    first = [heard(name, level=-20.0) for name in "abc"]
    second = [heard(name, level=-26.0) for name in "cbxyz"]
    found = compare_speech(first, second)
    assert (found.paired, found.only_first, found.only_second) == (2, ["a"], ["x", "y", "z"])
    level = found.metrics["level"]
    assert (level.first, level.second, level.difference, level.interval) == (-20, -26, 6, (6, 6))
    assert "wer" not in found.metrics
    assert "mos" not in found.metrics


def test_word_errors_are_over_the_words_that_each_system_had_to_say():
    first = [heard("a", 2, errors=1), heard("b", 8, errors=1)]
    second = [heard("a", 10, errors=5), heard("b", 10, errors=5)]
    wer = compare_speech(first, second).metrics["wer"]
    assert (wer.first, wer.second, wer.difference) == (pytest.approx(0.2), 0.5, pytest.approx(-0.3))
    # Resamples hold a alone, b alone, or both: 1/2, 1/8 or 2/10 of the first, always 1/2 of the second.
    assert wer.interval == (pytest.approx(-0.375), pytest.approx(0))


def test_where_one_reply_has_no_pitch_neither_counts():
    first = [heard("a", f0=100.0), heard("b", f0=200.0)]
    second = [heard("a", f0=110.0), heard("b", f0=None)]
    f0 = compare_speech(first, second).metrics["f0"]
    assert (f0.first, f0.second, f0.difference) == (100, 110, -10)


def test_a_system_speaks_as_it_does_and_a_slower_one_slower():
    rng = np.random.default_rng(0)
    seconds = rng.uniform(3, 7, 40)
    first = [heard(place, speech_seconds=length) for place, length in enumerate(seconds)]
    slower = [heard(place, speech_seconds=1.1 * length) for place, length in enumerate(seconds)]
    same = compare_speech(first, first).metrics["words_per_second"]
    assert (same.difference, same.p, same.interval) == (0, 1, (0, 0))
    found = compare_speech(first, slower).metrics["words_per_second"]
    assert found.difference == pytest.approx(found.first / 11)
    assert found.interval[0] > 0
    assert found.p < 0.001


def test_following_the_strategy_is_compared_where_both_were_asked_for_enough():
    asked = [-4.0, 0.0, 3.0] * 10
    noise = np.random.default_rng(1).normal(-20, 2, 30)
    manners = [Manner("any", NEUTRAL | {"energy": gain}) for gain in asked]
    obeying = [heard(i, level=-20 + gain, manner=manners[i]) for i, gain in enumerate(asked)]
    deaf = [heard(i, level=level, manner=manners[i]) for i, level in enumerate(noise)]
    found = compare_speech(obeying, deaf).metrics
    assert found["energy_correlation"].first == pytest.approx(1)
    assert abs(found["energy_correlation"].second) < 0.4
    assert found["energy_correlation"].p < 0.01
    assert [name for name in found if name.endswith("_correlation")] == ["energy_correlation"]
    unasked = [heard(i, level=level) for i, level in enumerate(noise)]
    assert "energy_correlation" not in compare_speech(obeying, unasked).metrics


def test_systems_without_a_dialogue_in_common_are_refused():
    with pytest.raises(DialogueError, match="no id in common"):
        compare_speech([heard("a")], [heard("b")])


# -- worst first -----------------------------------------------------------------------------------------------------


def ids(replies: list[tuple[HeardReply, ...]]) -> str:
    return "".join(together[0].id for together in replies)


def test_the_worst_are_those_of_which_most_words_were_misheard_in_proportion():
    replies = [heard("a", 10, errors=3), heard("b", 2, errors=1), heard("c", 0, errors=2), heard("d", 5, errors=0)]
    ranked, order = worst_spoken([replies])
    assert (ids(ranked), order) == ("cbad", "word errors")


def test_against_another_it_begins_where_this_one_is_behind_most():
    first = [heard(name, errors=errors) for name, errors in zip("abcd", (5, 5, 1, 0))]
    second = [heard(name, errors=errors) for name, errors in zip("dcba", (0, 9, 1, 5))]
    ranked, order = worst_spoken([first, second])
    assert ids(ranked) == "badc"
    assert [together[1].id for together in ranked] == list("badc")
    assert "more word errors than the other" in order


def test_without_a_recognizer_the_lowest_opinion_and_without_that_the_oddest_comes_first():
    opinions = [heard(name, mos=mos) for name, mos in zip("abc", (3.0, 1.0, 4.0))]
    assert ids(worst_spoken([opinions])[0]) == "bac"
    odd = [heard("a"), heard("b"), heard("c", f0=None), heard("d", f0=151.0), heard("e", level=-40.0)]
    ranked, order = worst_spoken([odd])
    assert ids(ranked)[0] == "e"
    assert "standard deviations" in order
