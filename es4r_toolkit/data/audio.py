"""Safe decoding of recordings: bounded before they are decoded, checked while they are.

torch is imported where it is used, so that a manifest can be checked without waiting for it.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from es4r_toolkit.data.containers import CUT_SHORT, STREAMED_SIZE, begins_as_ogg, check_alone, check_container
from es4r_toolkit.data.files import size_of_file
from es4r_toolkit.data.resampling import resample
from es4r_toolkit.errors import AudioError, require

if TYPE_CHECKING:
    from torch import Tensor

    from es4r_toolkit.dialogue import Turn

logger = logging.getLogger(__name__)

# Only formats in which a file that was cut short can be told from a whole one.
FORMATS = ("WAV", "WAVEX", "AIFF", "FLAC", "OGG", "MP3")
BLOCK = 1 << 16
ROUNDED = 0.1  # seconds by which the stop of a part may pass the end of its file: tables round
# What libsndfile says of a FLAC stream that does not know its length is the largest 64-bit integer.
UNKNOWN_LENGTH = 1 << 62


@dataclass(frozen=True)
class AudioLimits:
    """What a recording may be; everything outside is an error, not a guess.

    Attributes
    ----------
    max_seconds : float
        Longest duration (seconds) of what is decoded; ten minutes is far past any turn of a dialogue.
    max_samples : int
        Most samples of each channel of what is decoded; 2^26 holds ten minutes at 96 kHz, and takes 256 MiB.
    max_bytes : int
        Largest file (bytes) that is decoded whole; 256 MiB holds ten minutes of 48 kHz stereo float.
    max_channels : int
        Most channels (count); they are averaged to one.
    min_sample_rate, max_sample_rate : int
        Range of the sample rate (Hz); below 4 kHz speech cannot be understood, above 384 kHz nothing records.
    max_peak : float
        Largest amplitude (1 is full scale); integers stored as floats reach thousands.

    Raises
    ------
    ConfigError
        If a limit is not positive, or the range of sample rates is empty.
    """

    max_seconds: float = 600.0
    max_samples: int = 1 << 26
    max_bytes: int = 256 * 1024 * 1024
    max_channels: int = 8
    min_sample_rate: int = 4000
    max_sample_rate: int = 384000
    max_peak: float = 16.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require(value > 0, name, value, "must be positive")
        require(
            self.max_bytes < STREAMED_SIZE, "max_bytes", self.max_bytes, f"must be below {STREAMED_SIZE} (about 2 GiB)"
        )
        require(
            self.min_sample_rate <= self.max_sample_rate,
            "min_sample_rate",
            self.min_sample_rate,
            f"must not exceed max_sample_rate {self.max_sample_rate}",
        )


DEFAULT_LIMITS = AudioLimits()


@dataclass(frozen=True)
class AudioInfo:
    """What the header of a recording says.

    Attributes
    ----------
    sample_rate : int
        Hz.
    frames : int
        Samples of each channel.
    channels : int
        Count.
    seconds : float
        Duration.
    first : int
        Where it begins in its file, in samples.
    """

    sample_rate: int
    frames: int
    channels: int
    seconds: float
    first: int = 0


def probe(
    path: str | Path, limits: AudioLimits = DEFAULT_LIMITS, start: float = 0.0, stop: float | None = None
) -> AudioInfo:
    """Read the header of a recording, without decoding it, and hold it against the limits.

    Arguments
    ---------
    path : str or Path
        The recording.
    limits : AudioLimits
        What it may be; of a part of it, the file may be longer and larger.
    start, stop : float
        The part that is asked for (seconds); None is to its end.

    Returns
    -------
    AudioInfo
        Of that part.

    Raises
    ------
    AudioError
        If the file is missing, empty, not audio, cut short, without samples or outside the limits, or ends before
        the part does. A cut MP3 or FLAC file shows only to `decode`; a cut MP3 that declares no length (no Xing
        header) shows to nobody.
    """
    path = Path(path)
    size = size_of_file(path, AudioError, mend="correct the path, or put the recording there")
    if size == 0:
        raise AudioError(path, "is empty (0 bytes)", "copy, download or record it again")
    if size > limits.max_bytes and not (start or stop):
        raise AudioError(path, f"has {size} bytes, over the limit of {limits.max_bytes}", "split it or resample it")
    if path.suffix.lower() == ".raw":
        # soundfile would ask for a sample rate, which nothing in the file tells.
        raise AudioError(path, "is RAW, which has no header", "convert it to WAV or FLAC")
    with _libsndfile_errors(path, "is not audio that can be read"):
        # First, because libsndfile 1.2.2 loses 6 kB of memory with every Ogg file that it cannot open.
        ogg = begins_as_ogg(path)
        if ogg:
            check_container(path, "OGG", size)
        # soundfile.info would ask for much more, at twice the time.
        with _open(path) as header:
            pass
    if header.format not in FORMATS:
        raise AudioError(path, f"is {header.format}, not one of {', '.join(FORMATS)}", "convert it to WAV or FLAC")
    if not ogg:
        check_container(path, header.format, size)
    first, last = _check_header(path, header, limits, start, stop)
    return AudioInfo(header.samplerate, last - first, header.channels, (last - first) / header.samplerate, first)


def decode(
    path: str | Path, limits: AudioLimits = DEFAULT_LIMITS, start: float = 0.0, stop: float | None = None
) -> tuple[np.ndarray, int]:
    """Decode a recording, or the part of it from ``start`` to ``stop`` seconds, to one channel at its own sample rate.

    Returns
    -------
    samples : float32 array (samples,)
        The mean of the channels.
    sample_rate : int
        Hz.

    Raises
    ------
    AudioError
        As `probe`, and if samples are missing, NaN, infinite or beyond the largest amplitude.
    """
    path = Path(path)
    info = probe(path, limits, start, stop)
    samples = np.empty(info.frames, dtype=np.float32)
    done = 0
    with _libsndfile_errors(path, "cannot be decoded"), _open(path) as recording:
        if start == 0 and stop is None:
            check_alone(path, recording.format)
        # Some codecs cannot seek, not even to where they are.
        if info.first:
            recording.seek(info.first)
        while done < info.frames:
            block = recording.read(min(BLOCK, info.frames - done), dtype="float32", always_2d=True)
            if len(block) == 0:
                problem = f"declares {info.frames} frames and holds {done}"
                raise AudioError(path, problem, CUT_SHORT)
            _check_block(path, block, (info.first + done) / info.sample_rate, limits)
            samples[done : done + len(block)] = block.mean(axis=1)
            done += len(block)
    return samples, info.sample_rate


def load(
    path: str | Path,
    sample_rate: int,
    limits: AudioLimits = DEFAULT_LIMITS,
    start: float = 0.0,
    stop: float | None = None,
) -> Tensor:
    """Decode a recording, or a part of it, to one channel at the sample rate that is wanted.

    Arguments
    ---------
    path : str or Path
        A WAV, AIFF, FLAC, OGG or MP3 file.
    sample_rate : int
        Hz; a recording at another rate is resampled.
    limits : AudioLimits
        What the recording may be.
    start, stop : float
        The part that is asked for (seconds); None is to its end.

    Returns
    -------
    float32 Tensor (samples,)
        Amplitudes, 1 being full scale.

    Raises
    ------
    AudioError
        As `decode`.
    ConfigError
        If the sample rate is not a positive whole number.

    Example
    -------
    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/turn.wav", torch.zeros(800), 8000)
    ...     load(f"{folder}/turn.wav", 16000).shape
    torch.Size([1600])
    """
    require(type(sample_rate) is int and sample_rate > 0, "sample_rate", sample_rate, "must be a positive whole number")
    import torch

    samples, own_rate = decode(path, limits, start, stop)
    return resample(torch.from_numpy(samples), own_rate, sample_rate)


def waveform_of(
    samples: Tensor, own_rate: int, sample_rate: int, limits: AudioLimits = DEFAULT_LIMITS, name: str = "the recording"
) -> Tensor:
    """Samples that are in memory already, such as a microphone's, checked as those of a file and resampled.

    Arguments
    ---------
    samples : Tensor (samples,)
        Amplitudes, 1 being full scale.
    own_rate, sample_rate : int
        Hz: theirs, and what is wanted.
    limits : AudioLimits
    name : str
        What an error calls them.

    Returns
    -------
    float32 Tensor (samples,)

    Raises
    ------
    AudioError
        If they are not one channel, none, NaN, infinite, too loud, or outside the limits.
    """
    import torch

    whole = isinstance(own_rate, int) and own_rate > 0
    require(whole, "sample_rate", own_rate, "must be a positive whole number (Hz)")
    array = torch.as_tensor(samples).detach().cpu().float().numpy()
    if array.ndim != 1 or not len(array):
        raise AudioError(name, f"is of shape {array.shape}", "give one channel of at least one sample, (samples,)")
    if not limits.min_sample_rate <= own_rate <= limits.max_sample_rate:
        bounds = f"{limits.min_sample_rate} to {limits.max_sample_rate} Hz"
        raise AudioError(name, f"has a sample rate of {own_rate} Hz, outside {bounds}", "resample it")
    if len(array) / own_rate > limits.max_seconds:
        problem = f"lasts {len(array) / own_rate:.1f} s, over the limit of {limits.max_seconds:g} s"
        raise AudioError(name, problem, "cut it into turns")
    _check_block(name, array, 0.0, limits)
    return resample(torch.from_numpy(array), own_rate, sample_rate)


def load_turn(turn: Turn, sample_rate: int) -> Tensor:
    """The recording of a turn, as `load` gives it: float32 Tensor (samples,)."""
    return load(turn.audio, sample_rate, start=turn.start, stop=turn.stop)


def save(path: str | Path, waveform: Tensor, sample_rate: int) -> None:
    """Write a waveform as 16-bit PCM WAV, whole or not at all.

    The file is written beside its place and renamed, so no reader ever meets half of it. Amplitudes beyond full
    scale are clipped, and a warning in the log counts them.

    Arguments
    ---------
    path : str or Path
        Where to; the folder must exist.
    waveform : Tensor (samples,)
        Amplitudes, 1 being full scale.
    sample_rate : int
        Hz.

    Raises
    ------
    AudioError
        If the waveform is empty, not one-dimensional or not finite, or the file cannot be written.
    ConfigError
        If the sample rate is not a positive whole number.
    """
    path = Path(path)
    require(type(sample_rate) is int and sample_rate > 0, "sample_rate", sample_rate, "must be a positive whole number")
    samples = waveform.detach().to("cpu").float().numpy()
    if samples.ndim != 1 or samples.size == 0:
        raise AudioError(path, f"cannot hold a waveform of shape {samples.shape}", "give it the shape (samples,)")
    if not np.isfinite(samples).all():
        raise AudioError(path, f"would hold {(~np.isfinite(samples)).sum()} NaN or infinite samples", "mend the voice")
    clipped = int((np.abs(samples) > 1).sum())
    if clipped:
        logger.warning("%s: %d of %d samples were beyond full scale and were clipped", path, clipped, samples.size)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        # soundfile clips where it writes integers.
        soundfile.write(str(beside), samples, sample_rate, format="WAV", subtype="PCM_16")
        os.replace(beside, path)
    except (OSError, soundfile.SoundFileError) as error:
        raise AudioError(path, f"cannot be written ({error})", "give a folder that exists and can be written") from None
    finally:
        beside.unlink(missing_ok=True)


def _open(path: Path) -> soundfile.SoundFile:
    # As bytes a name that is not UTF-8 is found too, but not on Windows.
    return soundfile.SoundFile(str(path) if os.name == "nt" else os.fsencode(path))


@contextmanager
def _libsndfile_errors(path: Path, problem: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AudioError(
            path, f"cannot be read ({error.strerror or error})", "make it readable, or put it elsewhere"
        ) from None
    except soundfile.SoundFileError as error:
        # The library repeats the path; what follows its last colon is the reason.
        reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
        mend = f"give a whole WAV, FLAC, OGG, MP3 or AIFF file; if it is one, {CUT_SHORT}"
        raise AudioError(path, f"{problem} ({reason})", mend) from None


def _check_header(path: Path, header: object, limits: AudioLimits, start: float, stop: float | None) -> tuple[int, int]:
    """The first sample of the part that is asked for, and the one after its last."""
    if not limits.min_sample_rate <= header.samplerate <= limits.max_sample_rate:
        bounds = f"{limits.min_sample_rate} to {limits.max_sample_rate} Hz"
        raise AudioError(path, f"has a sample rate of {header.samplerate} Hz, outside {bounds}", "resample it")
    if header.channels > limits.max_channels:
        problem = f"has {header.channels} channels, over the limit of {limits.max_channels}"
        raise AudioError(path, problem, "mix it down to one")
    if header.frames <= 0:
        raise AudioError(path, "has no samples (0 frames)", CUT_SHORT)
    if header.frames >= UNKNOWN_LENGTH:
        raise AudioError(path, "declares no length, as a stream does", "convert it to a file of its own, such as WAV")
    whole = header.frames / header.samplerate
    end = whole if stop is None else stop
    if not 0 <= start < end < math.inf:
        raise AudioError(path, f"has no part from {start:g} to {end:g} s", "give a start before its stop, in seconds")
    if end > whole + ROUNDED:
        raise AudioError(path, f"lasts {whole:.2f} s, and is asked for up to {end:g} s", "correct the stop")
    seconds = min(end, whole) - start
    if seconds > limits.max_seconds:
        problem = f"lasts {seconds:.1f} s, over the limit of {limits.max_seconds:g} s"
        raise AudioError(path, problem, "cut it into turns (start, stop), or raise max_seconds")
    first, last = round(start * header.samplerate), min(header.frames, round(end * header.samplerate))
    if last - first > limits.max_samples:
        problem = f"has {last - first} samples in each channel, over the limit of {limits.max_samples}"
        raise AudioError(path, problem, "resample it, or cut it into turns (start, stop)")
    if last <= first:
        raise AudioError(path, f"has no sample from {start:g} to {end:g} s", "give a longer part")
    return first, last


def _check_block(path: Path | str, block: np.ndarray, start: float, limits: AudioLimits) -> None:
    finite = np.isfinite(block)
    if not finite.all():
        problem = f"has {(~finite).sum()} NaN or infinite samples in the block from {start:.2f} s"
        raise AudioError(path, problem, "record or convert it again")
    peak = float(np.abs(block).max())
    if peak > limits.max_peak:
        problem = f"reaches amplitude {peak:g}, over the limit of {limits.max_peak:g} (1 is full scale)"
        raise AudioError(path, problem, "scale it to [-1, 1]; integers stored as floats want dividing by 32768")
