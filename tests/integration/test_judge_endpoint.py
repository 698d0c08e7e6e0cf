"""es4r judge before a server that fails, and the key that is sent to it."""

from __future__ import annotations

import json
import time

import pytest
from judge_command import (
    ASPECTS,
    KEY,
    NO_ANSWERS,
    judge,
    kept,
    result_of,
    wait_until,
    write_predictions,
)
from judge_server import Answer, JudgeServer, says, scores

from es4r_toolkit.errors import BackendError
from es4r_toolkit.metrics.judge.asking import Unanswered
from es4r_toolkit.metrics.judge.endpoint import LARGEST, Endpoint, endpoint_settings

# -- a server that fails -----------------------------------------------------------------------------------------------


def endpoint(server: JudgeServer, **options: object) -> Endpoint:
    settings = endpoint_settings(server.url, "m", {})
    return Endpoint(settings, **{"timeout": 60.0, "retries": 2, "first_wait": 0.01, **options})


def ask(server: JudgeServer, *answers: Answer, **options: object):
    """Ask once; the last answer is given for ever."""
    server.answer = lambda user, times: answers[min(times, len(answers) - 1)]
    messages = [{"role": role, "content": "What is it worth?"} for role in ("system", "user")]
    return endpoint(server, **options).ask(messages)


GOOD = says("{}")


@pytest.mark.parametrize(
    "fault",
    [
        Answer({"error": {"message": "slow down"}}, 429, {"Retry-After": "0"}),
        Answer(b"", 429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        Answer(b"", 429, {"Retry-After": "soon"}),
        Answer(b"<html>busy</html>", 503),
        Answer(b"", 500),
        Answer(b"", 408),
        says("{}", missing=10),
    ],
    ids=["429", "429 until a date", "429 soon", "503", "500", "408", "truncated body"],
)
def test_what_may_pass_is_asked_again(server, fault):
    reply = ask(server, fault, GOOD)
    assert (reply.text, reply.attempts, len(server.bodies)) == ("{}", 2, 2)
    assert (reply.tokens_in, reply.tokens_out, reply.finish, reply.served) == (100, 20, "stop", "judge-1")


def test_what_takes_too_long_is_asked_again(server):
    reply = ask(server, says("{}", wait=3.0), GOOD, timeout=1.0, retries=5)
    assert reply.text == "{}"
    assert reply.attempts == len(server.bodies) >= 2


def test_it_waits_as_long_as_it_is_told_to(server):
    began = time.monotonic()
    ask(server, Answer(b"", 429, {"Retry-After": "1"}), GOOD)
    assert time.monotonic() - began >= 1.0


def test_who_is_told_to_wait_too_long_gives_up_at_once(server):
    with pytest.raises(Unanswered, match=r"HTTP 429 \(quota\); asks to wait 3600 s"):
        ask(server, Answer({"error": {"message": "quota"}}, 429, {"Retry-After": "3600"}))
    assert len(server.bodies) == 1


def test_waits_double_and_are_bounded_and_vary(server):
    patient = endpoint(server, first_wait=1.0, longest_wait=10.0)
    for attempt, most in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 10.0), (50, 10.0)):
        waits = [patient._delay(attempt, None) for _ in range(50)]
        assert most / 2 <= min(waits) < max(waits) <= most


@pytest.mark.parametrize(
    ("answer", "problem", "requests"),
    [
        (Answer({"error": {"message": "out of\nmemory"}}, 500), r"^HTTP 500 \(out of memory\)$", 3),
        (says("{}", wait=0.4), "^ReadTimeout", 3),
        (says("{}", pause=0.01), "not done after 0.2 s", 3),
        (says("{}", missing=10), "^RemoteProtocolError", 3),
        (Answer({"error": {"message": "too long"}}, 400), r"^HTTP 400 \(too long\)$", 1),
        (Answer(b'{"choices": ['), r"^the answer is no chat completion: {\"choices\": \[$", 1),
        (Answer(b"[" * 200_000), "^the answer is no chat completion: ", 1),
        (Answer({"error": {"message": "busy"}}), "^the answer is no chat completion: .*busy", 1),
        (Answer({"choices": []}), "^the answer has 0 choices, not one$", 1),
        (Answer({"choices": [{"message": {"content": "{}"}}] * 2}), "^the answer has 2 choices, not one$", 1),
        (Answer({"choices": [7]}), "^the answer's choice has no text$", 1),
        (Answer({"choices": [{"message": {"content": [1]}}]}), "^the answer's choice has no text$", 1),
        (Answer(b" " * (LARGEST + 1)), "^the answer is longer than 4194304 bytes$", 1),
    ],
)
def test_what_does_not_pass_is_a_failure_that_is_named(server, answer, problem, requests):
    with pytest.raises(Unanswered, match=problem):
        ask(server, answer, timeout=0.2 if answer.wait or answer.pause else 60.0)
    # The server may not have read the last one yet when that is given up.
    wait_until(lambda: len(server.bodies) >= requests)
    assert len(server.bodies) == requests


@pytest.mark.parametrize("status", [401, 402, 404, 307])
def test_where_no_question_would_fare_better_the_run_ends(tmp_path, server, status):
    write_predictions(tmp_path, {f"{place}": f"Reply {place}." for place in range(40)})
    elsewhere = {"Location": f"{server.url}/elsewhere"}
    server.answer = lambda user, times: Answer({"error": {"message": "no"}}, status, elsewhere)
    result = judge(tmp_path, server, "--concurrency", 1, status=1)
    assert result.stderr.startswith(f"error: {server.url}: refuses: HTTP {status} (no); check the address")
    assert len(server.bodies) < 40
    assert set(server.paths) == {"/v1/chat/completions"}


def test_no_server_is_one_line(tmp_path):
    write_predictions(tmp_path, {"a": "I hear you."})
    with JudgeServer().running() as server:
        pass
    result = judge(tmp_path, server, status=1)
    assert result.stderr.startswith(f"error: {server.url}: cannot be reached (ConnectError: ")
    with pytest.raises(BackendError):
        ask(server)


def test_a_server_error_for_ever_costs_one_case_only_and_is_asked_again_by_the_next_run(tmp_path, server):
    write_predictions(tmp_path, {"a": "I hear you.", "b": "Oh.", "c": "Hm."})
    server.answer = lambda user, times: Answer(b"down", 500) if "Oh." in user else scores()
    result = judge(tmp_path, server, "--retries", 0, status=1)
    found = result_of(tmp_path)
    assert (found["judged"], found["failed"], found["unparsable"]) == (2, 1, 0)
    assert found["not_judged"] == [{"id": "b", "status": "failed", "problem": "HTTP 500 (down)"}]
    assert "failed         1\n    b: HTTP 500 (down)\n" in result.stdout
    server.answer = lambda user, times: scores(quality=1)
    judge(tmp_path, server)
    assert len(server.bodies) == 4
    assert result_of(tmp_path)["scores"]["quality"]["mean"] == pytest.approx(17 / 3, abs=1e-4)


def test_a_server_that_only_fails_is_left_alone(tmp_path, server):
    write_predictions(tmp_path, {f"{place}": f"Reply {place}." for place in range(40)})
    server.answer = lambda user, times: Answer(b"", 500)
    result = judge(tmp_path, server, "--retries", 0, "--concurrency", 1, status=1)
    assert "failed too often in a row; see why, and give the command again" in result.stderr
    found = result_of(tmp_path)
    # By the time that it gives up, others may have been asked.
    assert 10 <= found["failed"] == len(server.bodies) < 40
    assert found["failed"] + found["unasked"] == found["cases"] == 40


def test_half_characters_of_a_server_are_written_as_question_marks(tmp_path, server):
    write_predictions(tmp_path, {"a": "I hear you.", "b": "Oh."})
    odd = Answer(b'{"error": {"message": "\\ud800 broken"}}', 400)
    server.answer = lambda user, times: odd if "Oh." in user else says("\ud83d is no verdict")
    judge(tmp_path, server, status=1)
    assert [one["problem"] for one in result_of(tmp_path)["not_judged"]] == [
        "holds no JSON object",
        "HTTP 400 (? broken)",
    ]
    assert sorted(json.loads(line)["text"] or "" for line in kept(tmp_path)) == ["", "? is no verdict"]


def test_no_more_requests_run_at_once_than_allowed(tmp_path, server):
    write_predictions(tmp_path, {f"{place}": f"Reply {place}." for place in range(12)})
    server.answer = lambda user, times: says(json.dumps(dict.fromkeys(ASPECTS, 5)), wait=0.1)
    judge(tmp_path, server, "--concurrency", 3)
    assert 1 < server.busiest <= 3


def test_what_a_server_does_not_say_it_used_is_counted(tmp_path, server):
    write_predictions(tmp_path, {"a": "I hear you.", "b": "Oh.", "c": "Hm."})
    usages = {"hear": None, "Oh.": {"prompt_tokens": "many", "completion_tokens": -1}, "Hm.": [1]}
    verdict = json.dumps(dict.fromkeys(ASPECTS, 5))
    server.answer = lambda user, times: says(verdict, next(usage for word, usage in usages.items() if word in user))
    printed = judge(tmp_path, server).stdout
    assert result_of(tmp_path)["cost"]["all"] == {**NO_ANSWERS, "answers": 3, "without_usage": 3}
    assert "cost           0 tokens in, 0 out; the server does not say what 3 cost\n" in printed


# -- the key -----------------------------------------------------------------------------------------------------------


def test_the_key_is_sent_and_stands_nowhere_even_where_the_server_repeats_it(tmp_path, server, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    write_predictions(tmp_path, {"a": "I hear you.", "b": "Oh.", "c": "Hm.", "d": "So."})
    answers = {
        "hear": says(json.dumps({"reason": f"you sent Bearer {KEY}", **dict.fromkeys(ASPECTS, 5)}), finish=KEY),
        "Oh.": Answer({"error": {"message": f"wrong key {KEY}"}}, 400),
        "Hm.": Answer({"echo": f"Bearer {KEY}"}),
        "So.": Answer(f"<html>{KEY}</html>".encode(), 422),
    }
    server.answer = lambda user, times: next(answer for word, answer in answers.items() if word in user)
    result = judge(tmp_path, server, "--key-variable", "MY_KEY", status=1)
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert result_of(tmp_path)["judged"] == 1
    assert "wrong key [the key]" in result.stdout
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in written} >= {"judge.json", "judgements.jsonl", "verdicts.jsonl"}
    for path in written:
        assert KEY not in path.read_text(), path
        assert KEY not in json.dumps(path.read_text()), path
    assert KEY not in result.output


def test_a_refused_key_is_not_shown(tmp_path, server, monkeypatch):
    monkeypatch.setenv("ES4R_JUDGE_KEY", KEY)
    write_predictions(tmp_path, {"a": "I hear you."})
    server.answer = lambda user, times: Answer({"error": {"message": f"Incorrect API key: {KEY}"}}, 401)
    result = judge(tmp_path, server, status=1)
    assert "HTTP 401 (Incorrect API key: [the key])" in result.stderr
    assert KEY not in result.output


@pytest.mark.parametrize("held", [None, "", "two words", "umläut", 'a"b'])
def test_a_variable_without_a_key_is_named_and_its_value_is_not(tmp_path, server, monkeypatch, held):
    if held is not None:
        monkeypatch.setenv("MY_KEY", held)
    write_predictions(tmp_path, {"a": "I hear you."})
    result = judge(tmp_path, server, "--key-variable", "MY_KEY", status=1)
    assert result.stderr.startswith("error: MY_KEY: ")
    assert not held or held not in result.output
    assert server.bodies == []


@pytest.mark.parametrize("address", ["http://me:secret@127.0.0.1:1/v1", "http://127.0.0.1:1/v1?key=secret"])
def test_an_address_that_may_hold_a_secret_is_refused_without_showing_it(tmp_path, server, address):
    server.url = address
    write_predictions(tmp_path, {"a": "I hear you."})
    result = judge(tmp_path, server, status=1)
    assert result.stderr.startswith("error: endpoint: has a user name, a query or a fragment")
    assert "secret" not in result.output
    assert not (tmp_path / "out").exists()
