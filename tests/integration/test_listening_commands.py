"""es4r listen and listen-report as commands: what is made is blind, and what is left out is told."""

from __future__ import annotations

import base64
import io
import json
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
from listening_case import SYSTEMS, make_case, run

from es4r_toolkit.data.listening import COLUMNS, read_key


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The folder of a listening test."""
    folder = tmp_path_factory.mktemp("listening")
    run(*make_case(folder / "case"), "--output", folder / "test")
    return folder / "test"


def test_what_is_made_is_blind_and_what_is_left_out_is_told(tmp_path):
    arguments = make_case(tmp_path / "case")
    extra = tmp_path / "case" / SYSTEMS[0] / "predictions.jsonl"
    with extra.open("a") as file:
        file.write(json.dumps({"id": "d-more", "response": "Alone."}) + "\n")
    made = run(*arguments, "--output", tmp_path / "test")
    assert "1 answered by the first system alone, left out: d-more" in made.stderr
    assert "1 without speech in one system or both, asked on text alone: d-cat" in made.stderr
    assert "3 dialogues, 21 questions" in made.stdout
    assert " MB)" in made.stdout
    page = (tmp_path / "test" / "listen.html").read_text(encoding="utf-8")
    for hidden in (*SYSTEMS, str(tmp_path), "d-exam", "predictions"):
        assert hidden not in page
    for address in page.split("data:audio/flac;base64,")[1:]:
        content = base64.b64decode(address.split('"')[0])
        assert not [name for name in SYSTEMS if name.encode() in content]
    told = json.loads(run(*arguments, "--output", tmp_path / "test", "--json").stdout)
    assert told["remarks"]["answered by the first system alone, left out"] == ["d-more"]
    assert told["bytes"] == (tmp_path / "test" / "listen.html").stat().st_size


def test_a_bad_recording_is_an_error_that_stops_nothing(tmp_path):
    arguments = make_case(tmp_path / "case")
    (tmp_path / "case" / SYSTEMS[1] / "d-exam" / "response.wav").write_bytes(b"RIFF")
    made = run(*arguments, "--output", tmp_path / "test", status=1)
    assert "d-exam/response.wav" in made.stderr
    assert "3 dialogues, 18 questions" in made.stdout


def test_a_number_of_dialogues_is_drawn_and_the_key_of_another_test_is_safe(tmp_path):
    arguments = make_case(tmp_path / "case")
    assert "2 dialogues," in run(*arguments, "--number", 2, "--output", tmp_path / "test").stdout
    assert "holds the key of another test" in run(*arguments, "--output", tmp_path / "test", status=1).stderr
    assert len(read_key(tmp_path / "test" / "listen_key.json").items) == 2


def test_results_that_cannot_be_used_are_told_and_exit_1(made):
    key = read_key(made / "listen_key.json")
    good = [key.test, "Anna", "1", "topic", "x", "x", ""]
    rows = [COLUMNS, good, good, ["Tother", *good[1:]], [*good[:3], "warmth", *good[4:]]]
    path = made / "anna.csv"
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    told = run("listen-report", path, status=1)
    for words in ("repeats line", "test is", "aspect … is not known", "Anna: 1 of 21 answers"):
        assert words in told.stdout
    report = json.loads(run("listen-report", path, "--json", status=1).stdout)
    assert [one["line"] for one in report["left_out"]] == [3, 4, 5]
    run("listen-report", path, "--key", made / "none.json", status=1)


def test_wav_samples_of_a_reply_come_through_the_page_unchanged(made):
    """What raters hear is what the system spoke: FLAC, at the rate that both systems share."""
    page = (made / "listen.html").read_text(encoding="utf-8")
    with wave.open(str(made.parent / "case" / SYSTEMS[0] / "d-exam" / "response.wav")) as file:
        spoken = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    contents = [base64.b64decode(part.split('"')[0]) for part in page.split("data:audio/flac;base64,")[1:]]
    sounds = [soundfile.read(io.BytesIO(content), dtype="int16") for content in contents]
    assert any(rate == 24000 and np.array_equal(samples, spoken) for samples, rate in sounds)


@pytest.mark.parametrize("command", ["listen", "listen-report"])
def test_help_shows_an_example(command):
    assert f"es4r {command} " in run(command, "--help").stdout.split("Example:")[1]
