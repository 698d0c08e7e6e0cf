"""EmpatheticDialogues: a miniature of the tables as their owners publish them, spoken, and trained on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import soundfile
from preparers import RECIPES, ids, prepared, rejects, step
from tones import lines_of

from es4r_toolkit.backends.espeak import EspeakSynthesizer
from es4r_toolkit.data.preparing import SPLITS
from es4r_toolkit.errors import BackendError
from es4r_toolkit.inference import EmpathyResponder
from es4r_toolkit.training import run_recipe

COLUMNS = "conv_id,utterance_idx,context,prompt,speaker_idx,utterance,selfeval,tags"
# A comma that is none, a quotation mark that never closes, candidates behind the last column, a comma that shifts what
# follows it, and a turn that no voice can say.
TOLD = """\
hit:0_conv:1,1,sentimental,I remember people_comma_ and us.,1,A best friend_comma_ I miss her.,5|5|5_2|2|5,
hit:0_conv:1,2,sentimental,I remember people_comma_ and us.,0,"Where has she gone?,5|5|5_2|2|5,
hit:0_conv:1,3,sentimental,I remember people_comma_ and us.,1,We no longer talk.,5|5|5_2|2|5,
hit:0_conv:1,4,sentimental,I remember people_comma_ and us.,0,I am sorry.,5|5|5_2|2|5,,one|another_comma_ one
hit:1_conv:2,1,afraid,A noise, at night,7,I heard a noise.,5|5|5_2|2|5,
hit:1_conv:2,2,afraid,A noise at night,8,What was it?,5|5|5_2|2|5,
hit:2_conv:3,1,proud,I won,9,I won the race.,5|5|5_2|2|5,
hit:2_conv:3,2,proud,I won,10,Well done!,5|5|5_2|2|5,
hit:2_conv:3,3,proud,I won,9,\N{ZERO WIDTH SPACE},5|5|5_2|2|5,
hit:2_conv:3,4,proud,I won,10,Go on.,5|5|5_2|2|5,
"""
BROKEN = """\
hit:3_conv:4,1,proud,I won
hit:3_conv:4,2,proud,I won,10,Well done!,5|5|5_2|2|5,
hit:4_conv:5,1,proud,I won,9,,5|5|5_2|2|5,
hit:4_conv:5,2,proud,I won,10,Well done!,5|5|5_2|2|5,
hit:4_conv:5,2,proud,I won,10,Twice.,5|5|5_2|2|5,
no number,x,proud,I won,10,Well done!,5|5|5_2|2|5,
"""


@pytest.fixture
def corpus(tmp_path) -> Path:
    pytest.importorskip("espeakng_loader")
    data = tmp_path / "empatheticdialogues"
    data.mkdir()
    for split in SPLITS:
        (data / f"{split}.csv").write_text(f"{COLUMNS}\n{TOLD}", encoding="utf-8")
    return data


@pytest.fixture
def spoken(monkeypatch) -> list[str]:
    """The texts that are spoken, as they are."""
    texts = []
    speak = EspeakSynthesizer.synthesize

    def note(self: EspeakSynthesizer, text: str, *arguments: object):
        texts.append(text)
        return speak(self, text, *arguments)

    monkeypatch.setattr(EspeakSynthesizer, "synthesize", note)
    return texts


def test_each_role_has_its_voice_and_each_text_is_spoken_once(corpus, spoken, tmp_path, capsys):
    speech = f"--speech_folder={tmp_path / 'speech'}"
    reports = prepared("EmpatheticDialogues", corpus, tmp_path / "out", speech)
    out = capsys.readouterr().out
    assert "EmpatheticDialogues: {'train': 3, 'valid': 3, 'test': 3} samples, 6 entries left out (samples" in out
    assert ids(reports["train"]) == ["hit:0_conv:1_2", "hit:0_conv:1_4", "hit:2_conv:3"]
    second = reports["train"].dialogues[1]
    said = ["A best friend, I miss her.", '"Where has she gone?', "We no longer talk."]
    assert [turn.text for turn in second.history] == said
    assert second.response.text == "I am sorry."
    assert [turn.role for turn in second.history] == ["speaker", "listener", "speaker"]
    assert [turn.emotion for turn in second.history] == ["sentimental", None, "sentimental"]
    assert [turn.speaker_id for turn in second.history] == ["1", "0", "1"]
    headers = [soundfile.info(turn.audio) for turn in second.history]
    assert {header.samplerate for header in headers} == {16000}
    assert all(0.5 < header.duration < 4 for header in headers)
    # What is the same in all three splits is spoken once; replies that stand in no history are not spoken.
    wanted = [*said, "I won the race.", "Well done!", "\N{ZERO WIDTH SPACE}"]
    assert sorted(text for text in spoken if text != "I am here.") == sorted(wanted)


def test_turns_that_cannot_be_spoken_or_read_are_named(corpus, tmp_path):
    with (corpus / "test.csv").open("a") as table:
        table.write(BROKEN)
    output = tmp_path / "out"
    prepared("EmpatheticDialogues", corpus, output, f"--speech_folder={tmp_path / 'speech'}")
    problem = "has 9 fields, and no speaker's number in the fifth"
    shifted = [("hit:1_conv:2, 1", f"{split}.csv, line 6", problem, 0) for split in SPLITS]
    unspoken = ("hit:2_conv:3, 3", "utterance", "cannot be spoken: REASON", 1)
    found = [(*entry[:2], re.sub("spoken: .*", "spoken: REASON", entry[2]), entry[3]) for entry in rejects(output)]
    assert found == [
        *shifted[:2],
        ("test.csv, line 16", "utterance_idx", "2 of hit:4_conv:5 stands twice", 0),
        ("test.csv, line 17", "utterance_idx", "is no number", 0),
        shifted[2],
        ("hit:3_conv:4, 1", "test.csv, line 12", "is cut off", 0),
        unspoken,
        unspoken,
        unspoken,
        ("hit:4_conv:5, 1", "test.csv, line 14", "has no utterance", 1),
    ]


def test_an_interrupted_run_goes_on_where_it_was(corpus, spoken, tmp_path, monkeypatch):
    speech = f"--speech_folder={tmp_path / 'speech'}"
    speak = EspeakSynthesizer.synthesize

    def interrupt(self: EspeakSynthesizer, text: str, *arguments: object):
        if text == "Well done!":
            raise KeyboardInterrupt
        return speak(self, text, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(EspeakSynthesizer, "synthesize", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepared("EmpatheticDialogues", corpus, tmp_path / "out", speech, "--workers=1")
    assert not (tmp_path / "out").exists()
    before = set((tmp_path / "speech").rglob("*.wav"))
    assert before
    assert not list((tmp_path / "speech").rglob("*.part"))
    spoken.clear()
    prepared("EmpatheticDialogues", corpus, tmp_path / "out", speech)
    after = set((tmp_path / "speech").rglob("*.wav"))
    assert before < after
    assert len(after) == 5
    assert len([text for text in spoken if text not in ("I am here.", "\N{ZERO WIDTH SPACE}")]) == 5 - len(before)


def test_another_voice_is_other_speech_and_an_unknown_one_stops_the_work(corpus, tmp_path, capsys):
    prepare = step("EmpatheticDialogues")
    settings = {
        "data_folder": str(corpus),
        "speech_folder": str(tmp_path / "speech"),
        "synthesizer": "espeak",
        "conversations": 1,
        "workers": 1,
        "samples": "last",
        "max_turns": 1,
    }
    for name, rate in (("slow", 120), ("fast", 240)):
        voices = {"speaker": [{"rate": rate}], "listener": [{"rate": rate}]}
        prepare(manifests=str(tmp_path / name), voices=voices, **settings)
    seconds = {}
    for name in ("slow", "fast"):
        (sample,) = lines_of(tmp_path / name / "train.jsonl")
        (turn,) = sample["dialogue_history"]
        assert turn["utterance"] == "We no longer talk."
        seconds[name] = soundfile.info(turn["audio_path"]).duration
    assert seconds["slow"] > 1.5 * seconds["fast"]
    voices = {"speaker": [{"voice": "en-us+nobody"}], "listener": [{}]}
    with pytest.raises(BackendError, match="has no variant 'nobody'"):
        prepare(manifests=str(tmp_path / "unknown"), voices=voices, **settings)
    assert not (tmp_path / "unknown").exists()


def test_the_papers_system_trains_on_it_and_answers(corpus, whole_whisper_folder, qwen3_folder, tmp_path):
    output = tmp_path / "run"
    given = {
        "data_folder": corpus,
        "output_folder": output,
        "speech_folder": tmp_path / "speech",
        "encoder_source": whole_whisper_folder,
        "llm_source": qwen3_folder,
        "llm_dtype": "float32",
        "max_new_tokens": 4,
        "epochs": 1,
        "batch_size": 1,
        "num_workers": 0,
        "emotion_weight": 0.1,
    }
    hparams = RECIPES / "EmpatheticDialogues" / "hparams" / "train.yaml"
    arguments = [str(hparams), *(f"--{key}={value}" for key, value in given.items())]
    scores = run_recipe([*arguments, "--device=cpu", "--noprogressbar"], steps=[step("EmpatheticDialogues")])
    assert scores["loss"] > 0
    assert [one["reference"] for one in lines_of(output / "predictions.jsonl")][1] == "I am sorry."
    responder = EmpathyResponder.from_hparams(output / "model")
    assert responder.pipeline.generation.llm.hidden_dim == 32
