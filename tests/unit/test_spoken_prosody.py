"""What is measured of a recording, against sounds whose pitch, loudness and length are known."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.signal import lfilter

from es4r_toolkit.errors import AudioError, BackendError
from es4r_toolkit.metrics import prosody
from es4r_toolkit.metrics.prosody import measure

pytest.importorskip("parselmouth", reason="Praat is not installed: pip install 'es4r-toolkit[speech-metrics]'")

RATE = 16000


def vowel(pitch: np.ndarray, rate: int = RATE) -> np.ndarray:
    """Harmonics of a pitch (samples,), through the first three formants of an a; peak 0.5."""
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    wave = sum(np.where(k * pitch < 0.45 * rate, np.cos(k * phase) / k, 0) for k in range(1, 50))
    for formant, width in ((700, 90), (1200, 110), (2600, 160)):
        radius = np.exp(-np.pi * width / rate)
        poles = [1, -2 * radius * np.cos(2 * np.pi * formant / rate), radius**2]
        wave = lfilter([sum(poles)], poles, wave)
    return 0.5 * wave / np.abs(wave).max()


def glide(low: float, high: float, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    """A pitch that rises by as many semitones every second."""
    return low * (high / low) ** np.linspace(0, 1, round(seconds * rate))


def semitones(found: float, wanted: float) -> float:
    return 12 * np.log2(found / wanted)


@pytest.mark.parametrize("pitch", [75, 110, 210, 330, 500])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_the_pitch_of_a_vowel_is_found_within_a_twentieth_of_a_semitone(pitch, rate):
    found = measure(vowel(np.full(rate, float(pitch)), rate), rate)
    assert abs(semitones(found.f0, pitch)) < 0.05
    assert found.f0_range < 0.1
    assert found.voiced > 0.95


def test_the_range_is_that_of_the_middle_nine_tenths():
    found = measure(vowel(glide(120, 240, seconds=3)), RATE)
    assert semitones(found.f0, 120 * 2**0.5) == pytest.approx(0, abs=0.1)
    assert found.f0_range == pytest.approx(0.9 * 12, abs=0.4)


def test_noise_has_no_pitch():
    noise = np.random.default_rng(0).normal(size=RATE) * 0.1
    found = measure(noise, RATE)
    assert (found.f0, found.f0_range) == (None, None)
    assert found.voiced < 0.05
    assert found.level == pytest.approx(-20, abs=0.2)


def test_pitch_is_found_in_noise_of_a_tenth_of_its_power():
    wave = vowel(glide(180, 260))
    noise = np.random.default_rng(0).normal(size=len(wave)) * np.sqrt(np.mean(wave**2) / 10)
    clean, noisy = measure(wave, RATE), measure(wave + noise, RATE)
    assert semitones(noisy.f0, clean.f0) == pytest.approx(0, abs=0.2)
    assert noisy.f0_range == pytest.approx(clean.f0_range, abs=0.5)


def test_level_is_of_full_scale_and_moves_by_the_gain():
    tone = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)
    assert measure(tone, RATE).level == pytest.approx(-3.01, abs=0.05)
    assert measure(0.1 * tone, RATE).level == pytest.approx(-23.01, abs=0.05)
    assert measure(0.1 * tone, RATE).level_range == pytest.approx(0, abs=0.1)


def test_silence_at_the_ends_changes_the_length_alone():
    wave, silence = vowel(np.full(RATE, 150.0)), np.zeros(RATE // 2)
    alone, padded = measure(wave, RATE), measure(np.concatenate([silence, wave, silence]), RATE)
    assert (alone.seconds, padded.seconds) == (1, 2)
    assert padded.speech_seconds == pytest.approx(1, abs=0.011)
    assert padded.level == pytest.approx(alone.level, abs=0.2)
    assert padded.voiced == pytest.approx(alone.voiced, abs=0.05)
    assert semitones(padded.f0, alone.f0) == pytest.approx(0, abs=0.01)


def test_a_pause_counts_as_speech_time_and_not_as_loudness():
    wave = vowel(np.full(RATE, 150.0))
    found = measure(np.concatenate([wave, np.zeros(RATE), wave]), RATE)
    assert found.speech_seconds == pytest.approx(3, abs=0.03)
    assert found.level == pytest.approx(measure(wave, RATE).level, abs=0.2)
    assert found.voiced == pytest.approx(2 / 3, abs=0.03)


@pytest.mark.parametrize("samples", [1, 100, 500])
def test_a_click_is_measured_without_a_pitch(samples):
    found = measure(np.full(samples, 0.5), RATE)
    assert found.f0 is None
    assert 0 < found.speech_seconds <= found.seconds == samples / RATE


def test_silence_is_refused():
    with pytest.raises(AudioError, match="is silent"):
        measure(np.zeros(RATE), RATE)


def test_a_missing_praat_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "parselmouth", None)
    with pytest.raises(BackendError, match=r"es4r-toolkit\[speech-metrics\]"):
        prosody.require_praat()
