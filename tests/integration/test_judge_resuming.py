"""What es4r judge was answered is kept: nothing is asked twice, and an ended run goes on where it was."""

from __future__ import annotations

import signal
import threading
import time

import pytest
from judge_command import (
    NO_ANSWERS,
    PATIENCE,
    judge,
    kept,
    result_of,
    shown,
    start,
    wait_until,
    write_dialogues,
    write_predictions,
)
from judge_server import Answer, JudgeServer, says, scores


def test_a_second_run_asks_nothing_not_even_whether_the_server_is_there(tmp_path):
    write_predictions(tmp_path, {"a": "I hear you.", "b": "Oh."})
    with JudgeServer().running() as server:
        judge(tmp_path, server)
        before = (tmp_path / "out" / "judgements.jsonl").read_bytes()
    printed = judge(tmp_path, server).stdout
    assert len(server.bodies) == 2
    assert (tmp_path / "out" / "judgements.jsonl").read_bytes() == before
    assert result_of(tmp_path)["cost"]["now"] == NO_ANSWERS
    assert "of it now      0 tokens in, 0 out" in printed


@pytest.mark.parametrize(
    "change", [("--model", "other"), ("--setting", "temperature=0.5"), ("--dialogues", "dialogues.jsonl")]
)
def test_another_judge_setting_or_prompt_is_asked_anew(tmp_path, server, change, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dialogues(tmp_path, "a")
    write_predictions(tmp_path, {"a": "I hear you."})
    judge(tmp_path, server)
    judge(tmp_path, server, *change)
    judge(tmp_path, server, *change)
    judge(tmp_path, server)
    assert len(server.bodies) == 2


def test_equal_questions_are_asked_once(tmp_path, server):
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"response": "Oh.", "reference": "Yes."}\n' * 3)
    judge(tmp_path, server)
    assert (len(server.bodies), result_of(tmp_path)["judged"]) == (1, 3)


def test_only_a_changed_reply_is_asked_about_again(tmp_path, server):
    write_predictions(tmp_path, {"a": "I hear you.", "b": "Oh."})
    judge(tmp_path, server)
    write_predictions(tmp_path, {"a": "I hear you.", "b": "Oh dear."})
    judge(tmp_path, server)
    assert len(server.bodies) == 3
    assert shown(server.users[-1], "reply") == ["Oh dear."]


def test_a_killed_run_goes_on_where_it_was(tmp_path, server):
    write_predictions(tmp_path, {f"{place}": f"Reply {place}." for place in range(8)})
    gate = threading.Event()

    def answer(user: str, times: int) -> Answer:
        if len(server.bodies) > 3:
            gate.wait(PATIENCE)
        return scores()

    server.answer = answer
    process = start(tmp_path, server, "--concurrency", "1")
    wait_until(lambda: len(server.bodies) == 4)
    process.kill()
    process.communicate()
    gate.set()
    assert process.returncode == -signal.SIGKILL
    assert len(kept(tmp_path)) == 3
    assert not (tmp_path / "out" / "judge.json").exists()
    judge(tmp_path, server)
    # Of the eight, the one that was killed had to be asked twice.
    assert len(server.bodies) == 9
    assert result_of(tmp_path)["judged"] == 8
    assert result_of(tmp_path)["cost"]["now"]["answers"] == 5


def test_a_line_that_was_cut_short_is_named_and_asked_again(tmp_path, server):
    write_predictions(tmp_path, {"a": "I hear you.", "b": "Oh."})
    judge(tmp_path, server, "--concurrency", 1)
    path = tmp_path / "out" / "judgements.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    result = judge(tmp_path, server)
    assert result.stderr == f"note: {path}, line 2: is cut short or no judgement, and is not used\n"
    assert len(server.bodies) == 3
    assert result_of(tmp_path)["judged"] == 2
    judge(tmp_path, server)
    assert len(server.bodies) == 3


def test_an_interrupted_run_keeps_what_is_being_answered(tmp_path, server):
    write_predictions(tmp_path, {f"{place}": f"Reply {place}." for place in range(20)})
    gate = threading.Event()

    def answer(user: str, times: int) -> Answer:
        asked = len(server.bodies)
        gate.wait(PATIENCE)
        return scores() if asked <= 2 else says("slow", wait=1.0)

    server.answer = answer
    process = start(tmp_path, server, "--concurrency", "2")
    wait_until(lambda: len(server.bodies) == 2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    gate.set()
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode not in (0, 1, 2)
    assert "Traceback" not in errors
    # Two, unless this machine took long to pass the signal on.
    assert 2 <= len(kept(tmp_path)) == len(server.bodies) < 20
