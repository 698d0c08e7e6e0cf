"""The store of styles: each is computed once, a turn without one is remembered, and no voice takes another's."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from es4r_toolkit.data import audio
from es4r_toolkit.data.feature_store import StyleStore
from es4r_toolkit.dialogue import LISTENER, SPEAKER, Dialogue, Turn
from es4r_toolkit.errors import BackendError, ConfigError

SECONDS = (0.5, 0.02, 0.3)
RATE = 16000


class Voice:
    """A voice whose style of a recording is its loudness and its length; too short a one has none."""

    style_dim = 2

    def __init__(self, weights: str = "a"):
        self.style_settings, self.heard = {"style": "loudness", "weights": weights}, 0

    def style(self, waveform: torch.Tensor, sample_rate: int) -> torch.Tensor:
        self.heard += 1
        if len(waveform) < 0.1 * sample_rate:
            held = f"holds {len(waveform) / sample_rate:.2f} s of speech, less than 0.1 s"
            raise BackendError("reference of a style", held, "give a longer recording")
        return torch.stack([waveform.square().mean(), torch.tensor(len(waveform) / sample_rate)])


@pytest.fixture
def turns(tmp_path) -> tuple[Turn, ...]:
    for place, seconds in enumerate(SECONDS):
        wave = 0.1 * torch.ones(round(seconds * RATE))
        audio.save(tmp_path / f"{place}.wav", wave, RATE)
    return tuple(Turn((SPEAKER, LISTENER)[place % 2], "Hm.", tmp_path / f"{place}.wav") for place in range(3))


@pytest.fixture
def dialogues(turns) -> list[Dialogue]:
    return [Dialogue("1", turns[:2]), Dialogue("2", turns)]


def store(folder: Path, voice: Voice, sample_rate: int = RATE) -> StyleStore:
    return StyleStore(folder / "store", voice, sample_rate)


def test_a_style_is_the_voice_s_own_and_computed_once(tmp_path, turns):
    voice = Voice()
    first = store(tmp_path, voice).style(turns[0])
    assert torch.equal(first, Voice().style(audio.load_turn(turns[0], RATE), RATE))
    assert torch.equal(store(tmp_path, voice).style(turns[0]), first)
    assert voice.heard == 1


def test_a_turn_too_short_for_a_style_is_remembered_and_told_each_time(tmp_path, turns, caplog):
    voice = Voice()
    for _ in range(3):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert store(tmp_path, voice).style(turns[1]) is None
        (told,) = caplog.messages
        assert told.startswith(f"{turns[1].audio} has no style: reference of a style: holds 0.02 s of speech")
    assert voice.heard == 1


def test_in_bulk_every_turn_is_heard_once_and_those_without_a_style_are_counted(tmp_path, dialogues, caplog):
    voice = Voice()
    with caplog.at_level(logging.WARNING):
        store(tmp_path, voice).fill(dialogues, "cpu")
    assert voice.heard == 3
    short = dialogues[0].history[1]
    (told,) = caplog.messages
    assert told.startswith(f"1 turns have no style, the first of {short.audio}: reference of a style")
    ((part, reason),) = store(tmp_path, voice).without_style(dialogues).items()
    assert part == (short.audio, 0.0, None)
    assert "0.02 s" in reason
    store(tmp_path, voice).fill(dialogues, "cpu")
    assert voice.heard == 3


def test_a_part_of_a_recording_has_a_style_of_its_own(tmp_path, turns):
    voice = Voice()
    whole, part = (store(tmp_path, voice).style(turn) for turn in (turns[0], replace(turns[0], start=0.1, stop=0.3)))
    assert (whole[1].item(), part[1].item()) == (pytest.approx(0.5), pytest.approx(0.2))


def test_a_changed_recording_another_checkpoint_and_another_rate_are_computed_anew(tmp_path, turns):
    voice, other = Voice("a"), Voice("b")
    store(tmp_path, voice).style(turns[0])
    store(tmp_path, other).style(turns[0])
    assert other.heard == 1
    store(tmp_path, voice, 8000).style(turns[0])
    assert voice.heard == 2
    audio.save(turns[0].audio, 0.2 * torch.ones(RATE), RATE)
    assert store(tmp_path, voice).style(turns[0])[1] == 1
    assert voice.heard == 3
    kept = [json.loads(path.read_text())["weights"] for path in tmp_path.glob("store/*/settings.json")]
    assert sorted(kept) == ["a", "a", "b"]


def test_what_was_decoded_already_is_not_decoded_again(tmp_path, turns):
    given = store(tmp_path, Voice()).style(turns[0], waveform=torch.ones(RATE))
    assert given.tolist() == [1, 1]


def test_a_voice_without_styles_and_one_that_does_not_say_what_they_depend_on_are_refused(tmp_path):
    mute, silent = Voice(), Voice()
    mute.style_dim, silent.style_settings = None, None
    with pytest.raises(ConfigError, match="must be one with style vectors"):
        store(tmp_path, mute)
    with pytest.raises(ConfigError, match="Voice states no style_settings"):
        store(tmp_path, silent)


def test_a_file_of_something_else_is_named(tmp_path, turns):
    styles = store(tmp_path, Voice())
    styles.style(turns[0])
    save_file({}, styles.path(turns[0]))
    with pytest.raises(BackendError, match="holds no style and no no_style; delete it"):
        styles.style(turns[0])


def test_several_who_ask_at_once_get_the_same_and_leave_whole_files_only(tmp_path, turns):
    """That several processes may write, and one be killed, is tested of the store of features: it is one store."""
    parts = [replace(turns[0], start=place / 100) for place in range(40)] * 4
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda turn: store(tmp_path, Voice()).style(turn), parts))
    assert all(torch.equal(style, found[place % 40]) for place, style in enumerate(found))
    files = [path for path in tmp_path.glob("store/**/*") if path.is_file()]
    assert len([path for path in files if path.suffix == ".safetensors"]) == 40
    assert sorted({path.suffix for path in files}) == [".json", ".safetensors"]
