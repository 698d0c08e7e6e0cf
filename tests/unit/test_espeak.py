"""EspeakSynthesizer speaks plain text, the same way each time, and follows every field of Prosody."""

from __future__ import annotations

import doctest
import gc
import itertools
import os
import sys
import time

import numpy as np
import pytest
import torch

from es4r_toolkit.backends import espeak
from es4r_toolkit.backends.espeak import EspeakSynthesizer, pitch_parameter, pitch_semitones
from es4r_toolkit.errors import BackendError, ConfigError
from es4r_toolkit.lobes.energy_strategy import Prosody
from es4r_toolkit.protocols import SpeechSynthesizer

pytest.importorskip("espeakng_loader", reason="the espeak extra is not installed: pip install 'es4r-toolkit[espeak]'")

SENTENCE = "I wanted to tell you about the meeting today."
SHORT = "We talked on Monday."


@pytest.fixture(scope="module")
def voice():
    with EspeakSynthesizer() as synthesizer:
        yield synthesizer


def median_f0(waveform: torch.Tensor, sample_rate: int) -> float:
    """Median over voiced 40 ms frames of the autocorrelation's best lag between 60 and 400 Hz."""
    frames = waveform.double().unfold(0, sample_rate // 25, sample_rate // 100)
    frames = frames[frames.norm(dim=1) > 0.3 * frames.norm(dim=1).max()]
    frames = frames - frames.mean(dim=1, keepdim=True)
    length = frames.shape[1]
    correlation = torch.fft.irfft(torch.fft.rfft(frames, 2 * length).abs() ** 2)[:, :length]
    correlation = correlation / correlation[:, :1] / (1 - torch.arange(length) / length)
    lags = slice(sample_rate // 400, sample_rate // 60)
    best, lag = correlation[:, lags].max(dim=1)
    return sample_rate / float((lag[best > 0.6] + lags.start).median())


def pitch_spread(waveform: torch.Tensor, sample_rate: int) -> float:
    """Ratio of the median F0s of the highest and the lowest quarter second."""
    pieces = waveform.split(sample_rate // 4)[:-1]
    values = sorted(median_f0(piece, sample_rate) for piece in pieces if piece.abs().max() > 0.1)
    return values[-1] / values[0]


def test_it_satisfies_the_contract_of_a_synthesizer(voice):
    assert isinstance(voice, SpeechSynthesizer)
    assert voice.sample_rate == 24000
    assert voice.style_dim is None
    assert voice.honours == {"rate", "expressiveness", "pitch_shift", "energy"}


def test_a_sentence_becomes_a_float_waveform_of_plausible_length(voice):
    waveform = voice.synthesize(SENTENCE)
    assert waveform.dtype == torch.float32
    assert waveform.dim() == 1
    assert 2.0 < len(waveform) / voice.sample_rate < 4.0
    assert 0.1 < float(waveform.abs().max()) <= 1.0


def test_resampling_keeps_duration_and_pitch(voice):
    samples, rate = voice.speak(SENTENCE, "en-us")
    waveform = voice.synthesize(SENTENCE)
    assert (samples.dtype, rate) == (np.int16, 22050)
    assert len(waveform) / voice.sample_rate == pytest.approx(len(samples) / rate, abs=0.001)
    own = median_f0(torch.from_numpy(samples / 32768), rate)
    assert median_f0(waveform, voice.sample_rate) == pytest.approx(own, rel=0.01)


@pytest.mark.parametrize("name", ["en-us", "en-us+f3", "en-us+f5"])
def test_a_text_sounds_the_same_after_others_and_in_another_process(voice, name):
    before, _ = voice.speak(SENTENCE, name)
    voice.speak("Etwas ganz anderes!", "de", rate=250, pitch=90)
    voice.speak(SHORT, "en-us+f3", word_gap=5)
    again, _ = voice.speak(SENTENCE, name)
    with EspeakSynthesizer() as other:
        other.speak(SHORT, "en-us")
        elsewhere, _ = other.speak(SENTENCE, name)
    assert np.array_equal(before, again)
    assert np.array_equal(before, elsewhere)


def test_breath_noise_does_not_follow_the_clock(voice):
    first, _ = voice.speak(SHORT, "en-us+f3")
    # espeak-ng seeds its noise with whole seconds: a process begun in another second would tell.
    time.sleep(1.05)
    with EspeakSynthesizer() as later:
        assert np.array_equal(later.speak(SHORT, "en-us+f3")[0], first)


def test_comfort_is_slower_than_neutral(voice):
    neutral = len(voice.synthesize(SENTENCE))
    comfort = len(voice.synthesize(SENTENCE, prosody=Prosody(rate=0.85)))
    assert comfort / neutral == pytest.approx(1 / 0.85, rel=0.06)


@pytest.mark.parametrize("name", ["en-us", "en-us+f3"])
@pytest.mark.parametrize("semitones", [-4.0, 3.0, 5.0])
def test_pitch_shift_moves_the_measured_f0_by_about_so_many_semitones(name, semitones):
    with EspeakSynthesizer(name) as voice:
        own = median_f0(voice.synthesize(SENTENCE), voice.sample_rate)
        moved = median_f0(voice.synthesize(SENTENCE, prosody=Prosody(pitch_shift=semitones)), voice.sample_rate)
    assert 12 * np.log2(moved / own) == pytest.approx(semitones, abs=0.8)


def test_expressiveness_widens_the_pitch_and_leaves_its_median(voice):
    flat, lively = (voice.synthesize(SENTENCE, prosody=Prosody(expressiveness=value)) for value in (0.4, 1.8))
    rate = voice.sample_rate
    assert pitch_spread(lively, rate) > 1.2 * pitch_spread(flat, rate)
    assert abs(12 * np.log2(median_f0(lively, rate) / median_f0(flat, rate))) < 1.0


def test_energy_is_a_gain_in_decibels(voice):
    plain, quiet = voice.synthesize(SHORT), voice.synthesize(SHORT, prosody=Prosody(energy=-6.0))
    assert 20 * torch.log10(quiet.norm() / plain.norm()) == pytest.approx(-6.0, abs=0.01)


def test_energy_beyond_full_scale_is_scaled_back_not_clipped(voice):
    plain, loud = voice.synthesize(SHORT), voice.synthesize(SHORT, prosody=Prosody(energy=30.0))
    assert float(loud.abs().max()) == pytest.approx(0.99, abs=1e-4)
    assert torch.allclose(loud / loud.norm(), plain / plain.norm(), atol=1e-6)


def test_prosody_beyond_the_bounds_is_bounded_and_logged(voice, caplog):
    fastest = voice.synthesize(SHORT, prosody=Prosody(rate=10.0))
    assert "rate 1600 is beyond 80 to 450" in caplog.text
    assert len(fastest) < len(voice.synthesize(SHORT))


@pytest.mark.parametrize("text", ["a < b", "this & that", "<break/> now", "&lt; done", "naïve café, Zoë", "\ud800 yes"])
def test_markup_and_unicode_are_spoken(voice, text):
    assert len(voice.synthesize(text)) > 0.2 * voice.sample_rate


def test_markup_is_read_out_and_not_obeyed(voice):
    read = voice.synthesize('I wait. <break time="3000ms"/> Then I go.')
    silent = "".join(" " if quiet else "x" for quiet in (read.abs() < 1e-3).tolist())
    assert max(len(run) for run in silent.split("x")) < voice.sample_rate


def test_control_characters_are_no_commands(voice):
    commanded, _ = voice.speak("\x01450S I went there and came back.", "en-us")
    plain, _ = voice.speak("450S I went there and came back.", "en-us")
    assert len(commanded) == pytest.approx(len(plain), rel=0.05)


def test_streaming_gives_a_waveform_a_sentence(voice):
    text = "I went there. Did you know? It was late! ..."
    pieces = list(voice.stream(text))
    assert len(pieces) == 3
    assert torch.equal(pieces[1], voice.synthesize("Did you know?"))


@pytest.mark.parametrize("text", ["", "  \n", "..."])
def test_a_text_with_nothing_to_say_is_refused(voice, text):
    with pytest.raises(BackendError, match="at least one word"):
        voice.synthesize(text)
    with pytest.raises(BackendError, match="at least one word"):
        list(voice.stream(text))


def test_a_text_without_end_is_refused(voice):
    with pytest.raises(BackendError, match="10001 characters"):
        voice.synthesize("a" * 10001)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("xx-unknown", "no voice 'xx-unknown'"),
        ("en-us+nobody", "no variant 'nobody'"),
        ("en-us+../f1", "no variant"),
        ("../en", "no voice name"),
        ("", "no voice name"),
    ],
)
def test_an_unknown_voice_or_variant_is_refused(voice, name, problem):
    with pytest.raises(BackendError, match=problem):
        voice.speak(SHORT, name)
    assert len(voice.synthesize(SHORT)) > 0


def test_a_style_is_refused(voice):
    with pytest.raises(BackendError, match="no style encoder"):
        voice.style(torch.zeros(24000), 24000)
    with pytest.raises(BackendError, match="style vector"):
        voice.synthesize(SHORT, style=torch.zeros(128))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("rate", 79),
        ("rate", 451),
        ("pitch", -1),
        ("pitch_range", 100),
        ("volume", 201),
        ("word_gap", -1),
        ("rate", 1.5),
    ],
)
def test_a_parameter_out_of_bounds_is_refused(argument, value):
    with pytest.raises(ConfigError, match=rf"{argument}: got {value}"):
        EspeakSynthesizer(**{argument: value})


@pytest.mark.parametrize("prosody", [Prosody(rate=0.0), Prosody(energy=float("nan")), Prosody(expressiveness=-1.0)])
def test_an_impossible_prosody_is_refused(voice, prosody):
    with pytest.raises(ConfigError, match="prosody"):
        voice.synthesize(SHORT, prosody=prosody)


def test_a_missing_wheel_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(BackendError, match=r"pip install 'es4r-toolkit\[espeak\]'"):
        EspeakSynthesizer().synthesize(SHORT)


def test_a_broken_library_is_reported(monkeypatch, tmp_path):
    import espeakng_loader

    broken = tmp_path / "libespeak-ng.so"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: str(broken))
    with pytest.raises(BackendError, match="reinstall"):
        EspeakSynthesizer().synthesize(SHORT)


def test_speech_that_takes_too_long_is_given_up_and_the_next_is_spoken():
    with EspeakSynthesizer(time_limit=1e-6) as voice:
        with pytest.raises(BackendError, match="took more than"):
            voice.synthesize("one two three four five. " * 300)
        voice.time_limit = 30.0
        assert len(voice.synthesize(SHORT)) > 0


def test_a_dead_worker_is_replaced(voice):
    before = voice.synthesize(SHORT)
    dead = voice._espeak.worker.process
    dead.kill()
    dead.wait()
    assert torch.equal(voice.synthesize(SHORT), before)
    assert voice._espeak.worker.process.pid != dead.pid


def test_nothing_runs_before_the_first_speech_or_after_the_last():
    voice = EspeakSynthesizer()
    assert voice._espeak.worker is None
    voice.synthesize(SHORT)
    closed = voice._espeak.worker.process
    voice.close()
    assert closed.returncode is not None
    voice.synthesize(SHORT)
    forgotten = voice._espeak.worker.process
    del voice
    gc.collect()
    assert forgotten.returncode is not None


def test_a_forked_process_gets_a_worker_of_its_own(voice, monkeypatch):
    voice.synthesize(SHORT)
    shared = voice._espeak.worker
    monkeypatch.setattr(shared, "owner", os.getpid() + 1)
    voice.synthesize(SHORT)
    own = voice._espeak.worker
    assert own is not shared
    assert shared.process.poll() is None, "the parent's worker was stopped by its child"
    monkeypatch.undo()
    shared.stop()


def test_the_pitch_table_and_its_inverse_agree():
    for pitch in range(0, 101, 5):
        assert pitch_parameter(pitch_semitones(pitch)) == pytest.approx(pitch)
    assert pitch_parameter(-20) < 0
    assert pitch_parameter(20) > 100


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(espeak).failed == 0


# -- words and phonemes -----------------------------------------------------------------------------------------------


def test_every_word_says_when_it_is_said(voice):
    text = "I am here, for you."
    waveform, words = voice.timed(text)
    assert torch.equal(waveform, voice.synthesize(text))
    assert [word.text for word in words] == ["I am", "here,", "for", "you."]
    assert all(word.start < word.end for word in words)
    assert all(before.end == after.start for before, after in itertools.pairwise(words))
    assert words[-1].end == pytest.approx(len(waveform) / voice.sample_rate, abs=0.001)
    slow = voice.timed(text, prosody=Prosody(rate=0.7))[1]
    assert slow[-1].start > words[-1].start


def test_what_is_said_after_a_word_begins_is_the_word(voice):
    """The time stamps cut the recording where the sound changes: silence before the comma's next word."""
    waveform, words = voice.timed("Yes, no.")
    before_no = waveform[int((words[1].start - 0.08) * voice.sample_rate) : int(words[1].start * voice.sample_rate)]
    during_no = waveform[int(words[1].start * voice.sample_rate) : int(words[1].end * voice.sample_rate)]
    assert before_no.abs().max() < 0.1 * during_no.abs().max()
