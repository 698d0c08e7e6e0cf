"""What is asked of a judge, what is kept of its answers, and the figures they come to."""

from __future__ import annotations

import json
import threading

import pytest

from es4r_toolkit.dialogue import Turn
from es4r_toolkit.errors import ConfigError, DialogueError
from es4r_toolkit.metrics.judge.asking import Question, Settings, questions
from es4r_toolkit.metrics.judge.endpoint import endpoint_settings, is_in_the_clear, seconds_to_wait
from es4r_toolkit.metrics.judge.judgements import Judgement, Judgements
from es4r_toolkit.metrics.judge.outcomes import Outcome, figures, outcomes, spent
from es4r_toolkit.metrics.judge.prompts import PAIRS, SCORES, Case, JudgePrompt

HISTORY = (Turn("speaker", "I failed."), Turn("listener", "Tell me."))
SETTINGS = Settings("http://localhost/v1", "m", {"temperature": 0})
ASPECTS = ["warmth", "sense"]
SCORED = JudgePrompt(SCORES, dict.fromkeys(ASPECTS, "?"), "$aspects$form", "$dialogue$reply", "$reference$reply")
PAIRED = JudgePrompt(
    PAIRS, {"warmth": "?"}, "$aspects$form", "$dialogue $reply_a $reply_b", "$reference $reply_a $reply_b"
)


# -- questions -------------------------------------------------------------------------------------------------------


def test_a_question_s_key_is_of_the_judge_the_settings_the_prompt_and_what_is_judged():
    case = Case("7", ("Oh.", "Yes."), "ref", HISTORY)
    others = [
        Question.of(case, PAIRED, SETTINGS),
        Question.of(case, PAIRED, SETTINGS, swapped=True),
        Question.of(case, PAIRED, Settings("http://localhost/v1", "n", {"temperature": 0})),
        Question.of(case, PAIRED, Settings("http://localhost/v2", "m", {"temperature": 0})),
        Question.of(case, PAIRED, Settings("http://localhost/v1", "m", {"temperature": 1})),
        Question.of(case, JudgePrompt(PAIRS, {"warmth": "!"}, *vars_of(PAIRED)), SETTINGS),
        Question.of(Case("7", ("Oh.", "No."), "ref", HISTORY), PAIRED, SETTINGS),
        Question.of(Case("7", ("Oh.", "Yes."), "ref", HISTORY[:1]), PAIRED, SETTINGS),
    ]
    assert len({one.key for one in others}) == len(others)
    # The name of a case is not asked about.
    assert Question.of(Case("8", ("Oh.", "Yes."), "ref", HISTORY), PAIRED, SETTINGS).key == others[0].key


def vars_of(prompt: JudgePrompt) -> tuple[str, str, str]:
    return prompt.system, prompt.from_dialogue, prompt.from_reference


# -- judgements ------------------------------------------------------------------------------------------------------


def judgement(key: str, text: str | None = "{}", **more: object) -> Judgement:
    return Judgement(key, "7", False, "local", "m", text, **more)


def test_judgements_are_kept_word_for_word(tmp_path):
    path = tmp_path / "deep" / "judgements.jsonl"
    said = 'ä\u2028"\n{'
    Judgements(path).add(judgement("k", said, tokens_in=3))
    again = Judgements(path)
    assert (again["k"].text, again["k"].tokens_in, again["none"]) == (said, 3, None)
    assert again.new == []


def test_an_answer_counts_before_a_failure_in_whichever_order_they_came(tmp_path):
    path = tmp_path / "judgements.jsonl"
    kept = Judgements(path)
    for one in (judgement("a"), judgement("a", None, problem="HTTP 500"), judgement("b", None, problem="HTTP 500")):
        kept.add(one)
    for found in (kept, Judgements(path)):
        assert (found.answers("a"), found.answers("b"), found.answers("c")) == (True, False, False)
        assert found["b"].problem == "HTTP 500"


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_line_cut_short_costs_itself_alone(tmp_path, cut):
    path = tmp_path / "judgements.jsonl"
    kept = Judgements(path)
    for key in "ab":
        kept.add(judgement(key))
    path.write_bytes(path.read_bytes()[:-cut])
    torn = Judgements(path)
    # Where only the line end is missing, nothing is lost.
    assert (torn.answers("a"), torn.answers("b")) == (True, cut == 1)
    assert len(torn.faults) == (cut > 1)
    torn.add(judgement("c"))
    later = Judgements(path)
    assert [later.answers(key) for key in "abc"] == [True, cut == 1, True]


@pytest.mark.parametrize("line", ["", "7", "[]", '{"key": "k"}', '{"key": "k", "text": 3}', "\xff", "[" * 5000])
def test_a_line_that_is_no_judgement_is_named_and_not_used(tmp_path, line):
    path = tmp_path / "judgements.jsonl"
    Judgements(path).add(judgement("k"))
    path.write_bytes(line.encode("latin-1") + b"\n" + path.read_bytes())
    found = Judgements(path)
    assert found.faults == [f"{path}, line 1: is cut short or no judgement, and is not used"]
    assert found.answers("k")


def test_several_threads_write_whole_lines(tmp_path):
    kept = Judgements(tmp_path / "judgements.jsonl")

    def write(name: int) -> None:
        for place in range(20):
            kept.add(judgement(f"{name} {place}", "x" * 5000))

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = Judgements(kept.path)
    assert (again.faults, len(again.path.read_text().splitlines())) == ([], 80)


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DialogueError, match="cannot be"):
        Judgements(tmp_path / "file" / "judgements.jsonl").add(judgement("k"))


# -- outcomes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("straight", "swapped", "verdict", "flipped", "wavering"),
    [
        ("A", "B", "win", {}, ()),
        ("B", "A", "lose", {}, ()),
        ("tie", "tie", "tie", {}, ()),
        ("A", "A", "tie", {"warmth": "A"}, ()),
        ("B", "B", "tie", {"warmth": "B"}, ()),
        ("A", "tie", "tie", {}, ("warmth",)),
        ("tie", "A", "tie", {}, ("warmth",)),
        ("B", "tie", "tie", {}, ("warmth",)),
        ("tie", "B", "tie", {}, ("warmth",)),
    ],
)
def test_only_what_holds_in_both_orders_is_won_or_lost(tmp_path, straight, swapped, verdict, flipped, wavering):
    asked = questions([Case("7", ("Oh.", "Yes."), "ref")], PAIRED, SETTINGS)
    kept = Judgements(tmp_path / "judgements.jsonl")
    for question, chosen in zip(asked[0], (straight, swapped)):
        kept.add(judgement(question.key, json.dumps({"warmth": chosen})))
    (found,) = outcomes(asked, kept, PAIRED)
    assert (found.verdict, found.flipped, found.wavering) == ({"warmth": verdict}, flipped, wavering)


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        (["A", "B"], "judged"),
        (["A", None], "unasked"),
        (["A", 500], "failed"),
        (["C", "A"], "unparsable"),
        (["C", 500], "failed"),
        ([500, None], "failed"),
    ],
)
def test_a_pair_is_judged_where_both_answers_are_good(tmp_path, answers, status):
    asked = questions([Case("7", ("Oh.", "Yes."), "ref")], PAIRED, SETTINGS)
    kept = Judgements(tmp_path / "judgements.jsonl")
    for question, answer in zip(asked[0], answers):
        if answer == 500:
            kept.add(judgement(question.key, None, problem="HTTP 500"))
        elif answer is not None:
            kept.add(judgement(question.key, json.dumps({"warmth": answer})))
    assert [one.status for one in outcomes(asked, kept, PAIRED)] == [status]


def test_shares_and_their_net_are_those_of_the_judged_alone():
    ways = ["win"] * 6 + ["tie"] * 3 + ["lose"]
    found = [Outcome(str(place), "judged", {"warmth": way}) for place, way in enumerate(ways)]
    found[6] = Outcome("6", "judged", {"warmth": "tie"}, {"warmth": "B"})
    found[7] = Outcome("7", "judged", {"warmth": "tie"}, wavering=("warmth",))
    values = figures([*found, Outcome("x", "failed"), Outcome("y", "unparsable"), Outcome("z", "unasked")], PAIRED)
    row = values["pairs"]["warmth"]
    assert [values[name] for name in ("cases", "judged", "failed", "unparsable", "unasked")] == [13, 10, 1, 1, 1]
    assert (row["win"], row["tie"], row["lose"], row["net"]) == (0.6, 0.3, 0.1, 0.5)
    assert (row["flipped"], row["wavering"]) == (1, 1)
    # The standard error of the net is sqrt((.6 + .1 - .25) / 10) = .21.
    low, high = row["net_interval"]
    assert low == pytest.approx(0.5 - 1.96 * 0.21, abs=0.1)
    assert high == pytest.approx(0.5 + 1.96 * 0.21, abs=0.1)
    assert 0 < row["p"] < 0.06
    assert values["position_bias"] == {
        "verdicts": 10,
        "flipped": 1,
        "share": 0.1,
        "to_the_first_shown": 0,
        "to_the_second_shown": 1,
    }


def test_the_interval_of_a_score_is_of_the_judged_alone():
    found = [Outcome(str(place), "judged", {"warmth": 4.0 + place % 3, "sense": 1.0}) for place in range(99)]
    values = figures([*found, Outcome("x", "unparsable")], SCORED)
    low, high = values["scores"]["warmth"]["interval"]
    assert values["scores"]["warmth"]["mean"] == 5
    # The standard error is sqrt(2 / 3 / 99) = .082.
    assert (low, high) == (pytest.approx(5 - 1.96 * 0.082, abs=0.03), pytest.approx(5 + 1.96 * 0.082, abs=0.03))


def test_without_a_verdict_there_are_no_figures():
    values = figures([Outcome("x", "failed")], SCORED)
    assert "scores" not in values
    assert figures([], PAIRED)["cases"] == 0


def test_cost_is_counted_once_for_a_question_that_several_cases_share(tmp_path):
    asked = questions([Case(name, ("Oh.",), "ref") for name in "ab"], SCORED, SETTINGS)
    kept = Judgements(tmp_path / "judgements.jsonl")
    kept.add(judgement(asked[0][0].key, tokens_in=1_000_000, tokens_out=500_000))
    whole = {"answers": 1, "tokens_in": 1_000_000, "tokens_out": 500_000, "without_usage": 0, "money": 7.0}
    assert spent(asked, kept, 2.0, 10.0) == {"all": whole, "now": whole}
    again = spent(asked, Judgements(kept.path), 2.0, 10.0)
    assert again["all"] == whole
    assert again["now"] == {"answers": 0, "tokens_in": 0, "tokens_out": 0, "without_usage": 0, "money": 0.0}


# -- the endpoint ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("http://localhost:8000/v1", "http://localhost:8000/v1"),
        ("https://api.example.com/v1/", "https://api.example.com/v1"),
        ("http://[::1]:8000/v1/chat/completions", "http://[::1]:8000/v1"),
    ],
)
def test_an_address_is_written_in_one_way(written, address):
    assert endpoint_settings(written, "m", {}).source == address


@pytest.mark.parametrize(
    "address", ["localhost:8000", "ftp://localhost/v1", "http:///v1", "", "file:///etc", "http://localhost:port"]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ConfigError, match="endpoint: is"):
        endpoint_settings(address, "m", {})


@pytest.mark.parametrize("name", ["model", "messages", "n", "stream"])
def test_a_setting_cannot_take_the_place_of_what_is_asked(name):
    with pytest.raises(ConfigError, match=f"setting: got '{name}'"):
        endpoint_settings("http://localhost/v1", "m", {name: 1})


def test_what_leaves_the_machine_in_the_clear_is_known():
    assert is_in_the_clear("http://judge.example.com/v1")
    for url in ("https://judge.example.com/v1", "http://localhost:1/v1", "http://127.0.0.1/v1", "http://[::1]/v1"):
        assert not is_in_the_clear(url)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("", None), ("0", 0), (" 7 ", 7), ("1.5", 1.5), ("-3", 0), ("nan", None), ("soon", None)],
)
def test_retry_after_is_read_where_it_says_something(header, seconds):
    assert seconds_to_wait(header) == seconds


def test_retry_after_may_be_a_date():
    assert seconds_to_wait("Fri, 31 Dec 9999 23:59:59 GMT") > 1e9
    assert seconds_to_wait("Wed, 21 Oct 2015 07:28:00 -0000") == 0
    assert seconds_to_wait("Wed, 21 Oct 99999999999999999999 07:28:00 GMT") is None
