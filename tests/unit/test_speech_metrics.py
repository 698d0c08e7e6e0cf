"""Speech of replies: word errors, agreement with the strategy, opinion scores, and what cannot be heard."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
import soundfile
import torch

from es4r_toolkit.backends.mos import MosModel
from es4r_toolkit.data.manners import NEUTRAL, Manner, read_manner
from es4r_toolkit.data.responses import write_response
from es4r_toolkit.errors import BackendError, ConfigError, DialogueError
from es4r_toolkit.metrics.hearing import FEWEST, HeardReply, Instruments
from es4r_toolkit.metrics.prosody import SpokenProsody
from es4r_toolkit.metrics.prosody_agreement import prosody_agreement
from es4r_toolkit.metrics.speech import evaluate_speech
from es4r_toolkit.metrics.word_errors import spoken_words, word_errors

pytest.importorskip("parselmouth", reason="Praat is not installed: pip install 'es4r-toolkit[speech-metrics]'")

RATE = 16000


def tone(pitch: float = 150.0, seconds: float = 0.5, gain: float = 0.3) -> torch.Tensor:
    return gain * torch.sin(2 * torch.pi * pitch * torch.arange(round(seconds * RATE)) / RATE)


class Parrot:
    """A recognizer that hears the same in every recording."""

    name = identity = "parrot"
    sample_rate = RATE

    def __init__(self, heard: str):
        self.heard = heard

    def transcribe(self, waveform: torch.Tensor) -> str:
        return self.heard


# -- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I’m SO sorry!", "im so sorry"),
        ("well-known — or so…it seems", "well known or so it seems"),
        ("a\tb\n c", "a b c"),
        ("„Schöne Straße“", "schöne straße"),
        ("24/7, 3.5", "24 7 35"),
        ("...", ""),
        ("", ""),
    ],
)
def test_words_are_what_a_recognizer_could_write(text, words):
    assert spoken_words(text) == words.split()


@pytest.mark.parametrize(
    ("wanted", "heard", "errors"),
    [
        ("so sorry to hear", "so sorry to hear", 0),
        ("so sorry to hear", "so worry to hear", 1),
        ("so sorry to hear", "sorry hear", 2),
        ("so sorry", "oh so very sorry now", 3),
        ("so sorry", "", 2),
        ("", "the the", 2),
    ],
)
def test_errors_are_substitutions_deletions_and_insertions(wanted, heard, errors):
    assert word_errors(wanted.split(), heard.split()) == errors


def test_the_error_rate_is_over_all_words_and_not_the_mean_of_replies(tmp_path):
    for place, text in enumerate(["yes", "yes it is a very long day for me"]):
        write_response(tmp_path / str(place), {"id": str(place), "text": text}, tone(), RATE)
    found = evaluate_speech(tmp_path, Instruments(partial(Parrot, "yes"))).metrics
    assert found["wer"] == pytest.approx(8 / 10)
    assert found["interval"]["wer"] == [0.0, pytest.approx(8 / 9, abs=1e-4)]


# -- agreement -------------------------------------------------------------------------------------------------------


def heard(asked: dict[str, float], honours: list[str] | None = None, **measured: float) -> HeardReply:
    """Ten words in five seconds at 150 Hz, six semitones wide, at -20 dB, where nothing else is said."""
    prosody = {"seconds": 6.0, "speech_seconds": 5.0, "level": -20.0, "level_range": 20.0, "voiced": 0.6}
    prosody = SpokenProsody(**{**prosody, "f0": 150.0, "f0_range": 6.0, **measured})
    return HeardReply("7", 10, prosody, Manner("any", NEUTRAL | asked, honours and frozenset(honours)))


def test_a_voice_that_does_as_it_is_told_has_slope_and_correlation_1():
    replies = [
        heard(
            {"rate": rate, "pitch_shift": pitch, "energy": gain, "expressiveness": width},
            speech_seconds=5 / rate,
            f0=150 * 2 ** (pitch / 12),
            level=-20 + gain,
            f0_range=6 * width,
        )
        for rate, pitch, gain, width in [(0.8, -2, -6, 1.2), (1, 0, 0, 1), (1.25, 3, 2, 1.1)] * 4
    ]
    agreements, notes = prosody_agreement(replies)
    assert list(agreements) == ["rate", "pitch_shift", "expressiveness", "energy"]
    for found in agreements.values():
        assert (found.replies, found.correlation, found.slope) == (12, pytest.approx(1), pytest.approx(1))
        assert found.slope_interval == (pytest.approx(1), pytest.approx(1))
    assert notes == []


def test_a_voice_that_does_half_and_one_that_does_the_opposite():
    asked = [-2.0, 0.0, 1.0] * 10
    half = [heard({"energy": gain}, level=-20 + gain / 2) for gain in asked]
    opposite = [heard({"energy": gain}, level=-20 - gain) for gain in asked]
    assert prosody_agreement(half)[0]["energy"].slope == pytest.approx(0.5)
    assert prosody_agreement(opposite)[0]["energy"].correlation == pytest.approx(-1)


def test_a_voice_that_does_not_listen_has_nothing_but_chance_and_a_note():
    levels = np.random.default_rng(0).normal(-20, 2, 60)
    asked = [-2.0, 0.0, 1.0] * 20
    replies = [heard({"energy": gain}, ["rate"], level=level) for gain, level in zip(asked, levels)]
    agreements, notes = prosody_agreement(replies)
    low, high = agreements["energy"].correlation_interval
    assert low < 0 < high
    assert "energy: the voice of 60 replies does not honour it; agreement is then of chance" in notes
    assert not any(note.startswith("rate: the voice") for note in notes)


def test_where_all_are_asked_for_the_same_there_is_no_agreement():
    replies = [heard({"rate": 0.85}, speech_seconds=5 + place / 10) for place in range(20)]
    agreements, notes = prosody_agreement([*replies, *[heard({"rate": 1.0})] * 4])
    assert agreements == {}
    assert "no agreement of rate: only 4 replies were asked for anything but 0.85, and 5 are needed" in notes
    assert len(notes) == 4


def test_replies_without_a_pitch_or_a_strategy_do_not_count():
    told = [heard({"pitch_shift": shift}, f0=150 * 2 ** (shift / 12)) for shift in (0.0, 1.0) * 6]
    mute = [heard({"pitch_shift": 1.0}, f0=None, f0_range=None)] * 3
    stray = [HeardReply("8", 10, told[0].prosody)] * 2
    agreements, notes = prosody_agreement([*told, *mute, *stray])
    assert agreements["pitch_shift"].replies == 12
    assert notes[0] == "2 replies do not say with which strategy they were spoken"


def test_what_was_asked_is_read_from_beside_the_speech(tmp_path):
    path = tmp_path / "response.json"
    assert read_manner(path) is None
    path.write_text('{"id": "7", "text": "a"}')
    assert read_manner(path) is None
    path.write_text('{"strategy": "comfort", "prosody": {"rate": 0.85}, "honours": ["rate"]}')
    assert read_manner(path) == Manner("comfort", NEUTRAL | {"rate": 0.85}, frozenset({"rate"}))


@pytest.mark.parametrize(
    "broken", [{"rate": "fast"}, {"rate": 0}, {"expressiveness": -1}, {"energy": True}, {"rate": math.inf}, [1]]
)
def test_a_broken_prosody_is_refused(tmp_path, broken):
    path = tmp_path / "response.json"
    path.write_text(json.dumps({"strategy": "comfort", "prosody": broken}))
    with pytest.raises(DialogueError, match="cannot be read"):
        read_manner(path)


# -- opinion scores --------------------------------------------------------------------------------------------------


class Loudness(torch.nn.Module):
    def forward(self, waveform: torch.Tensor, sample_rate: int) -> torch.Tensor:
        if waveform.shape[1] < 100:
            raise ValueError("too short")
        return waveform.abs().amax(dim=1) * sample_rate / 16000


@pytest.fixture(scope="module")
def loudness(tmp_path_factory):
    path = tmp_path_factory.mktemp("mos") / "loudness.pt"
    torch.jit.script(Loudness()).save(str(path))
    return path


def test_a_model_of_opinions_gets_the_recording_at_its_own_rate(loudness):
    for source in (loudness, loudness.parent):
        model = MosModel(source, trust_remote_code=True)
        assert model.score(tone(gain=0.5), 16000) == pytest.approx(0.5, abs=1e-3)
        assert model.score(tone(gain=0.5), 8000) == pytest.approx(0.25, abs=1e-3)


def test_a_program_runs_only_where_it_is_trusted(loudness):
    with pytest.raises(ConfigError, match="say --trust-remote-code"):
        MosModel(loudness)


def test_a_model_that_is_none_or_fails_is_one_clear_error(loudness, tmp_path):
    with pytest.raises(BackendError, match="does not exist"):
        MosModel(tmp_path / "none.pt", True)
    with pytest.raises(BackendError, match="holds 0 of"):
        MosModel(tmp_path, True)
    (tmp_path / "text.pt").write_text("no archive")
    with pytest.raises(BackendError, match="is no TorchScript"):
        MosModel(tmp_path / "text.pt", True)
    with pytest.raises(BackendError, match="cannot score a waveform"):
        MosModel(loudness, True).score(torch.zeros(10), RATE)
    with pytest.raises(BackendError, match="gave nan"):
        MosModel(loudness, True).score(torch.full((200,), torch.nan), RATE)


# -- replies ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def answers(tmp_path):
    """Four replies that can be heard, and five that cannot."""
    for place in range(4):
        manner = {"strategy": "comfort" if place % 2 else "neutral", "prosody": NEUTRAL}
        answer = {"id": f"good {place}", "text": "I hear you.", **manner}
        write_response(tmp_path / f"good_{place}", answer, tone(100 + 10 * place), RATE)
    for name in ("cut", "missing", "silent", "broken", "odd"):
        answer = {"id": name, "text": "I hear you.", "strategy": "comfort", "prosody": NEUTRAL}
        write_response(tmp_path / name, answer, tone(), RATE)
    cut = tmp_path / "cut" / "response.wav"
    cut.write_bytes(cut.read_bytes()[:1000])
    (tmp_path / "missing" / "response.wav").unlink()
    soundfile.write(str(tmp_path / "silent" / "response.wav"), np.zeros(8000), RATE)
    (tmp_path / "broken" / "response.json").write_text("{")
    (tmp_path / "odd" / "response.json").write_text('{"id": "odd", "text": "a", "strategy": 3}')
    return tmp_path


def test_what_cannot_be_heard_is_named_and_the_rest_measured(answers, loudness):
    instruments = Instruments(partial(Parrot, "i hear you"), partial(MosModel, loudness, True))
    found = evaluate_speech(answers, instruments)
    assert (found.metrics["heard"], found.metrics["rejected"], found.metrics["wer"]) == (4, 5, 0.0)
    assert found.metrics["f0"] == pytest.approx(115, abs=0.1)
    assert found.metrics["mos"] == pytest.approx(0.3, abs=1e-3)
    assert found.metrics["words_per_second"] == pytest.approx(6, abs=0.1)
    assert {name: row["replies"] for name, row in found.metrics["by_strategy"].items()} == {"comfort": 2, "neutral": 2}
    told = " ".join(str(fault) for fault in found.rejected)
    for words in ("broken/response.json: is not JSON", "cut/response.wav: declares", "missing: has no speech"):
        assert words in told
    for words in ("silent/response.wav: is silent", "odd/response.json: has a strategy"):
        assert words in told
    json.dumps([reply.as_dict() for reply in found.replies], allow_nan=False)


def test_a_folder_in_which_nothing_can_be_heard_has_counts_and_a_note(answers):
    for folder in answers.glob("good_*"):
        (folder / "response.wav").unlink()
    found = evaluate_speech(answers, Instruments())
    assert (found.metrics, found.notes) == ({"heard": 0, "rejected": 9}, ["no reply could be heard"])


def test_several_processes_measure_what_one_does(tmp_path):
    for place in range(FEWEST):
        answer = {"id": str(place), "text": "I hear you.", "strategy": "neutral", "prosody": NEUTRAL}
        write_response(tmp_path / str(place), answer, tone(90 + 5 * place), RATE)
    (tmp_path / "3" / "response.wav").unlink()
    steps = []

    def bar(items, unit, total):
        steps.append((unit, total))
        return items

    one, two = (evaluate_speech(tmp_path, Instruments(), workers, bar) for workers in (1, 2))
    assert [asdict(reply) for reply in one.replies] == [asdict(reply) for reply in two.replies]
    assert [str(fault) for fault in one.rejected] == [str(fault) for fault in two.rejected]
    assert steps == [("reply", FEWEST)] * 2


def missing() -> None:
    raise BackendError("recognizer", "is not there", "get one")


def test_an_instrument_that_is_missing_ends_the_run_in_any_process(answers, tmp_path):
    for workers in (1, 2):
        with pytest.raises(BackendError, match="is not there"):
            evaluate_speech(answers, Instruments(missing), workers)
