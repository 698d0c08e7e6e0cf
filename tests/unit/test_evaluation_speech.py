"""Speech on the page of es4r evaluate: figures of one system or of two, pictures, and replies to hear."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from es4r_toolkit.cli import app
from es4r_toolkit.data.manners import NEUTRAL
from es4r_toolkit.data.responses import write_predictions, write_response

pytest.importorskip("parselmouth", reason="Praat is not installed: pip install 'es4r-toolkit[speech-metrics]'")

RATE = 16000
STRATEGIES = {"comfort": -4.0, "neutral": 0.0, "encourage": 3.0}


def answers(folder: Path, obeys: bool = True, names: str = "abcdefghijkl", loudness: float = 0.1) -> Path:
    """Tones, each as loud as its strategy asks or all alike; the later, the higher."""
    for place, name in enumerate(names):
        strategy = [*STRATEGIES][place % 3]
        gain = STRATEGIES[strategy]
        level = loudness * 10 ** (gain / 20) if obeys else loudness
        wave = level * torch.sin(2 * torch.pi * (120 + 2 * place) * torch.arange(RATE // 2) / RATE)
        answer = {"id": name, "text": f"I hear you, {name}.", "strategy": strategy}
        write_response(folder / name, answer | {"prosody": NEUTRAL | {"energy": gain}}, wave, RATE)
    return folder


def evaluate(*arguments: object, status: int = 0):
    command = ["evaluate", *map(str, arguments), "--recognizer", "none", "--workers", "1"]
    result = CliRunner().invoke(app, command)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == status, result.output
    return result


def read(folder: Path) -> tuple[dict, str]:
    return json.loads((folder / "metrics.json").read_text()), (folder / "report.html").read_text(encoding="utf-8")


def captions(page: str) -> list[str]:
    return re.findall(r"<h4>(.*?)</h4>\n<div class=\"scroll\"", page)


def test_speech_alone_makes_a_page_with_intervals_pictures_and_players(tmp_path):
    evaluate("--speech", answers(tmp_path / "ours"))
    metrics, page = read(tmp_path / "ours")
    assert captions(page) == ["How the replies sound", "As the strategy asked", "By strategy"]
    low, high = metrics["speech"]["interval"]["f0"]
    assert f"{low:.1f} to {high:.1f}" in page
    assert re.findall(r"<figcaption>(.*?)</figcaption>", page) == [
        "Rate",
        "Median F0",
        "F0 range",
        "Level",
        "Slope of measured on asked",
    ]
    assert page.count("<audio") == 12
    assert "Scores" not in page
    assert "http://" not in page


def test_two_systems_stand_side_by_side_and_what_of_the_other_cannot_be_heard_is_told(tmp_path):
    ours, theirs = answers(tmp_path / "ours"), answers(tmp_path / "theirs", obeys=False, names="bcdefghijklm")
    (theirs / "b" / "response.wav").write_bytes(b"RIFF")
    result = evaluate("--speech", ours, "--compare-speech", theirs)
    metrics, page = read(ours)
    assert (metrics["speech"]["heard"], metrics["other_speech"]["heard"]) == (12, 11)
    compared = metrics["speech_comparison"]
    assert (compared["other"], compared["paired"]) == (str(theirs), 10)
    energy = compared["metrics"]["energy_correlation"]
    assert energy["first"] > 0.9 > abs(energy["second"])
    assert energy["p"] < 0.05
    assert "Speech against the other system" in captions(page)
    assert page.count("<audio") == 20
    assert page.count("<h4>the other</h4>") == 10
    assert "2 dialogues are in the speech of this system alone, and are not compared: a, b" in page
    assert f"{theirs}: replies left out: 1, the first: {theirs / 'b' / 'response.wav'}" in result.stderr
    assert f"1 dialogue is in {theirs} alone, and is not compared: m" in page


def test_the_speech_beside_the_other_s_predictions_is_found(tmp_path):
    folders = [answers(tmp_path / name, names="abcdef", loudness=level) for name, level in (("a", 0.1), ("b", 0.2))]
    for folder in folders:
        write_predictions(folder, [{"id": name, "response": "I see.", "reference": "I see."} for name in "abcdef"])
    result = evaluate("--speech", folders[0], "--compare", folders[1])
    metrics, page = read(folders[0])
    assert metrics["speech_comparison"]["metrics"]["level"]["difference"] == pytest.approx(-6.02, abs=0.01)
    assert metrics["comparison"]["paired"] == 6
    assert "Where it is behind most" in page
    assert "Replies to hear" in page
    assert re.search(r"level +-2\d\.\d+ -1\d\.\d+ +-6\.02", result.stdout)


def test_folders_are_taken_for_the_predictions_in_them(tmp_path):
    folders = [answers(tmp_path / name, names="ab") for name in ("a", "b")]
    for folder in folders:
        write_predictions(folder, [{"id": name, "response": "I see.", "reference": "I see."} for name in "ab"])
    evaluate(folders[0], "--compare", folders[1])
    assert read(folders[0])[0]["comparison"]["other"] == str(folders[1] / "predictions.jsonl")
    bare = answers(tmp_path / "bare", names="ab")
    result = CliRunner().invoke(app, ["evaluate", str(folders[0]), "--compare", str(bare)])
    assert result.exit_code == 1
    assert f"{bare}: holds no predictions.jsonl; answer dialogues that have responses" in result.stderr


def test_where_the_other_has_no_speech_that_is_said(tmp_path):
    ours = answers(tmp_path / "ours", names="ab")
    write_predictions(ours, [{"id": "a", "response": "I see.", "reference": "I see."}])
    other = tmp_path / "other.jsonl"
    other.write_text((ours / "predictions.jsonl").read_text())
    result = evaluate("--speech", ours, "--compare", other)
    assert f"speech is not compared: none lies beside {other}" in result.stderr
    assert "speech_comparison" not in read(ours)[0]


def test_the_other_s_speech_without_one_s_own_is_wrong_usage(tmp_path):
    evaluate("a.jsonl", "--compare-speech", tmp_path, status=2)
