"""IEMOCAP: a miniature of the release as its owners publish it, with its oddities."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from preparers import ids, prepared, rejects
from tones import tone

# Written out of order, with an aside that nobody cut out, one that nobody named, and Windows' apostrophe.
TRANSCRIPT = """Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.
Ses01F_impro01_F001 [014.8872-018.0175]: Is there a problem?
Ses01F_impro01_M000 [010.0100-011.3925]: Yeah, I’m here.
M: Yeah.
Ses01F_impro01_MXX0 [019.0000-019.9000]: [LAUGHTER]

Ses01F_impro01_M001 [019.2900-020.7875]: Well, what’s wrong?
"""
EVALUATION = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]
C-E2:\tNeutral;\t()
A-E3:\tval 3; act 2; dom  2;\t()

[10.0100 - 11.3925]\tSes01F_impro01_M000\tfru\t[2.5000, 2.5000, 2.5000]
[14.8872 - 18.0175]\tSes01F_impro01_F001\txxx\t[2.5000, 3.0000, 2.5000]
[19.2900 - 20.7875]\tSes01F_impro01_M001\tang\t[2.5000, 3.0000, 2.5000]
"""


@pytest.fixture
def iemocap(tmp_path) -> Path:
    """Two dialogues in each session; that of Ses01F_impro01 is written out above."""
    data = tmp_path / "IEMOCAP_full_release"
    for session in range(1, 6):
        for name in (f"Ses0{session}F_impro01", f"Ses0{session}M_script01_1"):
            folder = data / f"Session{session}"
            for part in ("dialog/transcriptions", "dialog/EmoEvaluation", f"sentences/wav/{name}"):
                (folder / part).mkdir(parents=True, exist_ok=True)
            transcript = folder / "dialog" / "transcriptions" / f"{name}.txt"
            transcript.write_bytes(TRANSCRIPT.replace("Ses01F_impro01", name).encode("cp1252"))
            transcript.with_name(f"._{name}.txt").write_bytes(b"\x00\x05\x16\x07Mac OS X")
            evaluation = folder / "dialog" / "EmoEvaluation" / f"{name}.txt"
            evaluation.write_text(EVALUATION.replace("Ses01F_impro01", name))
            for turn in ("F000", "M000", "F001", "M001"):
                tone(folder / "sentences" / "wav" / name / f"{name}_{turn}.wav", 120, 0.1)
    return data


def test_iemocap_becomes_dialogues_in_the_order_of_speech(iemocap, tmp_path, capsys):
    reports = prepared("IEMOCAP", iemocap, tmp_path / "out", "--fold=1")
    out = capsys.readouterr().out
    assert "IEMOCAP: {'train': 21, 'valid': 3, 'test': 6} samples, 20 entries left out; manifests are in" in out
    assert ids(reports["test"])[:3] == [f"Ses01F_impro01_{turn}" for turn in ("M000", "F001", "M001")]
    last = reports["test"].dialogues[2]
    assert [turn.text for turn in last.history] == ["Excuse me.", "Yeah, I’m here.", "Is there a problem?"]
    assert [turn.role for turn in last.history] == ["speaker", "listener", "speaker"], "M replies"
    assert [turn.speaker_id for turn in last.history] == ["Ses01_F", "Ses01_M", "Ses01_F"]
    assert [turn.emotion for turn in last.history] == ["neutral", "frustration", None], "the annotators disagree"
    assert last.response.emotion == "anger"
    assert last.response.audio.name == "Ses01F_impro01_M001.wav"
    assert rejects(tmp_path / "out")[:2] == [
        ("Ses01F_impro01.txt, line 4", "line", "is 'M: Yeah.', which names no utterance and time", 0),
        ("Ses01F_impro01.txt, line 5", "Ses01F_impro01_MXX0", "has no recording of its own", 0),
    ]


def test_iemocap_tests_on_a_session_that_nothing_else_knows(iemocap, tmp_path):
    reports = prepared("IEMOCAP", iemocap, tmp_path / "out", "--fold=3", "--listener=second")
    actors = {
        split: {turn.speaker_id for dialogue in report.dialogues for turn in dialogue.history}
        for split, report in reports.items()
    }
    assert actors["test"] == {"Ses03_F", "Ses03_M"}
    assert not actors["test"] & (actors["train"] | actors["valid"])
    dialogues = {split: {one.id[:-5] for one in report.dialogues} for split, report in reports.items()}
    assert len(dialogues["valid"]) == 1
    assert not dialogues["train"] & dialogues["valid"]
    assert [turn.role for turn in reports["test"].dialogues[1].history] == ["speaker", "listener", "speaker"]
    assert all(one.response.speaker_id.endswith("M") for one in reports["test"].dialogues), "F opens each"


def test_iemocap_loses_only_the_samples_of_a_lost_recording(iemocap, tmp_path, capsys):
    sounds = iemocap / "Session1" / "sentences" / "wav"
    (sounds / "Ses01F_impro01" / "Ses01F_impro01_F001.wav").unlink()
    cut = sounds / "Ses01M_script01_1" / "Ses01M_script01_1_F000.wav"
    cut.write_bytes(cut.read_bytes()[:-100])
    (iemocap / "Session2" / "dialog" / "EmoEvaluation" / "Ses02F_impro01.txt").unlink()
    reports = prepared("IEMOCAP", iemocap, tmp_path / "out", "--fold=1")
    assert ids(reports["test"]) == ["Ses01F_impro01_M000", "Ses01F_impro01_F001"]
    assert reports["test"].dialogues[1].response.audio is None
    named = {(place, field): (problem, lost) for place, field, problem, lost in rejects(tmp_path / "out")}
    assert named["Ses01F_impro01, F001", "Ses01F_impro01_F001.wav"] == ("does not exist", 1)
    problem, lost = named["Ses01M_script01_1, F000", "Ses01M_script01_1_F000.wav"]
    assert problem.startswith("declares 3200 bytes of samples")
    assert lost == 3
    assert ("EmoEvaluation/Ses02F_impro01.txt", "emotion") in named
    assert "23 entries left out (samples lost: 4); manifests" in capsys.readouterr().out


def test_iemocap_wants_all_five_sessions(iemocap, tmp_path):
    shutil.rmtree(iemocap / "Session4")
    with pytest.raises(SystemExit, match=r"holds no Session4/dialog/transcriptions.*; see recipes/IEMOCAP/README.md"):
        prepared("IEMOCAP", iemocap, tmp_path / "out")
    with pytest.raises(SystemExit, match="fold: got 6; must be the session to test on"):
        prepared("IEMOCAP", iemocap, tmp_path / "out", "--fold=6")
