"""The border: what a browser sends is held against limits before it is decoded, and is gone when it was read."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from es4r_toolkit.data.audio import AudioLimits, load
from es4r_toolkit.errors import AudioError, DialogueError, ES4RError

# A turn of a dialogue; a minute of 48 kHz stereo takes 11 MB as 16-bit WAV.
LIMITS = AudioLimits(max_seconds=60.0, max_bytes=20 * 1024 * 1024, max_channels=2, max_samples=60 * 96_000)
SHORTEST = 0.2  # seconds; less holds no word
MOST_CHARACTERS = 500
NAME = "the recording"
_PATH = re.compile(r"(?:[A-Za-z]:)?[\\/](?:[^\s\\/:;,'\"()]+[\\/])+[^\s\\/:;,'\"()]*")


def take(path: str, sample_rate: int) -> Tensor:
    """Read an upload, and delete it whatever comes of it.

    Arguments
    ---------
    path : str
        Of the uploaded file.
    sample_rate : int
        Hz.

    Returns
    -------
    Tensor (samples,)

    Raises
    ------
    AudioError
        If it cannot be used; the message holds no path.
    """
    file = Path(path)
    try:
        waveform = load(file, sample_rate, LIMITS)
    except AudioError as fault:
        raise AudioError(NAME, fault.problem, fault.mend) from None
    finally:
        file.unlink(missing_ok=True)
        # Each upload lies in a folder of its own.
        with suppress(OSError):
            file.parent.rmdir()
    if len(waveform) < SHORTEST * sample_rate:
        problem = f"lasts {len(waveform) / sample_rate:.2f} s, under {SHORTEST:g} s"
        raise AudioError(NAME, problem, "say a few words, and stop recording then")
    return waveform


def typed(words: str | None) -> str:
    """What was typed, without blanks around it.

    Raises
    ------
    DialogueError
        If it is longer than a turn.
    """
    words = " ".join((words or "").split())
    if len(words) > MOST_CHARACTERS:
        problem = f"has {len(words)} characters, over the limit of {MOST_CHARACTERS}"
        raise DialogueError("the text", problem, "say it in several turns")
    return words


def readable(fault: ES4RError) -> str:
    """A fault as a sentence for the page: no path, and no class of an error.

    Example
    -------
    >>> readable(AudioError("/tmp/a/b.wav", "is empty (0 bytes)", "record it again"))
    'Is empty (0 bytes); record it again.'
    >>> readable(AudioError("the recording", "is empty", "record it again"))
    'The recording is empty; record it again.'
    """
    item = fault.item if fault.item == NAME or not _PATH.search(fault.item) else ""
    told = f"{item} {fault.problem}".strip() + (f"; {fault.mend}" if fault.mend else "")
    told = _PATH.sub("a file of the server", told)
    return f"{told[:1].upper()}{told[1:]}."
