"""MELD: a miniature of the release as its owners publish it, with its oddities."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from preparers import ids, prepared, rejects
from tones import tone

HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
FRIENDS = [
    ("also I was the point person on my company\x92s transition", "Chandler", "neutral", 0, 0),
    ('"You must\x92ve had your hands full."', "The Interviewer", "neutral", 0, 1),
    ("That I did. That I did.", "Chandler", "neutral", 0, 2),
    ("My duties?  All right.", "Chandler", "surprise", 0, 4),
    ("But there\x92ll be perhaps 30 people under you", "The Interviewer", "joy", 0, 5),
    ("Hey.", "Joey", "joy", 1, 0),
]
FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}


def friends(rows: list[tuple]) -> str:
    times = '8,21,"00:16:16,059","00:16:21,731"'
    return HEADER + "".join(
        f"{number},{text},{person},{emotion},neutral,{dialogue},{turn},{times}\n"
        for number, (text, person, emotion, dialogue, turn) in enumerate(rows, start=1)
    )


@pytest.fixture
def meld(tmp_path) -> Path:
    """Two dialogues in each split, the second of one turn; clips that hold a WAV, for who has ffmpeg."""
    data = tmp_path / "MELD.Raw"
    for split, folder in FOLDERS.items():
        (data / split / folder).mkdir(parents=True)
        text = friends(FRIENDS)
        # As published: some tables hold Windows' apostrophe as UTF-8 holds a control character.
        table = (data / "train" if split == "train" else data) / f"{split}_sent_emo.csv"
        table.write_bytes(text.replace("\x92", "’").encode() if split == "test" else text.encode())
        for _, _, _, dialogue, turn in FRIENDS:
            clip = data / split / folder / f"dia{dialogue}_utt{turn}.mp4"
            tone(clip.with_suffix(".wav"), 200, 0.1)
            clip.with_suffix(".wav").rename(clip)
            clip.with_name(f"._{clip.name}").write_bytes(b"\x00\x05\x16\x07Mac OS X")
            clip.with_name(f"final_videos_test{clip.name}").write_bytes(b"another cut")
    return data


FFMPEG = f"""#!{sys.executable}
import shutil, sys
clip, sound = sys.argv[sys.argv.index("-i") + 1], sys.argv[-1]
with open({{log!r}}, "a") as log:
    print(*sys.argv[1:], file=log)
if open(clip, "rb").read(4) != b"RIFF":
    sys.exit("moov atom not found")
shutil.copy(clip, sound)
"""


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch) -> Path:
    """In its place on the PATH, what copies the sound of the miniature's clips; gives its log."""
    log = tmp_path / "ffmpeg.log"
    script = tmp_path / "bin" / "ffmpeg"
    script.parent.mkdir()
    script.write_text(FFMPEG.format(log=str(log)))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
    return log


@pytest.fixture
def no_ffmpeg(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")


def give_sound(data: Path, audio: Path) -> None:
    """What the loop of the README makes: a WAV of each clip, in a folder of the clips' name."""
    for folder in FOLDERS.values():
        (audio / folder).mkdir(parents=True)
        for clip in data.rglob(f"{folder}/dia*.mp4"):
            shutil.copy(clip, audio / folder / f"{clip.stem}.wav")


def test_meld_takes_the_sound_out_of_its_clips_once(meld, ffmpeg, tmp_path, capsys):
    clips = meld / "train" / "train_splits"
    (clips / "dia0_utt4.mp4").write_bytes(b"corrupt")
    (meld / "dev" / "dev_splits_complete" / "dia0_utt5.mp4").unlink()
    reports = prepared("MELD", meld, tmp_path / "out", f"--audio_folder={tmp_path / 'audio'}")
    out = capsys.readouterr().out
    assert "MELD: {'train': 2, 'valid': 3, 'test': 3} samples, 5 entries left out (samples lost: 1);" in out
    assert ids(reports["train"]) == ["train_dia0_utt1", "train_dia0_utt2"]
    assert ids(reports["valid"]) == ["valid_dia0_utt1", "valid_dia0_utt2", "valid_dia0_utt5"]
    assert reports["valid"].dialogues[2].response.audio is None, "the clip is missing, its words are there"
    third = reports["valid"].dialogues[2]
    assert [turn.text for turn in third.history][:2] == [
        "also I was the point person on my company’s transition",
        "You must’ve had your hands full.",
    ]
    assert [turn.text for turn in reports["test"].dialogues[2].history] == [turn.text for turn in third.history]
    assert [turn.emotion for turn in third.history] == ["neutral", "neutral", "neutral", "surprise"]
    assert [turn.speaker_id for turn in third.history][:2] == ["Chandler", "The Interviewer"]
    assert [turn.role for turn in third.history] == ["speaker", "listener", "speaker", "speaker"]
    assert rejects(tmp_path / "out") == [
        ("train_dia0, utt4", "dia0_utt4.mp4", "gives no sound (moov atom not found)", 1),
        ("train_dia1", "turns", "hold nobody who answers anybody", 0),
        ("valid_dia0, utt5", "dia0_utt5.wav", "does not exist", 0),
        ("valid_dia1", "turns", "hold nobody who answers anybody", 0),
        ("test_dia1", "turns", "hold nobody who answers anybody", 0),
    ]
    calls = ffmpeg.read_text().splitlines()
    assert len(calls) == 17
    assert all("-vn -ac 1 -ar 16000 -t 61 " in call for call in calls)
    (tmp_path / "out" / "prepared.json").unlink()
    prepared("MELD", meld, tmp_path / "out", f"--audio_folder={tmp_path / 'audio'}")
    assert len(ffmpeg.read_text().splitlines()) == 18, "the corrupt one alone is tried again"
    assert not list((tmp_path / "audio").rglob("*.part*"))


def test_meld_reads_wav_files_that_the_user_made(meld, no_ffmpeg, tmp_path):
    give_sound(meld, tmp_path / "audio")
    sounds = tmp_path / "audio" / "output_repeated_splits_test"
    soundfile.write(sounds / "dia0_utt2.wav", np.zeros(4000 * 61, np.int16), 4000)
    reports = prepared("MELD", meld, tmp_path / "out", f"--audio_folder={tmp_path / 'audio'}")
    assert ids(reports["test"]) == ["test_dia0_utt1", "test_dia0_utt2"]
    too_long = ("test_dia0, utt2", "dia0_utt2.wav", "lasts 61.0 s, over the limit of 60 s", 1)
    assert too_long in rejects(tmp_path / "out")


def test_meld_reads_wav_files_beside_the_clips(meld, no_ffmpeg, tmp_path):
    for clip in meld.rglob("dia*.mp4"):
        shutil.copy(clip, clip.with_suffix(".wav"))
    reports = prepared("MELD", meld, tmp_path / "out", f"--audio_folder={tmp_path / 'nowhere'}")
    assert [len(report.dialogues) for report in reports.values()] == [3, 3, 3]
    assert reports["train"].dialogues[0].history[0].audio.parent.name == "train_splits"


def test_meld_without_any_sound_is_told_how_to_get_it(meld, no_ffmpeg, tmp_path):
    with pytest.raises(SystemExit, match=r"nor any other, and there is no ffmpeg .*; see recipes/MELD/README.md"):
        prepared("MELD", meld, tmp_path / "out", f"--audio_folder={tmp_path / 'audio'}")
    assert not (tmp_path / "out").exists()


def test_meld_names_the_rows_that_it_cannot_read(meld, no_ffmpeg, tmp_path):
    give_sound(meld, tmp_path / "audio")
    table = meld / "train" / "train_sent_emo.csv"
    whole = table.read_text()
    row = '9,Twice,Joey,joy,positive,0,2,8,21,"00:16:16,059","00:16:21,731"\n'
    wrong = [row, row.replace(",0,2,", ",0,,"), "9,cut,off\n", row.replace("Twice", ",too,long")]
    table.write_text(whole + "".join(wrong) + row.replace(",Joey,joy,positive,0,2", ",,joy,positive,0,9"))
    reports = prepared("MELD", meld, tmp_path / "out", f"--audio_folder={tmp_path / 'audio'}")
    assert len(reports["train"].dialogues) == 3
    assert [entry[:3] for entry in rejects(tmp_path / "out")[:5]] == [
        ("train_sent_emo.csv, line 8", "Utterance_ID", "2 of dialogue 0 stands twice"),
        ("train_sent_emo.csv, line 9", "Dialogue_ID, Utterance_ID", "are '0' and ''"),
        ("train_sent_emo.csv, line 10", "row", "has not 11 fields"),
        ("train_sent_emo.csv, line 11", "row", "has not 11 fields"),
        ("train_sent_emo.csv, line 12", "Speaker", "is empty"),
    ]
