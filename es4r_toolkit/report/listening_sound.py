"""Sound for a listening test: nothing is lost, and nothing in it tells where it comes from."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

from es4r_toolkit.data import audio

# FLAC loses nothing, so that it cannot blur a judgement of quality as MP3 or Opus could; every browser plays it, and
# speech takes about half the room of a WAV file.
FORMAT, SUBTYPE, MEDIA_TYPE = "FLAC", "PCM_16", "audio/flac"
HIGHEST_RATE = 48_000  # Hz; what browsers play at


def one_rate(rates: Iterable[int]) -> int | None:
    """The sample rate (Hz) that all replies of a test get, so that it tells no system from the other.

    It is the highest of theirs, up to 48 kHz: raising a rate takes nothing away. None without any.

    Example
    -------
    >>> one_rate([16000, 24000]), one_rate([96000])
    (24000, 48000)
    """
    return min(max(rates, default=0), HIGHEST_RATE) or None


def sound_address(
    path: Path, sample_rate: int | None = None, start: float = 0.0, stop: float | None = None
) -> tuple[str, float]:
    """A recording, or a part of it, as the data address of a file of one channel without a name.

    Arguments
    ---------
    path : Path
        The recording.
    sample_rate : int or None
        Hz; None keeps its own, up to 48 kHz.
    start, stop : float
        The part (seconds); None is to its end.

    Returns
    -------
    address : str
        16-bit FLAC. Loudness is as recorded.
    peak : float
        The largest amplitude of the recording; where it is above 1, full scale, the whole was turned down by it.

    Raises
    ------
    AudioError
        If the recording cannot be used.
    """
    own_rate = audio.probe(path, start=start, stop=stop).sample_rate
    wanted = sample_rate or min(own_rate, HIGHEST_RATE)
    if own_rate == wanted:
        samples, _ = audio.decode(path, start=start, stop=stop)
    else:
        # This one resamples, and loads torch to do it.
        samples = audio.load(path, wanted, start=start, stop=stop).numpy()
    peak = float(np.abs(samples).max())
    file = io.BytesIO()
    soundfile.write(file, samples / max(peak, 1.0), wanted, format=FORMAT, subtype=SUBTYPE)
    return f"data:{MEDIA_TYPE};base64,{base64.b64encode(file.getvalue()).decode('ascii')}", peak
