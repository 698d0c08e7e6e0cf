"""How a reply was spoken: duration, loudness and pitch of a recording, through Praat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from es4r_toolkit.errors import AudioError, BackendError

HOP, WINDOW = 0.01, 0.025  # seconds between frames, and of each
SILENCE = 40.0  # dB below the loudest frame; what the strategy selector takes for silence too
FLOOR, CEILING = 60.0, 600.0  # Hz: from a low male voice to an excited child
ENDS = (0.05, 0.95)  # quantiles that a range goes from and to, so that one octave error does not make it
FEWEST_VOICED = 10  # frames; a tenth of a second


@dataclass(frozen=True)
class SpokenProsody:
    """What was measured of a recording.

    Attributes
    ----------
    seconds : float
        Of the whole file.
    speech_seconds : float
        From the first sound to the end of the last, to a hundredth; pauses count.
    level : float
        Root mean square of the frames that are not silent (dB, 0 being full scale).
    level_range : float
        From the 5th to the 95th percentile of their levels (dB).
    voiced : float
        Share of ``speech_seconds`` that has a pitch, in [0, 1].
    f0 : float or None
        Median pitch (Hz); None where less than a tenth of a second is voiced.
    f0_range : float or None
        From the 5th to the 95th percentile of the pitch (semitones).
    """

    seconds: float
    speech_seconds: float
    level: float
    level_range: float
    voiced: float
    f0: float | None
    f0_range: float | None


def measure(samples: np.ndarray, sample_rate: int) -> SpokenProsody:
    """Measure a recording.

    Pitch is Praat's, by autocorrelation (Boersma, 1993), every 10 ms from 60 to 600 Hz: of the trackers tried it
    was nearest on sounds of known pitch and took noise for a voice least (docs/evaluation_metrics.md).

    Arguments
    ---------
    samples : array (samples,)
        Amplitudes, 1 being full scale.
    sample_rate : int
        Hz.

    Raises
    ------
    AudioError
        If it is silent.
    BackendError
        If Praat is not installed.

    Example
    -------
    >>> tone = 0.5 * np.sin(2 * np.pi * 150 * np.arange(16000) / 16000)
    >>> found = measure(tone, 16000)
    >>> round(found.f0), round(found.level, 1), found.f0_range < 0.1
    (150, -9.0, True)
    """
    levels = _levels(np.asarray(samples, dtype=np.float64), sample_rate)
    loud = np.flatnonzero(levels > levels.max() - SILENCE)
    if not np.isfinite(levels.max()):
        raise AudioError("recording", "is silent", "speak the reply again")
    seconds = len(samples) / sample_rate
    # The first loud frame is so for what the silent one before it did not hold: its last hop. So with the last.
    start = loud[0] * HOP + WINDOW - HOP if loud[0] else 0.0
    end = (loud[-1] + 1) * HOP if loud[-1] < len(levels) - 1 else seconds
    times, pitch = _pitch(samples, sample_rate)
    inside = pitch[(times >= start) & (times <= end)]
    voiced = inside[inside > 0]
    enough = len(voiced) >= FEWEST_VOICED
    return SpokenProsody(
        seconds=seconds,
        speech_seconds=float(end - start),
        level=float(10 * np.log10(np.mean(10 ** (levels[loud] / 10)))),
        level_range=_between(levels[loud]),
        voiced=len(voiced) / len(inside) if len(inside) else 0.0,
        f0=float(np.median(voiced)) if enough else None,
        f0_range=_between(12 * np.log2(voiced)) if enough else None,
    )


def require_praat() -> None:
    """Raise BackendError unless Praat is installed."""
    try:
        import parselmouth  # noqa: F401
    except ImportError as fault:
        raise BackendError(
            "praat-parselmouth", f"is not installed ({fault})", "pip install 'es4r-toolkit[speech-metrics]'"
        ) from fault


def _levels(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Power of each frame (dB); -inf where it is digital silence."""
    width, hop = max(1, round(WINDOW * sample_rate)), max(1, round(HOP * sample_rate))
    padded = np.pad(samples, (0, max(0, width - len(samples))))
    energy = np.concatenate([[0.0], np.cumsum(np.square(padded))])
    starts = np.arange(0, len(padded) - width + 1, hop)
    with np.errstate(divide="ignore"):
        return 10 * np.log10((energy[starts + width] - energy[starts]) / width)


def _pitch(samples: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Times (seconds) and pitch (Hz), 0 where there is none; nothing of what is shorter than Praat's window."""
    require_praat()
    from parselmouth import PraatError, Sound

    try:
        found = Sound(np.asarray(samples, dtype=np.float64), sample_rate).to_pitch_ac(
            time_step=HOP, pitch_floor=FLOOR, pitch_ceiling=CEILING
        )
    except PraatError:
        return np.zeros(0), np.zeros(0)
    return found.xs(), found.selected_array["frequency"]


def _between(values: np.ndarray) -> float:
    low, high = np.quantile(values, ENDS)
    return float(high - low)
