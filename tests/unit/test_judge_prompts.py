"""What a judge is told, and what its words come to."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from es4r_toolkit.dialogue import Turn
from es4r_toolkit.errors import ConfigError
from es4r_toolkit.metrics.judge.prompts import PAIRS, PROMPTS, SCORES, Case, JudgePrompt, read_prompt
from es4r_toolkit.metrics.judge.verdicts import LONGEST, Unparsable, read_verdict

HISTORY = (Turn("speaker", "I failed."), Turn("listener", "Tell me."))
SHIPPED = read_prompt(SCORES)
ASPECTS = ["warmth", "sense"]
SCORED = JudgePrompt(SCORES, dict.fromkeys(ASPECTS, "?"), "$aspects$form", "$dialogue$reply", "$reference$reply")
PAIRED = JudgePrompt(
    PAIRS, {"warmth": "?"}, "$aspects$form", "$dialogue $reply_a $reply_b", "$reference $reply_a $reply_b"
)


# -- prompts ---------------------------------------------------------------------------------------------------------


def test_the_aspects_are_those_that_the_paper_names():
    assert list(read_prompt(SCORES).aspects) == ["quality", "empathy", "completeness", "fluency"]
    assert list(read_prompt(PAIRS).aspects) == ["topic", "emotion", "specificity", "action", "empathy"]


@pytest.mark.parametrize("kind", [SCORES, PAIRS])
def test_what_the_prompt_asks_for_is_told_and_its_form_is_no_verdict(kind):
    """A judge that only repeats the form has not judged."""
    prompt = read_prompt(kind)
    system = prompt.messages(Case("7", ("Oh.",) * (2 if kind == PAIRS else 1), "Yes."))[0]["content"]
    for aspect, meaning in prompt.aspects.items():
        assert f"- {aspect}: {meaning}\n" in system
    with pytest.raises(Unparsable, match="holds no JSON object"):
        read_verdict(system, kind, prompt.aspects)


def test_swapped_shows_the_second_reply_first():
    case = Case("7", ("first", "second"), "ref")
    shown = [PAIRED.messages(case, swapped)[1]["content"] for swapped in (False, True)]
    assert shown == ['"ref" "first" "second"', '"ref" "second" "first"']


def test_the_dialogue_is_told_a_turn_a_line():
    user = SCORED.messages(Case("7", ("Oh.",), "ref", HISTORY))[1]["content"]
    assert user == '{"speaker": "I failed."}\n{"listener": "Tell me."}"Oh."'


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_whatever_is_said_can_be_read_back_and_neither_closes_a_tag_nor_fills_a_placeholder(reply, said):
    case = Case("7", (reply,), "ref", (Turn("speaker", said),))
    user = SHIPPED.messages(case)[1]["content"]
    before, after = user.split("<reply>\n")
    assert json.loads(after.removesuffix("\n</reply>\n")) == reply
    assert json.loads(before.split("<dialogue>\n")[1].split("\n</dialogue>")[0]) == {"speaker": said}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("scores: {", "cannot be read"),
        ("[]", "has no scores with aspects, from_dialogue, from_reference, system"),
        ("scores: {system: a}", "has no scores with"),
        ("scores: {aspects: {}, system: a, from_dialogue: b, from_reference: c}", "scores.aspects: is no list"),
        ("scores: {aspects: {reason: x}, system: a, from_dialogue: b, from_reference: c}", "none 'reason'"),
        ("scores: {aspects: {a: 1}, system: a, from_dialogue: b, from_reference: c}", "scores.aspects: is no list"),
        ("scores: {aspects: {a: b}, system: 1, from_dialogue: b, from_reference: c}", "scores.system: is no text"),
        ("scores: {aspects: {a: b}, system: $form, from_dialogue: b, from_reference: c}", "lacks $aspects"),
        ("scores: {aspects: {a: b}, system: $aspects $form $x, from_dialogue: b, from_reference: c}", "has $x, which"),
        ("scores: {aspects: {a: b}, system: $aspects $form 5$, from_dialogue: b, from_reference: c}", "a stray $"),
    ],
)
def test_prompts_that_break_a_rule_are_named_with_their_file(tmp_path, text, problem):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as fault:
        read_prompt(SCORES, path)
    assert problem in str(fault.value)
    assert str(fault.value).startswith(str(path))


def test_missing_prompts_are_named(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_prompt(SCORES, tmp_path / "none.yaml")


# -- verdicts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"warmth": 8, "sense": 2.5}',
        '{"reason": "a {brace", "sense": 2.5, "warmth": 8, "other": 99}',
        'Well.\n```json\n{"warmth": 8, "sense": 2.5}\n```\nI hope {this} helps.',
        '<think>{"warmth": 1, "sense": 1}? no</think> {"warmth": 8, "sense": 2.5}',
        '{"warmth": 8.0, "sense": 2.5} I repeat: {"warmth": 8, "sense": 2.5}',
        'It says {"quality": 10}. {"warmth": 8, "sense": 2.5}',
    ],
)
def test_one_verdict_is_found_whatever_stands_around_it(text):
    assert read_verdict(text, SCORES, ASPECTS) == {"warmth": 8, "sense": 2.5}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "says nothing"),
        ("<think>Let me see. {", "cut short in its thoughts"),
        ("<think>hm</think>", "says nothing"),
        ("warmth 8, sense 2", "holds no JSON object"),
        ('{"warmth": 8, "sense"', "holds no JSON object"),
        ('["warmth", 8]', "holds no JSON object"),
        ('{"scores": {"warmth": 8, "sense": 2}}', "lacks warmth"),
        ('{"warmth": 8}', "lacks sense"),
        ('{"warmth": 8, "sense": null}', "sense is null, no number"),
        ('{"warmth": true, "sense": 2}', "warmth is true, no number"),
        ('{"warmth": "8", "sense": 2}', 'warmth is "8", no number'),
        ('{"warmth": [8], "sense": 2}', "no number"),
        ('{"warmth": NaN, "sense": 2}', "warmth is NaN, not within 0 and 10"),
        ('{"warmth": 1e999, "sense": 2}', "not within 0 and 10"),
        ('{"warmth": 10.01, "sense": 2}', "warmth is 10.01, not within 0 and 10"),
        ('{"warmth": ' + "9" * 400 + ', "sense": 2}', "not within 0 and 10"),
        ('{"warmth": 1, "sense": 2, "warmth": 9}', "holds a key twice"),
        ('{"warmth": 10, "sense": 10} is what it wants. {"warmth": 1, "sense": 2}', "holds 2 verdicts that differ"),
        ('{"warmth": 11, "sense": 10} {"warmth": 1, "sense": 2}', "warmth is 11"),
        ("{" * 15_000, "holds no JSON object"),
        ('{"a":' * 4_000, "is nested too deep"),
        ("x" * (LONGEST + 1), f"is {LONGEST + 1} characters long"),
    ],
)
def test_what_is_not_exactly_one_verdict_is_none(text, problem):
    with pytest.raises(Unparsable) as fault:
        read_verdict(text, SCORES, ASPECTS)
    assert problem in str(fault.value)


def test_choices_are_read_in_any_case_and_nothing_else_is():
    assert read_verdict('{"warmth": "a", "sense": " TIE"}', PAIRS, ASPECTS) == {"warmth": "A", "sense": "tie"}
    for odd in ('"C"', '"reply A"', "1", "null", "[]"):
        with pytest.raises(Unparsable, match="not A, B or tie"):
            read_verdict(f'{{"warmth": {odd}, "sense": "A"}}', PAIRS, ASPECTS)


@given(st.text())
def test_no_words_of_a_judge_can_break_the_reading(text):
    with contextlib.suppress(Unparsable):
        assert set(read_verdict(text, SCORES, ASPECTS)) == set(ASPECTS)


def test_the_prompts_are_one_readable_file():
    assert Path(PROMPTS).name == "prompts.yaml"
    assert len(PROMPTS.read_text().splitlines()) < 120
