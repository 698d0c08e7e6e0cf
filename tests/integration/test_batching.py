"""Training from stored features, and by seconds in place of dialogues."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import pytest
import soundfile
from tones import STEPS, lines_of

from es4r_toolkit.brain import ES4RBrain
from es4r_toolkit.data.feature_store import FeatureStore
from es4r_toolkit.stages.understanding import EmpatheticUnderstanding
from es4r_toolkit.training import run_recipe

SECONDS = 0.9  # of a batch: one long dialogue or two or three short ones


def test_training_from_stored_features_ends_as_training_from_waveforms(tmp_path, command, tones, monkeypatch):
    heard = []
    features = EmpatheticUnderstanding.features

    def watch(self, waveforms, wav_lens):
        heard.append(len(waveforms))
        return features(self, waveforms, wav_lens)

    monkeypatch.setattr(EmpatheticUnderstanding, "features", watch)
    # The turn adapter has dropout, and the speed that is drawn for waveforms takes random numbers from it.
    expected = run_recipe(command(tmp_path / "waveforms", positions="frames"))
    heard.clear()
    found = run_recipe(command(tmp_path / "stored", positions="frames", feature_store=tmp_path / "store"))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    # Only the test set is heard again: its two dialogues have one and three turns, in one forward pass and one answer.
    assert sum(heard) == 2 * (1 + 3)
    # Some tones of the two sets are the same, and stored once.
    sounds = {path.read_bytes() for split in ("train", "valid") for path in tones.glob(f"{split}_*.wav")}
    assert len(list((tmp_path / "store").rglob("*.safetensors"))) == len(sounds)


def test_a_store_that_is_there_is_not_filled_again(tmp_path, command, monkeypatch):
    run_recipe(command(tmp_path / "one", feature_store=tmp_path / "store", epochs=1))
    monkeypatch.setattr("es4r_toolkit.data.turn_store.save_file", lambda *_: pytest.fail("it computes again"))
    assert run_recipe(command(tmp_path / "two", feature_store=tmp_path / "store", epochs=1))


def test_a_store_and_augmentation_exclude_one_another(tmp_path, command):
    with pytest.raises(SystemExit, match="feature_store: holds what recordings are, and augmentation changes them"):
        run_recipe(command(tmp_path, feature_store=tmp_path / "store", speeds="[90,100]"))


def test_a_model_that_does_not_hear_needs_no_store(tmp_path, command, monkeypatch):
    monkeypatch.setattr(FeatureStore, "fill", lambda *_, **__: pytest.fail("it computes"))
    run_recipe(command(tmp_path, feature_store=tmp_path / "s", epochs=1, context="[text]", lora_scope="context"))


@pytest.fixture
def batches(monkeypatch) -> list[list[str]]:
    """The dialogues of each training batch, as training meets them."""
    seen: list[list[str]] = []
    fit = ES4RBrain.fit_batch

    def watch(self, batch):
        seen.append([dialogue.id for dialogue in batch.dialogues])
        return fit(self, batch)

    monkeypatch.setattr(ES4RBrain, "fit_batch", watch)
    return seen


def seconds_of(folder: Path) -> dict[str, float]:
    return {
        entry["conversation_id"]: sum(
            soundfile.info(folder / turn["audio_path"]).duration for turn in entry["dialogue_history"]
        )
        for entry in lines_of(folder / "train.jsonl")
    }


def test_batches_by_seconds_hold_every_dialogue_once_an_epoch_and_differ_between_epochs(
    tmp_path, command, tones, batches
):
    run_recipe(command(tmp_path, max_batch_seconds=SECONDS, batch_buckets=2, epochs=4, kl_weight=0))
    seconds = seconds_of(tones)
    epochs: list[list[list[str]]] = []
    for batch in batches:
        if not epochs or sum(map(len, epochs[-1])) == len(seconds):
            epochs.append([])
        epochs[-1].append(batch)
    assert len(epochs) == 4
    for epoch in epochs:
        assert sorted(chain.from_iterable(epoch)) == sorted(seconds)
        assert all(len(batch) == 1 or sum(seconds[name] for name in batch) <= SECONDS for batch in epoch)
    assert any(len(batch) > 1 for batch in batches)
    assert len({json.dumps(epoch) for epoch in epochs}) > 1


def test_a_dialogue_longer_than_a_batch_is_one_of_its_own(tmp_path, command, batches, tones):
    run_recipe(command(tmp_path, max_batch_seconds=0.1, epochs=1, kl_weight=0))
    assert sorted(chain.from_iterable(batches)) == sorted(seconds_of(tones))
    assert all(len(batch) == 1 for batch in batches)


def test_the_learning_rate_counts_the_batches_by_seconds(tmp_path, command, batches):
    run_recipe(command(tmp_path, max_batch_seconds=SECONDS, batch_buckets=2, epochs=2, kl_weight=0))
    assert len(batches) != STEPS
    last = lines_of(tmp_path / "history.jsonl")[-1]
    assert last["epoch"] == 2
    log = (tmp_path / "train_log.txt").read_text().strip().splitlines()[-2]
    rate = float(log.split("lr: ")[1].split(" ")[0])
    # The cool-down takes half of the steps, and would reach zero in the one after the last.
    assert rate == pytest.approx(0.01 / round(0.5 * len(batches)), rel=0.01)
