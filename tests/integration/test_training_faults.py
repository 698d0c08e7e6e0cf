"""What is wrong with a training is said in one line, and what can be left out is left out by name."""

from __future__ import annotations

import json
import math

import pytest
from tones import lines_of, tone

from es4r_toolkit.training import run_recipe


def failure(arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        run_recipe(arguments)
    message = str(caught.value)
    assert message.startswith("error: ")
    assert "\n" not in message
    return message


def test_an_unknown_key_is_named(tmp_path, command):
    assert "did you mean epochs" in failure(command(tmp_path, epoch=3))


def test_a_missing_corpus_is_named(tmp_path, command):
    assert "train.jsonl" in failure(command(tmp_path, data_folder=tmp_path / "nowhere"))


def test_missing_backbones_are_named(tmp_path, command):
    assert "no such folder" in failure(command(tmp_path, backbones=tmp_path / "nowhere"))


def test_a_corpus_without_a_usable_dialogue_is_refused(tmp_path, command, tones):
    (tmp_path / "bad.jsonl").write_text('{"conversation_id": "1", "dialogue_history": []}\n')
    assert "holds no usable dialogue" in failure(command(tmp_path / "out", train_manifest=tmp_path / "bad.jsonl"))


def test_a_dialogue_that_cannot_be_used_is_left_out_by_name(tmp_path, command, tones, caplog):
    entries = (tones / "train.jsonl").read_text().splitlines()
    broken = json.loads(entries[0])
    broken["dialogue_history"][0]["audio_path"] = "gone.wav"
    # The manifest stays beside its recordings.
    manifest = tones / "with_a_fault.jsonl"
    manifest.write_text("\n".join([json.dumps(broken), *entries[1:]]) + "\n")
    run_recipe(command(tmp_path, train_manifest=manifest, epochs=1))
    log = (tmp_path / "log.txt").read_text()
    assert "gone.wav" in log
    assert "1 dialogues left out, 5 kept" in log


def test_checkpoints_of_another_system_are_refused(tmp_path, command):
    run_recipe(command(tmp_path, epochs=1))
    assert "weights differ by name" in failure(command(tmp_path, preset="paper", epochs=2))


def test_a_system_with_nothing_to_learn_is_refused(tmp_path, command):
    """Text alone with LoRA at speech positions: there are none, so no weight would have a gradient."""
    assert "lora_scope" in failure(command(tmp_path, context="[text]", epochs=1))


def test_a_baseline_that_only_reads_trains_its_lora_over_the_context(tmp_path, command):
    scores = run_recipe(command(tmp_path, context="[text]", lora_scope="context", epochs=1))
    assert math.isfinite(scores["loss"])


def test_the_dialogue_whose_newest_turn_is_beyond_the_window_is_named(tmp_path, command, tones):
    """The encoder hears 200 frames at an eighth of 100 a second: 16 s."""
    tone(tmp_path / "long.wav", 120, 17)
    lines = lines_of(tones / "train.jsonl")
    for line in lines:
        for turn in line["dialogue_history"]:
            turn["audio_path"] = str(tones / turn["audio_path"])
    lines[3]["dialogue_history"][-1]["audio_path"] = str(tmp_path / "long.wav")
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    message = failure(command(tmp_path / "out", train_manifest=tmp_path / "train.jsonl", placement="replace"))
    assert message.startswith("error: train-3, newest turn: takes ")
    assert "window holds 200" in message
