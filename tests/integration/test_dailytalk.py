"""DailyTalk: a miniature of the corpus as its owners publish it, with what may be wrong with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from preparers import prepared, rejects
from tones import tone

TALK = ["What do you mean?", "I don't think so, I'm afraid.", "Why not?", "I was late."]


@pytest.fixture
def dailytalk(tmp_path) -> Path:
    """Six dialogues of four turns."""
    data = tmp_path / "dailytalk"
    metadata = {}
    for dialogue in range(6):
        folder = data / "data" / str(dialogue)
        folder.mkdir(parents=True)
        turns = {str(turn): {"emotion": "no emotion", "act": "question", "topic": "work"} for turn in range(4)}
        turns["1"]["emotion"] = "sadness"
        metadata[str(dialogue)] = turns
        for turn, text in enumerate(TALK):
            stem = folder / f"{turn}_{turn % 2}_d{dialogue}"
            tone(stem.with_suffix(".wav"), 150, 0.1)
            stem.with_suffix(".txt").write_text(text + "\n")
    (data / "metadata.json").write_text(json.dumps(metadata))
    return data


def test_dailytalk_becomes_dialogues_that_stand_in_one_split(dailytalk, tmp_path, capsys):
    reports = prepared("DailyTalk", dailytalk.parent, tmp_path / "out")
    assert "{'train': 12, 'valid': 3, 'test': 3} samples, 0 entries left out;" in capsys.readouterr().out
    names = {split: {one.id.split("_")[0] for one in report.dialogues} for split, report in reports.items()}
    assert sorted(name for found in names.values() for name in found) == [f"d{number}" for number in range(6)]
    last = reports["test"].dialogues[2]
    assert [turn.text for turn in last.history] == TALK[:3]
    assert [turn.emotion for turn in last.history] == ["no emotion", "sadness", "no emotion"]
    assert [turn.speaker_id for turn in last.history] == ["0", "1", "0"]
    assert [turn.role for turn in last.history] == ["speaker", "listener", "speaker"]
    assert last.id == f"{min(names['test'])}_3"


def test_dailytalk_names_what_is_missing_or_too_much(dailytalk, tmp_path):
    data = dailytalk / "data"
    (data / "0" / "1_1_d0.wav").unlink()
    for extension in ("wav", "txt"):
        (data / "1" / f"3_1_d1.{extension}").unlink()
    (data / "2" / "2_0_d2.txt").write_text(" \n")
    shutil.copy(data / "3" / "0_0_d3.wav", data / "3" / "0_1_d3.wav")
    tone(data / "4" / "4_0_d4.wav", 150, 0.1)
    tone(data / "4" / "cough.wav", 150, 0.1)
    (data / "4" / "._0_0_d4.wav").write_bytes(b"\x00\x05\x16\x07Mac OS X")
    metadata = json.loads((dailytalk / "metadata.json").read_text())
    metadata |= {"5": [], "6": metadata["0"], "7": {"0": "Hello."}}
    (dailytalk / "metadata.json").write_text(json.dumps(metadata))
    # Where the few whole ones are drawn into does not matter here.
    with pytest.raises(SystemExit):
        prepared("DailyTalk", dailytalk, tmp_path / "out", "--seed=0")
    assert rejects(tmp_path / "out") == [
        ("d0, 1", "1_1_d0.wav", "does not exist", 2),
        ("metadata.json, dialogue 1", "1/3_*_d1.wav", "does not exist, nor its .txt", 0),
        ("d2, 2", "2_0_d2.txt", "is empty", 2),
        ("metadata.json, dialogue 3", "0_1_d3.wav", "and 0_0_d3.wav are both turn 0", 0),
        ("d4", "cough.wav", "is no file of dialogue 4", 0),
        ("d4, 4", "4_0_d4.wav", "is of no utterance of metadata.json", 0),
        ("metadata.json, dialogue 5", "dialogue", "is no object of utterances", 0),
        ("metadata.json, dialogue 6", "6/0_*_d6.wav", "does not exist, nor its .txt", 0),
        ("metadata.json, dialogue 7", "utterance 0", "is no object", 0),
    ]


def test_dailytalk_is_looked_for_in_the_right_folder(tmp_path):
    with pytest.raises(SystemExit, match=r"holds no metadata.json with a folder data.*; see recipes/DailyTalk"):
        prepared("DailyTalk", tmp_path, tmp_path / "out")
