"""Dialogues without transcripts are heard, and the answer says who wrote them down."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from tones import SAID, lines_of

from es4r_toolkit.backends.whisper import WhisperSpeechEncoder
from es4r_toolkit.backends.whisper_asr import WhisperRecognizer
from es4r_toolkit.data.manifest import read_manifest
from es4r_toolkit.data.transcripts import TRANSCRIPTS, with_transcripts, write_down
from es4r_toolkit.errors import ConfigError, DialogueError
from es4r_toolkit.inference import EmpathyResponder
from es4r_toolkit.pipeline import EmpathyPipeline
from es4r_toolkit.stages.generation import Written
from es4r_toolkit.training import run_recipe


@pytest.fixture
def unwritten(tones, tmp_path):
    """The corpus of tones without the words of its histories."""
    for split in ("train", "valid", "test"):
        lines = lines_of(tones / f"{split}.jsonl")
        for line in lines:
            for turn in line["dialogue_history"]:
                del turn["utterance"]
                turn["audio_path"] = str(tones / turn["audio_path"])
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shutil.copy(tones / "slots.json", tmp_path)
    return tmp_path


class Echo:
    """Hears how long a recording is; stands in for a recognizer where what it writes must be known."""

    name, identity, sample_rate = "echo", "echo", 16000

    def __init__(self) -> None:
        self.heard = []

    def transcribe(self, waveform: torch.Tensor) -> str:
        self.heard.append(len(waveform))
        return f"{len(waveform)} samples"


def test_a_turn_without_a_text_is_taken_only_where_asked(unwritten):
    path = unwritten / "test.jsonl"
    assert not read_manifest(path).dialogues
    (first, *_) = read_manifest(path, need_text=False).dialogues
    assert not first.is_written
    path.write_text(path.read_text().replace('"role": "speaker", ', '"role": "speaker", "utterance": " ", '))
    report = read_manifest(path, need_text=False)
    assert {rejection.problem for rejection in report.rejected} == {"is empty"}


def test_only_what_nobody_wrote_is_heard_and_the_words_reach_the_model(make_pipeline, make_batch):
    batch = make_batch([[3000, 2000, 4000], [5000]])
    pipeline = make_pipeline()
    pipeline.recognizer = Echo()
    turns = batch.dialogues[0].history
    silenced = replace(batch.dialogues[0], history=(turns[0], replace(turns[1], text=""), turns[2]))
    heard = pipeline.transcribed(replace(batch, dialogues=[silenced, batch.dialogues[1]]))
    assert pipeline.recognizer.heard == [2000]
    assert [turn.recognizer for turn in heard.dialogues[0].history] == [None, "echo", None]
    written = replace(batch.dialogues[0], history=(turns[0], replace(turns[1], text="2000 samples"), turns[2]))
    expected = pipeline.context(replace(batch, dialogues=[written, batch.dialogues[1]]))
    torch.testing.assert_close(pipeline.context(heard).embeds, expected.embeds)
    assert pipeline.transcribed(heard) is heard, "what is written is not heard again"


def test_without_a_recognizer_the_dialogue_is_named(make_pipeline, make_batch):
    batch = make_batch([[3000], [2000]])
    silent = replace(batch.dialogues[1], history=(replace(batch.dialogues[1].history[0], text=""),))
    with pytest.raises(DialogueError, match="1: has a turn without a transcript"):
        make_pipeline().generate(replace(batch, dialogues=[batch.dialogues[0], silent]))


def test_a_recognizer_of_the_same_checkpoint_hears_the_log_mels_of_the_encoder(
    make_pipeline, make_batch, whisper_folder, whole_whisper_folder, monkeypatch
):
    small = make_pipeline(dtype=torch.float32)
    small.understanding.encoder = WhisperSpeechEncoder(whole_whisper_folder)
    pipeline = EmpathyPipeline(
        small.understanding, small.generation, recognizer=WhisperRecognizer(whole_whisper_folder, language="en")
    ).eval()
    calls = []
    features = pipeline.understanding.encoder.features
    monkeypatch.setattr(
        pipeline.understanding.encoder, "features", lambda *given: calls.append(len(given[0])) or features(*given)
    )
    batch = make_batch([[30000, 20000]])
    batch = replace(batch, waveforms=batch.waveforms.float())
    turns = tuple(replace(turn, text="") for turn in batch.dialogues[0].history)
    batch = pipeline.transcribed(replace(batch, dialogues=[replace(batch.dialogues[0], history=turns)]))
    assert {turn.recognizer for turn in batch.dialogues[0].history} == {"whisper"}
    context = pipeline.context(batch)
    assert calls == [2], "once for both turns, and not again for the context"
    torch.testing.assert_close(context.embeds, pipeline.context(replace(batch, features=None)).embeds)


def test_a_recognizer_of_another_sample_rate_is_refused(make_pipeline):
    pipeline, recognizer = make_pipeline(), Echo()
    recognizer.sample_rate = 8000
    with pytest.raises(ConfigError, match=r"recognizer\.sample_rate"):
        EmpathyPipeline(pipeline.understanding, pipeline.generation, recognizer=recognizer)


def test_recordings_are_written_down_once_even_if_broken_off(unwritten, tmp_path):
    dialogues, path = read_manifest(unwritten / "train.jsonl", need_text=False).dialogues, tmp_path / "kept.jsonl"
    first = Echo()
    write_down(dialogues, first, path)
    assert len(first.heard) == len({turn.audio for one in dialogues for turn in one.history})
    whole = with_transcripts(dialogues, first, path)
    assert all(one.is_written for one in whole)
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    again = Echo()
    write_down(dialogues, again, path)
    assert 0 < len(again.heard) < len(first.heard)
    assert with_transcripts(dialogues, again, path) == whole


def test_what_another_recognizer_wrote_is_not_taken(unwritten, tmp_path):
    dialogues, path = read_manifest(unwritten / "test.jsonl", need_text=False).dialogues, tmp_path / "kept.jsonl"
    first, other = Echo(), Echo()
    other.identity = "echo of another checkpoint"
    write_down(dialogues, first, path)
    write_down(dialogues, other, path)
    assert first.heard == other.heard


def test_a_corpus_without_transcripts_trains_and_answers(
    unwritten, command, tmp_path, whole_whisper_folder, monkeypatch
):
    output = tmp_path / "run"
    words = {"recognizer": "whisper", "recognizer_source": whole_whisper_folder, "recognizer_language": "en"}
    run_recipe(command(output, data_folder=unwritten, **words))
    lines = lines_of(output / TRANSCRIPTS)
    assert len(lines) == len({line["audio"] for line in lines}) > 3
    responder = EmpathyResponder.from_hparams(output / "model")
    # So little training may end in a reply without words, which no voice speaks.
    monkeypatch.setattr(responder.pipeline.generation, "write", lambda *_, **__: [Written("I hear you.", False)])
    (dialogue, *_) = read_manifest(unwritten / "test.jsonl", need_text=False).dialogues
    answer = responder.respond(dialogue).as_dict()
    texts = {line["audio"]: line["text"] for line in lines}
    assert answer["transcripts"] == [
        {"role": turn.role, "text": texts[str(turn.audio)], "source": "whisper"} for turn in dialogue.history
    ]
    assert answer["timings"]["recognition"] > 0
    told = replace(dialogue, history=tuple(replace(turn, text=SAID[0]) for turn in dialogue.history))
    assert responder.respond(told).as_dict()["transcripts"][0] == {
        "role": "speaker",
        "text": SAID[0],
        "source": "transcript",
    }
