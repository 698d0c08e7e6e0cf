"""Waveforms as players and outlines that live inside the page."""

from __future__ import annotations

import base64
import io
import wave
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from es4r_toolkit.data import audio
from es4r_toolkit.errors import AudioError
from es4r_toolkit.report.content import Samples, as_array

MAX_CLIP_SECONDS = 60.0
OUTLINE_BARS = 96


@dataclass(frozen=True)
class Clip:
    """A waveform ready for the page.

    Attributes
    ----------
    source : str
        A WAV file as a data address, 16-bit, one channel.
    seconds : float
        Its length as played.
    outline : str
        The drawing of an SVG path, ``OUTLINE_BARS`` wide and 2 high: the loudest sample of each stretch.
    remark : str
        What was done to the samples to show them here; empty for nothing.
    """

    source: str
    seconds: float
    outline: str
    remark: str


def clip(waveform: Samples | None, sample_rate: int, loudest: float = 1.0) -> Clip | None:
    """Waveform (samples,) at sample_rate Hz -> Clip, or None where there is no sound.

    A clip of more than ``MAX_CLIP_SECONDS`` is cut and one beyond full scale is scaled down; the remark says so.
    ``loudest`` is the amplitude that fills the outline's height.

    Example
    -------
    >>> clip(np.zeros(8000), 16000).seconds
    0.5
    >>> clip(np.full(16000 * 90, 2.0), 16000).remark
    'first 60 s of 90 s; turned down to half, as it went beyond full scale'
    """
    samples = np.zeros(0) if waveform is None else as_array(waveform)
    if not len(samples):
        return None
    remarks, whole = [], len(samples) / sample_rate
    samples = samples[: int(MAX_CLIP_SECONDS * sample_rate)]
    seconds = len(samples) / sample_rate
    if seconds < whole:
        remarks.append(f"first {seconds:.0f} s of {whole:.0f} s")
    outline = _outline(samples / max(loudest, 1e-9))
    peak = float(np.abs(samples).max())
    if peak > 1:
        samples = samples / peak
        share = "half" if peak == 2 else f"{1 / peak:.2f}"
        remarks.append(f"turned down to {share}, as it went beyond full scale")
    return Clip(_wav_address(samples, sample_rate), seconds, outline, "; ".join(remarks))


def player(recording: Path | None, notes: list[str]) -> Clip | None:
    """A recording as a Clip; None where there is none, or none that can be read, which ``notes`` then say."""
    if recording is None:
        return None
    try:
        return clip(*audio.decode(recording))
    except AudioError as fault:
        notes.append(f"not played: {fault}")
        return None


def peak(waveform: Samples | None) -> float:
    """Largest amplitude of a waveform; 0 for none.

    Example
    -------
    >>> peak(np.array([0.25, -0.5])), peak(None)
    (0.5, 0.0)
    """
    return float(np.abs(as_array(waveform)).max(initial=0.0)) if waveform is not None else 0.0


def _wav_address(samples: np.ndarray, sample_rate: int) -> str:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(int(sample_rate))
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())
    return "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _outline(samples: np.ndarray) -> str:
    edges = np.linspace(0, len(samples), OUTLINE_BARS + 1).astype(int)
    # A floor keeps silence visible as a thin line, so that its length can be seen.
    heights = [max(float(np.abs(samples[a : max(b, a + 1)]).max()), 0.03) for a, b in pairwise(edges)]
    return "".join(
        f"M{place}.5 {1 - min(height, 1):.2f}V{1 + min(height, 1):.2f}" for place, height in enumerate(heights)
    )
