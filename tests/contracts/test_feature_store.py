"""The feature store: what comes out is what the encoder gives, computed once, whatever happens in between."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from es4r_toolkit.backends.whisper import WhisperSpeechEncoder
from es4r_toolkit.data import audio
from es4r_toolkit.data.dataset import collate, dialogue_dataset
from es4r_toolkit.data.feature_store import FeatureStore, load_features
from es4r_toolkit.dialogue import LISTENER, SPEAKER, Dialogue, Turn
from es4r_toolkit.errors import AudioError, BackendError, ConfigError
from es4r_toolkit.losses import response_cross_entropy

SECONDS = (0.31, 0.2, 0.405, 0.12)


@pytest.fixture
def folder(tmp_path) -> Path:
    generator = torch.Generator().manual_seed(0)
    for place, seconds in enumerate(SECONDS):
        audio.save(tmp_path / f"{place}.wav", 0.1 * torch.randn(int(16000 * seconds), generator=generator), 16000)
    return tmp_path


@pytest.fixture
def dialogues(folder) -> list[Dialogue]:
    turns = [Turn((SPEAKER, LISTENER)[place % 2], "It is hard.", folder / f"{place}.wav") for place in range(4)]
    # Of the longest recording, one turn is a part.
    turns[2] = replace(turns[2], start=0.1, stop=0.3)
    reply = Turn(LISTENER, "I failed my exam today.")
    return [Dialogue("1", (turns[0],), reply), Dialogue("2", tuple(turns[:3]), reply)]


@pytest.fixture
def encoder(whisper_folder) -> WhisperSpeechEncoder:
    return WhisperSpeechEncoder(whisper_folder)


class Counting:
    """An encoder that counts how many clips it makes features of."""

    def __init__(self, encoder: WhisperSpeechEncoder):
        self.encoder, self.clips = encoder, 0
        self.sample_rate, self.feature_settings = encoder.sample_rate, encoder.feature_settings

    def features(self, waveforms: torch.Tensor, lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.clips += len(waveforms)
        return self.encoder.features(waveforms, lens)


def test_features_are_the_encoders_own_bit_for_bit(folder, dialogues, encoder):
    store = FeatureStore(folder / "store", encoder)
    store.fill(dialogues, "cpu")
    for (path, start, stop), kept in store.paths(dialogues).items():
        expected, _ = encoder.features(audio.load(path, 16000, start=start, stop=stop)[None], torch.ones(1))
        assert torch.equal(load_features(kept), expected[0])


def test_training_from_the_store_gives_the_loss_of_training_from_waveforms(folder, dialogues, cached_pipeline):
    pipeline = cached_pipeline(dtype=torch.float32)
    store = FeatureStore(folder / "store", pipeline.understanding.encoder)
    store.fill(dialogues, "cpu")
    losses = []
    for features in (None, store.paths(dialogues)):
        dataset = dialogue_dataset(dialogues, 16000, features)
        batch = collate([dataset[place] for place in range(len(dataset))])
        paths = pipeline(batch.to("cpu"))
        losses.append(response_cross_entropy(paths.speech, paths.targets, paths.valid))
    assert batch.waveforms is None
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)


def test_a_turn_is_computed_once_however_many_histories_hold_it(folder, dialogues, encoder):
    counting = Counting(encoder)
    FeatureStore(folder / "store", counting).fill(dialogues, "cpu")
    assert counting.clips == 3
    FeatureStore(folder / "store", counting).fill(dialogues, "cpu")
    assert counting.clips == 3


def test_a_moved_recording_is_found_again_and_a_changed_one_is_computed_anew(folder, dialogues, encoder):
    counting = Counting(encoder)
    FeatureStore(folder / "store", counting).fill(dialogues, "cpu")
    shutil.move(folder / "0.wav", folder / "moved.wav")
    moved = [Dialogue("1", (Turn(SPEAKER, "It is hard.", folder / "moved.wav"),))]
    store = FeatureStore(folder / "store", counting)
    store.fill(moved, "cpu")
    assert counting.clips == 3
    before = store.paths(moved)
    audio.save(folder / "moved.wav", torch.zeros(4960), 16000)
    store.fill(moved, "cpu")
    assert counting.clips == 4
    assert set(store.paths(moved).values()).isdisjoint(before.values())


def test_encoders_with_other_features_do_not_share_a_folder(folder, encoder):
    other = Counting(encoder)
    other.feature_settings = {**encoder.feature_settings, "hop": 320}
    assert FeatureStore(folder, encoder).folder != FeatureStore(folder, other).folder
    assert FeatureStore(folder, encoder).folder == FeatureStore(folder, Counting(encoder)).folder


def test_an_encoder_that_does_not_say_what_its_features_depend_on_is_refused(folder):
    with pytest.raises(ConfigError, match="object states no feature_settings"):
        FeatureStore(folder, object())


def test_a_broken_file_is_named(folder, dialogues, encoder):
    store = FeatureStore(folder / "store", encoder)
    store.fill(dialogues, "cpu")
    path = next(iter(store.paths(dialogues).values()))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BackendError, match="delete it: the next run makes it again"):
        load_features(path)
    save_file({"style": torch.zeros(4)}, path)
    with pytest.raises(BackendError, match="holds no features; delete it"):
        store.features(dialogues[0].history[0])


def test_turn_by_turn_gives_what_is_kept_in_bulk(folder, dialogues, encoder):
    counting = Counting(encoder)
    store = FeatureStore(folder / "store", counting)
    turn, decoded = dialogues[1].history[2], torch.zeros(4000)
    with torch.autocast("cpu", torch.bfloat16):
        first = store.features(turn)
    store.fill(dialogues, "cpu")
    assert counting.clips == 3
    assert torch.equal(first, load_features(store.path(turn)))
    assert torch.equal(first, FeatureStore(folder / "store", counting).features(turn))
    assert torch.equal(first, encoder.features(audio.load_turn(turn, 16000)[None], torch.ones(1))[0][0])
    other = replace(turn, start=0.05)
    given, _ = encoder.features(decoded[None], torch.ones(1))
    assert torch.equal(store.features(other, waveform=decoded), given[0])


def test_a_turn_without_a_recording_or_with_a_lost_one_is_named(folder, encoder):
    store = FeatureStore(folder / "store", encoder)
    with pytest.raises(AudioError, match="a turn of the speaker: has no recording"):
        store.features(Turn(SPEAKER, "Hm."))
    with pytest.raises(AudioError, match=r"none\.wav: cannot be read"):
        store.features(Turn(SPEAKER, "Hm.", folder / "none.wav"))


FILL = """
import sys
from pathlib import Path
from es4r_toolkit.backends.whisper import WhisperSpeechEncoder
from es4r_toolkit.data.feature_store import FeatureStore
from es4r_toolkit.dialogue import Dialogue, Turn
folder, source = map(Path, sys.argv[1:])
turns = tuple(Turn("speaker", "Hm.", folder / "2.wav", start=place / 2000) for place in range(600))
store = FeatureStore(folder / "store", WhisperSpeechEncoder(source))
print("begins", flush=True)
store.fill([Dialogue("1", turns)], "cpu", progress=lambda items, **_: items)
print(sum(path.is_file() for path in store.paths([Dialogue("1", turns)]).values()))
"""


def test_two_processes_fill_it_at_once_and_a_killed_one_leaves_whole_files(folder, encoder, whisper_folder):
    def start() -> subprocess.Popen:
        command = [sys.executable, "-c", FILL, str(folder), str(whisper_folder)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    killed = start()
    killed.stdout.readline()
    deadline = time.monotonic() + 60
    while not list(folder.glob("store/*/*/*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.002)
    killed.kill()
    killed.communicate()
    left = list(folder.glob("store/*/*/*.safetensors"))
    assert 0 < len(left) < 600
    assert all(load_features(path).shape[1] == 16 for path in left)
    other = start()
    other.stdout.readline()
    turns = tuple(Turn(SPEAKER, "Hm.", folder / "2.wav", start=place / 2000) for place in range(600))
    FeatureStore(folder / "store", encoder).fill([Dialogue("1", turns)], "cpu")
    assert other.communicate(timeout=120)[0].split() == ["600"]
    assert len(list(folder.glob("store/*/*/*.safetensors"))) == 600
