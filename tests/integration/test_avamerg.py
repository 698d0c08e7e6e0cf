"""The paper's recipe: the corpus as its owners publish it, and the paper's three public dialogues trained on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from published import save_whisper
from ruamel.yaml import YAML
from tones import lines_of, tone

from es4r_toolkit.backends.building import build_qwen3, train_tokenizer
from es4r_toolkit.data.manifest import read_manifest
from es4r_toolkit.inference import EmpathyResponder

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "AvaMERG"


def turn(history: list[tuple[str, str]], response: str | None, **more: object) -> dict:
    said = [{"index": place, "role": role, "utterance": text} for place, (role, text) in enumerate(history)]
    return {
        "turn_id": more.pop("turn_id", "0"),
        "context": "a context",
        "dialogue_history": said,
        **({} if response is None else {"response": response}),
        "chain_of_empathy": {"speaker_emotion": "sad", "event_scenario": "", "goal_to_response": ""},
        **more,
    }


def conversation(name: str, turns: list[dict], speaker: int = 28, listener: int = 3) -> dict:
    profile = {"age": "young", "gender": "male", "timbre": "high"}
    return {
        "conversation_id": name,
        "speaker_profile": {**profile, "ID": speaker},
        "listener_profile": {**profile, "ID": listener},
        "topic": "exams",
        "turns": turns,
    }


FIRST = [("speaker", "I failed."), ("listener", "What happened?"), ("speaker", "I slept too long.")]


@pytest.fixture
def corpus(tmp_path) -> Path:
    """A miniature of the published layout: 21 conversations to train on, two to test on."""
    data = tmp_path / "AvaMERG"
    sounds = {"train": data / "train_audio" / "audio_v5_0", "test": data / "test_audio"}
    training = [
        conversation(f"{number:05d}", [turn(FIRST[:1], "Oh no."), turn(FIRST, "That is hard.", turn_id="1")])
        for number in range(1, 22)
    ]
    testing = [conversation("01118", [turn(FIRST, "I see.")], 7, 8), conversation("01119", [turn(FIRST[:1], None)])]
    for folder, conversations in ((sounds["train"], training), (sounds["test"], testing)):
        folder.mkdir(parents=True)
        for one in conversations:
            speaker, listener = (one[f"{role}_profile"]["ID"] for role in ("speaker", "listener"))
            for place in range(4):
                # As published, and in the test split without the profile.
                owner = f"_{listener if place % 2 else speaker}" if folder == sounds["train"] else ""
                tone(folder / f"dia{one['conversation_id']}utt{place}{owner}.wav", 100 + 50 * place, 0.2)
    (data / "train.json").write_text(json.dumps(training))
    (data / "test.json").write_text(json.dumps(testing))
    return data


def prepare(data: Path, output: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(RECIPE / "prepare.py"), str(data), "--output", str(output)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_every_reply_becomes_a_sample_with_its_recordings(corpus, tmp_path):
    done = prepare(corpus, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "{'train': 40, 'valid': 2, 'test': 2} samples, 0 entries left out" in done.stdout
    reports = {split: read_manifest(tmp_path / "out" / f"{split}.jsonl") for split in ("train", "valid", "test")}
    assert [len(report.dialogues) for report in reports.values()] == [40, 2, 2]
    assert not any(report.rejected for report in reports.values())
    train, valid = ({one.id.split("_")[0] for one in reports[split].dialogues} for split in ("train", "valid"))
    assert len(valid) == 1
    assert not train & valid, "a conversation stands in one split"
    dialogue = reports["test"].dialogues[0]
    assert [one.audio.name for one in dialogue.history] == [f"dia01118utt{place}.wav" for place in range(3)]
    assert dialogue.response.audio.name == "dia01118utt3.wav"
    assert [one.text for one in dialogue.history] == [text for _, text in FIRST]
    assert dialogue.history[2].emotion == "sad"
    assert reports["train"].dialogues[0].history[0].audio.name.endswith("utt0_28.wav")
    assert len(read_manifest(tmp_path / "out" / "test.jsonl", need_response=True).dialogues) == 1


def test_what_cannot_be_used_is_named_and_the_rest_is_kept(corpus, tmp_path):
    published = json.loads((corpus / "train.json").read_text())
    published[0]["conversation_id"] = "x"
    published[1]["turns"] = []
    published[2]["turns"][0]["dialogue_history"][0]["index"] = "first"
    (corpus / "train.json").write_text(json.dumps(published))
    next((corpus / "train_audio").rglob("dia00009utt0_28.wav")).unlink()
    done = prepare(corpus, tmp_path / "out")
    assert "3 entries left out" in done.stdout
    rejects = lines_of(tmp_path / "out" / "rejects.jsonl")
    assert [(one["place"], one["field"]) for one in rejects] == [
        ("train.json, entry 1", "conversation_id"),
        ("train.json, entry 2", "turns"),
        ("train.json, entry 3", "turns[0].dialogue_history[0].index"),
    ]
    reports = [read_manifest(tmp_path / "out" / f"{split}.jsonl") for split in ("train", "valid")]
    assert sum(len(report.dialogues) for report in reports) == 2 * 18 - 2
    problems = [rejection.problem for report in reports for rejection in report.rejected]
    assert len(problems) == 2
    assert all("dia00009utt0_28.wav" in problem for problem in problems)


def test_a_profile_that_is_no_object_costs_its_own_conversation(corpus, tmp_path):
    published = json.loads((corpus / "train.json").read_text())
    published[0]["speaker_profile"] = "young"
    published[1]["turns"][0]["chain_of_empathy"] = "sad"
    (corpus / "train.json").write_text(json.dumps(published))
    assert "2 entries left out" in prepare(corpus, tmp_path / "out").stdout
    fields = [one["field"] for one in lines_of(tmp_path / "out" / "rejects.jsonl")]
    assert fields == ["speaker_profile", "turns[0].chain_of_empathy"]


def test_recordings_of_one_name_are_taken_from_their_split_or_named(corpus, tmp_path):
    (sound,) = corpus.rglob("dia01118utt0.wav")
    shutil.copy(sound, corpus / "train_audio" / "dia01118utt0.wav")
    assert "0 entries left out" in prepare(corpus, tmp_path / "out").stdout
    first = read_manifest(tmp_path / "out" / "test.jsonl").dialogues[0].history[0]
    assert first.audio.parent.name == "test_audio"
    (corpus / "test_audio" / "again").mkdir()
    shutil.copy(sound, corpus / "test_audio" / "again")
    assert "1 entries left out" in prepare(corpus, tmp_path / "again").stdout
    (reject,) = lines_of(tmp_path / "again" / "rejects.jsonl")
    assert reject["field"] == "dia01118utt0.wav"
    assert "again" in reject["problem"]


def test_a_malformed_sample_costs_itself_alone(tmp_path):
    good = [
        {"conversation_id": name, "dialogue_history": [{"role": "speaker", "utterance": "No.", "audio_path": "a.wav"}]}
        for name in ("a", "b", "c")
    ]
    bad = [
        {"dialogue_history": []},
        {"conversation_id": "d"},
        {"conversation_id": "d", "dialogue_history": ["I failed."]},
        {"conversation_id": "d", "dialogue_history": [], "response": "I see."},
        {"conversation_id": "d", "dialogue_history": [{"audio_path": 7}]},
        {"conversation_id": "d", "dialogue_history": [{"utterance": "\ud800"}]},
        [],
    ]
    lines = [*map(json.dumps, good), "{", *map(json.dumps, bad)]
    (tmp_path / "dialogues.jsonl").write_text("\n".join(lines))
    done = prepare(tmp_path, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "{'train': 1, 'valid': 1, 'test': 1} samples, 8 entries left out" in done.stdout
    rejects = [(one["place"], one["field"]) for one in lines_of(tmp_path / "out" / "rejects.jsonl")]
    assert rejects == [
        ("dialogues.jsonl, line 4", "record"),
        ("dialogues.jsonl, line 5", "conversation_id"),
        ("dialogues.jsonl, line 6", "dialogue_history"),
        ("dialogues.jsonl, line 7", "dialogue_history[0]"),
        ("dialogues.jsonl, line 8", "response"),
        ("dialogues.jsonl, line 9", "dialogue_history[0].audio_path"),
        ("dialogues.jsonl, line 10", "dialogue_history[0].utterance"),
        ("dialogues.jsonl, line 11", "sample"),
    ]


def test_an_empty_folder_is_told_what_it_lacks(tmp_path):
    done = prepare(tmp_path, tmp_path / "out")
    assert done.returncode == 1
    assert "holds no train.json and test.json; see recipes/AvaMERG/README.md" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """In place of the real names: a Whisper with 80 mels and its full window, and a Qwen3 of two layers."""
    folder = tmp_path_factory.mktemp("checkpoints")
    save_whisper(folder / "whisper", n_mels=80, seconds=30)
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["It is hard to keep up with everything.", "I am here for you."] * 40, vocab_size=330)
    build_qwen3(folder / "qwen3", tokenizer, hidden_size=32, layers=2, heads=4, intermediate_size=64)
    return {"encoder_source": folder / "whisper", "llm_source": folder / "qwen3"}


@pytest.mark.parametrize("size", ["qwen3", "llama"])
def test_the_papers_recipe_trains_on_the_public_dialogues_and_answers(size, demo_folder, checkpoints, tmp_path):
    output = tmp_path / "run"
    given = {"data_folder": demo_folder, "output_folder": output, **checkpoints, "max_new_tokens": 12, "epochs": 1}
    arguments = [f"--{key}={value}" for key, value in given.items()]
    script, hparams = RECIPE / "train.py", RECIPE / "hparams" / f"train_{size}.yaml"
    command = [sys.executable, str(script), str(hparams), *arguments, "--device=cpu", "--noprogressbar"]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=alone, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(lines_of(output / "predictions.jsonl")) == 1
    responder = EmpathyResponder.from_hparams(output / "model")
    (dialogue, *_) = read_manifest(output / "manifests" / "test.jsonl").dialogues
    assert responder.pipeline.understanding.encoder.full_window, "the paper's preset"
    assert soundfile.info(dialogue.history[0].audio).samplerate == 24000
    assert responder.pipeline.generate(responder.batch(dialogue))


def test_the_two_train_files_differ_in_the_language_model_alone():
    train = {size: (RECIPE / "hparams" / f"train_{size}.yaml").read_text() for size in ("qwen3", "llama")}
    lines = {size: {line for line in text.splitlines() if not line.startswith("#")} for size, text in train.items()}
    assert lines["llama"] - lines["qwen3"] == {"output_folder: results/AvaMERG/llama", "    llm: llama_3_1_8b"}
    assert lines["qwen3"] - lines["llama"] == {"output_folder: results/AvaMERG/qwen3"}


def test_every_known_value_of_the_paper_is_in_the_recipe():
    train = YAML(typ="rt").load(RECIPE / "hparams" / "train_qwen3.yaml")
    assert (train["lr"], train["epochs"], train["batch_size"], train["seed"]) == (5e-5, 2, 8, 42)
    assert (train["optimizer"]["weight_decay"], train["max_grad_norm"]) == (0.05, 1.0)
    assert train["losses"]["temperature"] == 2.0
    lora = YAML(typ="rt").load(ROOT / "recipes" / "_shared" / "llm" / "qwen3_8b.yaml")["lora"]
    assert (lora["rank"], lora["alpha"], lora["dropout"]) == (16, 16, 0.1)
