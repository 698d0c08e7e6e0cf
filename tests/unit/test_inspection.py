"""What validate says of dialogues that stay, and the cleaned manifest that it writes."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from es4r_toolkit.cli import app
from es4r_toolkit.data.inspection import InspectionLimits, inspect, measure
from es4r_toolkit.data.manifest import read_manifest
from es4r_toolkit.data.recordings import FEWEST, Recordings
from es4r_toolkit.errors import AudioError


def write_wav(path: Path, samples: np.ndarray, sample_rate: int = 16000) -> None:
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, samples, sample_rate, subtype="PCM_16")


def tone(seconds: float, amplitude: float = 0.5, sample_rate: int = 16000) -> np.ndarray:
    return amplitude * np.sin(2 * math.pi * 200 * np.arange(round(seconds * sample_rate)) / sample_rate)


@pytest.fixture
def folder(tmp_path):
    write_wav(tmp_path / "wav" / "good.wav", tone(1.0))
    write_wav(tmp_path / "wav" / "reply.wav", tone(2.0))
    return tmp_path


def dialogue(name: str, recording: str = "wav/good.wav", **more: object) -> dict:
    turn = {"role": "speaker", "utterance": "I failed my exam.", "audio_path": recording}
    reply = {"role": "listener", "utterance": "I am with you.", "audio_path": "wav/reply.wav"}
    return {"conversation_id": name, "dialogue_history": [turn], "response": reply, **more}


def write(path: Path, *entries: object) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


def remarks_on(
    folder: Path, samples: np.ndarray, sample_rate: int = 16000, decode: bool = True, **limits: float
) -> list:
    write_wav(folder / "wav" / "odd.wav", samples, sample_rate)
    report = read_manifest(write(folder / "one.jsonl", dialogue("7", "wav/odd.wav")), decode=decode)
    return inspect({"one": report}, InspectionLimits(**limits))


@pytest.mark.parametrize(
    ("samples", "sample_rate", "kind", "seen"),
    [
        (tone(0.05), 16000, "a turn is very short", "lasts 0.050 s"),
        (tone(31.0), 16000, "a turn is very long", "lasts 31.0 s"),
        (tone(1.0, sample_rate=8000), 8000, "a recording's sample rate is low", "is recorded at 8000 Hz"),
        (
            np.clip(tone(1.0, amplitude=2.0), -1, 1),
            16000,
            "a recording clips",
            "full scale in 67.5 %",
        ),  # 54 of the 80 samples of a period
        (tone(1.0, amplitude=0.0005), 16000, "a recording is silent", "level of -69.0 dB"),
        (np.zeros(16000), 16000, "a recording is silent", "is digital silence"),
    ],
    ids=["short", "long", "rate", "clipped", "quiet", "zeros"],
)
def test_an_odd_recording_is_named_with_what_was_seen(folder, samples, sample_rate, kind, seen):
    (remark,) = remarks_on(folder, samples, sample_rate)
    assert (remark.item, remark.kind) == ("7", kind)
    assert "dialogue_history[0] (odd.wav)" in remark.seen
    assert seen in remark.seen


def test_an_ordinary_recording_gives_no_remark(folder):
    assert remarks_on(folder, tone(1.0)) == []


def test_levels_are_known_only_where_recordings_are_decoded(folder):
    assert remarks_on(folder, np.zeros(16000), decode=False) == []


def test_a_history_longer_than_the_window_is_named_and_the_reply_does_not_count(folder):
    assert remarks_on(folder, tone(3.0), window=3.0) == []
    (remark,) = remarks_on(folder, tone(3.0), window=2.9)
    assert remark.seen == "its history lasts 3.0 s, more than 2.9"


def test_a_recording_in_two_histories_is_remarked_once(folder):
    write_wav(folder / "wav" / "odd.wav", np.zeros(16000))
    report = read_manifest(
        write(folder / "one.jsonl", dialogue("7", "wav/odd.wav"), dialogue("8", "wav/odd.wav")), decode=True
    )
    assert [remark.item for remark in inspect({"one": report})] == ["7"]


def test_what_stands_in_two_splits_is_named(folder):
    def of(split: str, name: str, speaker: str, recording: str) -> dict:
        entry = dialogue(name, recording, split=split)
        entry["dialogue_history"][0]["speaker_id"] = speaker
        del entry["response"]["audio_path"]
        return entry

    for name in ("a", "b", "c", "d"):
        write_wav(folder / "wav" / f"{name}.wav", tone(1.0))
    one_file = [
        of("train", "1", "anna", "wav/a.wav"),
        of("test", "2", "anna", "wav/b.wav"),
        of("test", "3", "ben", "wav/a.wav"),
        of("test", "4", "carl", "wav/c.wav"),
        of("test", "5", "carl", "wav/d.wav"),
    ]
    found = {
        remark.kind: remark.seen for remark in inspect({"all": read_manifest(write(folder / "all.jsonl", *one_file))})
    }
    assert found == {
        "a speaker is in several splits": "anna is in test, train",
        "a recording is in several splits": f"{folder / 'wav/a.wav'} is in test, train",
    }


def test_several_manifests_are_splits_by_their_names(folder):
    first, second = dialogue("1"), dialogue("1", "wav/reply.wav")
    del first["response"]["audio_path"]
    del second["response"]["audio_path"]
    reports = {
        name: read_manifest(write(folder / f"{name}.jsonl", one)) for name, one in (("train", first), ("test", second))
    }
    assert [remark.seen for remark in inspect(reports)] == ["1 is in test, train"]
    assert measure(reports).splits == {"train": 1, "test": 1}


def test_the_figures_count_a_turn_of_several_histories_once(folder):
    longer = dialogue("7", turn_id=2)
    longer["dialogue_history"] += [
        longer["response"],
        {"role": "speaker", "utterance": "Thanks", "audio_path": "wav/good.wav", "start": 0.5, "emotion": "calm"},
    ]
    longer["response"] = None
    report = read_manifest(write(folder / "one.jsonl", dialogue("7", turn_id=1), longer), decode=True)
    corpus = measure({"one": report})
    assert corpus.turns == [2, 3]
    assert corpus.dialogue_seconds == [1.0, 3.5]
    assert corpus.words == [4, 4, 1]
    assert corpus.seconds == [1.0, 2.0, 0.5]
    assert corpus.levels == pytest.approx([-9.03] * 3, abs=0.01)  # a sine of amplitude 1/2
    assert corpus.emotions == {"calm": 1}


def test_processes_find_what_one_alone_finds(folder):
    many = [(folder / "wav" / "good.wav", start / 1000, None) for start in range(FEWEST)]
    many[7] = (folder / "wav" / "none.wav", 0.0, None)
    alone, together = Recordings(decode=True), Recordings(decode=True)
    alone.examine(many, workers=1)
    together.examine(many, workers=2)
    assert [vars(alone[part]) for part in many] == [vars(together[part]) for part in many]
    assert isinstance(together[many[7]], AudioError)


def run(*arguments: object) -> object:
    return CliRunner().invoke(app, ["validate", *map(str, arguments)])


def test_the_cleaned_manifest_holds_the_good_ones_with_every_field(folder):
    good = dialogue("1", note="kept", split="train")
    path = write(folder / "all.jsonl", good, dialogue("2", "wav/none.wav"), "no object")
    output = folder / "elsewhere" / "checked"
    result = run(path, "--output", output)
    assert result.exit_code == 1
    clean = read_manifest(output / "all.clean.jsonl", decode=True)
    assert [one.id for one in clean.dialogues] == ["1"]
    assert clean.rejected == []
    assert os.path.samefile(clean.dialogues[0].history[0].audio, folder / "wav/good.wav")
    (written,) = (json.loads(line) for line in (output / "all.clean.jsonl").read_text().splitlines())
    assert written["note"] == "kept"
    rejects = [json.loads(line) for line in (output / "all.rejects.jsonl").read_text().splitlines()]
    assert [(one["item"], one["line"], one["record"]) for one in rejects] == [
        ("2", 2, dialogue("2", "wav/none.wav")),
        ("line 3", 3, "no object"),
    ]
    assert rejects[0]["problem"] == "'wav/none.wav' does not exist"
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "does not exist" in page
    assert "2: dialogue_history[0].audio_path &#39;wav/none.wav&#39; does not exist" in page


def test_checking_the_cleaned_manifest_again_finds_nothing_and_leaves_no_rejects(folder):
    run(write(folder / "all.jsonl", dialogue("1"), dialogue("2", "wav/none.wav")), "--output", folder / "checked")
    result = run(folder / "checked" / "all.clean.jsonl", "--output", folder / "again")
    assert result.exit_code == 0
    assert "1 good, 0 rejected" in result.stdout
    assert not (folder / "again" / "all.clean.rejects.jsonl").exists()


def test_a_dialogue_keeps_its_id_where_no_other_of_its_conversation_is_left(folder):
    entries = [
        dialogue("Gespräch-5", turn_id="1"),
        dialogue("Gespräch-5", "wav/none.wav", turn_id="3"),
        *(dialogue("6", turn_id=turn) for turn in ("1", "3")),
        dialogue("7", turn_id="1"),
    ]
    before = run(write(folder / "all.jsonl", *entries), "--json", "--output", folder / "checked")
    after = run(folder / "checked" / "all.clean.jsonl", "--json")
    ids = ["Gespräch-5_1", "6_1", "6_3", "7"]
    assert [json.loads(result.stdout)["good"] for result in (before, after)] == [ids, ids]


def test_letters_are_written_as_they_are_and_half_ones_escaped(folder):
    run(write(folder / "all.jsonl", dialogue("Käthe"), dialogue("Müßig \ud83d")), "--output", folder)
    assert '"Käthe"' in (folder / "all.clean.jsonl").read_text(encoding="utf-8")
    (reject,) = (folder / "all.rejects.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(reject)["record"]["conversation_id"] == "Müßig \ud83d"


def test_two_manifests_of_one_name_are_refused(folder):
    (folder / "other").mkdir()
    result = run(write(folder / "a.jsonl", dialogue("1")), write(folder / "other" / "a.jsonl", dialogue("2")))
    assert result.exit_code == 1
    assert "has the name of" in result.stderr


def test_remarks_are_printed_and_do_not_fail(folder):
    write_wav(folder / "wav" / "odd.wav", np.zeros(16000))
    path = write(folder / "one.jsonl", dialogue("7", "wav/odd.wav"))
    result = run(path, "--decode")
    assert result.exit_code == 0
    assert "1  a recording is silent" in result.stdout
    assert json.loads(run(path, "--decode", "--json").stdout)["remarks"][0]["item"] == "7"
