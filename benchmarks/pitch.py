"""Pitch trackers on vowels whose pitch is known: errors, voice missed, noise taken for voice, and time.

    pip install praat-parselmouth pyworld librosa && python benchmarks/pitch.py

Three seconds each of a low, a male, a female, a child's and a high voice that glides over six semitones: whole, with
gaps of noise and of silence, through a telephone (300 to 3400 Hz), and in noise. A tracker that is not installed is
passed over.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from scipy.signal import butter, lfilter, sosfilt

RATE, HOP, FLOOR, CEILING = 16000, 0.01, 60.0, 600.0
SECONDS, EDGE = 3.0, 0.03  # frames nearer to the start or end of a voice than EDGE are not held against anybody
VOICES = {"low": 75, "male": 110, "female": 210, "child": 320, "high": 450}
Track = tuple[np.ndarray, np.ndarray]  # times (seconds), pitch (Hz; 0 where there is none)


def praat(samples: np.ndarray) -> Track:
    """Autocorrelation of Praat (Boersma, 1993)."""
    import parselmouth

    found = parselmouth.Sound(samples, RATE).to_pitch_ac(time_step=HOP, pitch_floor=FLOOR, pitch_ceiling=CEILING)
    return found.xs(), found.selected_array["frequency"]


def world_dio(samples: np.ndarray) -> Track:
    """DIO and StoneMask of WORLD."""
    import pyworld

    pitch, times = pyworld.dio(samples, RATE, f0_floor=FLOOR, f0_ceil=CEILING, frame_period=1000 * HOP)
    return times, pyworld.stonemask(samples, pitch, times, RATE)


def world_harvest(samples: np.ndarray) -> Track:
    """Harvest of WORLD, voiced where D4C says so."""
    import pyworld

    pitch, times = pyworld.harvest(samples, RATE, f0_floor=FLOOR, f0_ceil=CEILING, frame_period=1000 * HOP)
    aperiodic = (pyworld.d4c(samples, pitch, times, RATE, threshold=0.85) > 0.999).all(axis=1)
    return times, np.where(aperiodic, 0, pitch)


def librosa_pyin(samples: np.ndarray) -> Track:
    """pYIN of librosa."""
    import librosa

    hop = round(HOP * RATE)
    pitch, _, _ = librosa.pyin(samples, fmin=FLOOR, fmax=CEILING, sr=RATE, frame_length=1024, hop_length=hop)
    return np.arange(len(pitch)) * HOP, np.nan_to_num(pitch)


def torchaudio_nccf(samples: np.ndarray) -> Track:
    """detect_pitch_frequency of torchaudio, which finds a pitch in everything."""
    import torch
    from torchaudio.functional import detect_pitch_frequency

    found = detect_pitch_frequency(torch.tensor(samples[None]).float(), RATE, freq_low=FLOOR, freq_high=CEILING)
    return (np.arange(found.shape[1]) + 0.5) * HOP, found[0].numpy()


def sounds() -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Name, samples, pitch (Hz) and voiced, each (samples,)."""
    draw = np.random.default_rng(0)
    time_of = np.arange(round(SECONDS * RATE)) / RATE
    for name, base in VOICES.items():
        semitones = 3 * np.sin(2 * np.pi * 0.8 * time_of) + np.sin(2 * np.pi * 2.3 * time_of)
        pitch = base * 2 ** (semitones / 12)
        whole, voiced = vowel(pitch), np.ones(len(time_of), dtype=bool)
        yield f"{name}, whole", whole, pitch, voiced
        band = butter(4, [300, 3400], "band", fs=RATE, output="sos")
        yield f"{name}, telephone", sosfilt(band, whole), pitch, voiced
        place = time_of % 0.45  # 250 ms of voice, 100 ms of noise, 100 ms of silence
        voiced = place < 0.25
        envelope = np.clip(np.minimum(place, 0.25 - place) / 0.015, 0, 1)
        noise = draw.normal(size=len(time_of))
        gaps = whole * envelope + 0.05 * noise * ((place >= 0.25) & (place < 0.35))
        yield f"{name}, gaps", gaps, pitch, voiced
        for ratio in (20, 10):
            scale = np.sqrt(np.mean(gaps[voiced] ** 2) / 10 ** (ratio / 10))
            yield f"{name}, gaps, noise at {ratio} dB", gaps + scale * draw.normal(size=len(gaps)), pitch, voiced


def vowel(pitch: np.ndarray) -> np.ndarray:
    """Harmonics of a pitch (samples,) through the first three formants of an a; peak 0.5."""
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    wave = sum(np.where(k * pitch < 0.45 * RATE, np.cos(k * phase) / k, 0) for k in range(1, 60))
    for formant, width in ((700, 90), (1200, 110), (2600, 160)):
        radius = np.exp(-np.pi * width / RATE)
        poles = [1, -2 * radius * np.cos(2 * np.pi * formant / RATE), radius**2]
        wave = lfilter([sum(poles)], poles, wave)
    return 0.5 * wave / np.abs(wave).max()


def marks(track: Track, pitch: np.ndarray, voiced: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Errors (semitones) where both say voice, share of voice missed, share of the rest taken for voice."""
    times, found = track
    places = np.clip((times * RATE).astype(int), 0, len(pitch) - 1)
    reach = round(EDGE * RATE)
    near = [np.ptp(voiced[max(0, place - reach) : place + reach].astype(int)) > 0 for place in places]
    fair = ~np.array(near) & (times > EDGE) & (times < SECONDS - EDGE)
    is_voice, heard = voiced[places], found > 0
    both = fair & is_voice & heard
    errors = 12 * np.abs(np.log2(found[both] / pitch[places[both]]))
    missed = (fair & is_voice & ~heard).sum() / (fair & is_voice).sum()
    return errors, missed, (fair & ~is_voice & heard).sum() / max(1, (fair & ~is_voice).sum())


def main() -> int:
    """A line for each tracker."""
    cases = list(sounds())
    print(f"{'':<16} {'error':>8} {'over 1':>8} {'missed':>8} {'false':>8} {'s of CPU for a minute':>22}")
    trackers: list[Callable[[np.ndarray], Track]] = [praat, world_dio, world_harvest, librosa_pyin, torchaudio_nccf]
    for tracker in trackers:
        try:
            tracker(cases[0][1])  # compiles what is compiled once
        except ImportError as fault:
            print(f"{tracker.__name__:<16} passed over: {fault}")
            continue
        start = time.process_time()
        tracks = [tracker(samples.copy()) for _, samples, _, _ in cases]
        spent = (time.process_time() - start) * 60 / (SECONDS * len(cases))
        found = [marks(track, pitch, voiced) for track, (_, _, pitch, voiced) in zip(tracks, cases)]
        errors = np.concatenate([errors for errors, _, _ in found])
        shares = [np.mean(errors > 1), *(np.mean([row[place] for row in found]) for place in (1, 2))]
        print(f"{tracker.__name__:<16} {np.mean(errors):>8.3f} " + " ".join(f"{x:>8.1%}" for x in shares), end="")
        print(f" {spent:>22.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
