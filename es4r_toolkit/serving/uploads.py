"""Recordings of a request to waveforms: known by their content, decoded from a private file, kept nowhere."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from es4r_toolkit.data.audio import load, probe
from es4r_toolkit.errors import AudioError
from es4r_toolkit.serving.faults import Fault
from es4r_toolkit.serving.limits import Limits

KNOWN = "WAV, FLAC, OGG and MP3"


class Recording(NamedTuple):
    """A file as it came, under the name that the request has for it: ``audio[0]``, never the client's file name."""

    name: str
    content: bytes


class Uploads:
    """Decodes recordings.

    Arguments
    ---------
    folder : Path
        Holds a recording, under a name of ours and readable by this user alone, while it is decoded.
    sample_rate : int
        That is wanted (Hz).
    limits : Limits
    """

    def __init__(self, folder: Path, sample_rate: int, limits: Limits):
        self.folder, self.sample_rate, self.limits = folder, sample_rate, limits

    def decode(self, recordings: Sequence[Recording]) -> list[Tensor]:
        """Waveforms (samples,) at ``sample_rate``.

        Raises
        ------
        Fault
            If one is of another type, broken or longer than allowed, or all together are.
        """
        left, waveforms = self.limits.seconds, []
        for recording in recordings:
            if not is_known(recording.content):
                raise Fault("media_type", recording.name, f"is none of {KNOWN} by its content", "convert it to WAV")
            waveform = self._decode(recording, left)
            left -= len(waveform) / self.sample_rate
            waveforms.append(waveform)
        return waveforms

    def _decode(self, recording: Recording, left: float) -> Tensor:
        limits = self.limits.of_recording()
        # Python opens it with mode 0600; it is gone when the block ends, however it ends.
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix="turn-") as file:
            file.write(recording.content)
            file.flush()
            try:
                if probe(file.name, limits).seconds > left:
                    problem = f"makes the dialogue longer than {self.limits.seconds:g} s"
                    raise Fault("invalid", recording.name, problem, "leave out the oldest turns")
                return load(file.name, self.sample_rate, limits)
            except AudioError as error:
                # Its item is the path of our file.
                raise Fault("invalid", recording.name, error.problem, "record, cut or convert it again") from None


def is_known(content: bytes) -> bool:
    """Whether a file begins as a WAV, FLAC, OGG or MP3 file does.

    Example
    -------
    >>> is_known(b"RIFF....WAVEfmt "), is_known(b"GIF89a")
    (True, False)
    """
    if content[:4] in (b"RIFF", b"RIFX"):
        return content[8:12] == b"WAVE"
    # An MP3 begins with a tag, or with the eleven set bits of a frame.
    frame = len(content) > 1 and content[0] == 0xFF and content[1] & 0xE0 == 0xE0
    return content[:4] in (b"fLaC", b"OggS") or content[:3] == b"ID3" or frame
