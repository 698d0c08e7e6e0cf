"""EspeakSynthesizer: formant speech from espeak-ng, with no weights to download."""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torchaudio.functional import resample

from es4r_toolkit.backends.espeak_process import EspeakProcess
from es4r_toolkit.backends.phonemes import sentences
from es4r_toolkit.errors import BackendError, require
from es4r_toolkit.lobes.energy_strategy import Prosody

logger = logging.getLogger(__name__)

RATES = (80, 450)  # words a minute; espeak-ng's own bounds
PITCHES = (0, 99)
PITCH_RANGES = (0, 99)
VOLUMES = (0, 200)
WORD_GAPS = (0, 500)  # units of 10 ms at the default rate
MAX_CHARACTERS = 10_000  # about ten minutes of speech; bounds the memory a text can claim
PEAK = 0.99
PLAIN = Prosody()
SHORTEST = 0.02  # seconds; a text without words gives 8 ms of silence

# Median F0 over three sentences and ten voices (en-us, its variants f1 f2 f3 f5 m1 m3 Mike steph, en-gb-x-rp) at
# pitch 0, 10, ... 100, in semitones from pitch 50; the voices' standard deviation is at most 0.4 between 30 and
# 80 and 0.9 at the ends.
PITCH_SEMITONES = (-7.15, -5.84, -4.66, -3.18, -1.66, 0.0, 1.69, 3.44, 5.23, 7.16, 8.88)
# A wider pitch range also lifts the median F0, by this share of the voice's own F0 for each point (measured .0027
# to .0034).
LIFT_PER_RANGE_POINT = 0.003

# espeak-ng takes control characters as commands: \x01 starts a change of rate or voice.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class SpokenWord:
    """A word of a text with its punctuation, and when it is said (seconds from the start).

    Two words where espeak-ng says them as one.
    """

    text: str
    start: float
    end: float


class EspeakSynthesizer:
    """Speak a text with espeak-ng (from the wheel ``espeakng_loader``).

    The same text gives the same samples, whatever was spoken before: each
    synthesis is the first of a freshly forked process. All four fields of
    Prosody are honoured: ``rate`` scales the words a minute,
    ``expressiveness`` the pitch range at constant median pitch,
    ``pitch_shift`` moves the median pitch through a measured table, and
    ``energy`` is a gain on the samples, since espeak-ng's own volume is not
    in dB and clips above 100.

    Arguments
    ---------
    voice : str
        A voice of espeak-ng, with ``+variant`` where wished.
    rate : int
        Words a minute, 80 to 450.
    pitch, pitch_range : int
        0 to 99; 50 is the voice's own.
    volume : int
        0 to 200; above 100 loud vowels clip.
    word_gap : int
        Pause between words, in units of 10 ms at the default rate.
    sample_rate : int
        Of the waveforms given (Hz); espeak-ng's own is 22,050.
    time_limit : float
        Seconds that one synthesis may take.

    Raises
    ------
    ConfigError
        If a value breaks its rule.
    BackendError
        When first asked to speak, if the wheel is missing or the voice unknown.

    Example
    -------
    >>> with EspeakSynthesizer() as voice:  # doctest: +SKIP
    ...     waveform = voice.synthesize("I am here.", prosody=Prosody(rate=0.85))
    """

    style_dim = None
    honours = frozenset(field.name for field in fields(Prosody))

    def __init__(
        self,
        voice: str = "en-us",
        rate: int = 160,
        pitch: int = 50,
        pitch_range: int = 50,
        volume: int = 100,
        word_gap: int = 0,
        sample_rate: int = 24000,
        time_limit: float = 30.0,
    ):
        require(sample_rate > 0, "sample_rate", sample_rate, "must be positive (Hz)")
        require(time_limit > 0, "time_limit", time_limit, "must be positive (seconds)")
        _check_parameters(rate, pitch, pitch_range, volume, word_gap)
        self.voice, self.rate, self.pitch, self.pitch_range = voice, rate, pitch, pitch_range
        self.volume, self.word_gap, self.sample_rate, self.time_limit = volume, word_gap, sample_rate, time_limit
        self._espeak = EspeakProcess()

    def style(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """espeak-ng has no style encoder: always a BackendError."""
        raise BackendError("espeak", "has no style encoder", "use StyleTTS2 for the style of a recording")

    def synthesize(self, text: str, style: Tensor | None = None, prosody: Prosody = PLAIN) -> Tensor:
        """Speak a text.

        Arguments
        ---------
        text : str
            Plain text in any script that the voice knows; markup is read out as text.
        style : None
            espeak-ng takes none.
        prosody : Prosody
            Values beyond what espeak-ng can do are brought to its bounds, and logged.

        Returns
        -------
        Tensor (samples,)
            float32 within [-1, 1] at ``sample_rate``. Where the energy asked
            for would clip, the whole waveform is scaled to a peak of 0.99.

        Raises
        ------
        BackendError
            If the text has nothing to say, the voice is unknown or espeak-ng fails.
        """
        return self.timed(text, style, prosody)[0]

    def timed(
        self, text: str, style: Tensor | None = None, prosody: Prosody = PLAIN
    ) -> tuple[Tensor, list[SpokenWord]]:
        """The same, and when each word is said."""
        if style is not None:
            raise BackendError("espeak", "was given a style vector, which it cannot follow", "pass style=None")
        samples, rate, places = self._speak(text, self.voice, **self._parameters(prosody))
        # espeak-ng says some pairs of words, such as "I am", as one.
        places = [*((place, sample) for place, _, sample in places), (len(text), len(samples))]
        words = [
            SpokenWord(text[place:following].strip(), start / rate, end / rate)
            for (place, start), (following, end) in itertools.pairwise(places)
        ]
        waveform = torch.from_numpy(samples.astype(np.float32) / 32768)
        waveform = resample(waveform, rate, self.sample_rate) * 10 ** (prosody.energy / 20)
        peak = float(waveform.abs().max())
        return waveform * (PEAK / peak) if peak > 1 else waveform, words

    def stream(self, text: str, style: Tensor | None = None, prosody: Prosody = PLAIN) -> Iterator[Tensor]:
        """The same, a sentence at a time; each waveform is ready before the next is begun."""
        for sentence in sentences(text):
            yield self.synthesize(sentence, style, prosody)

    def speak(
        self,
        text: str,
        voice: str,
        rate: int = 160,
        pitch: int = 50,
        pitch_range: int = 50,
        volume: int = 100,
        word_gap: int = 0,
    ) -> tuple[np.ndarray, int]:
        """espeak-ng's own samples, for those who build a corpus: (int16 array (samples,), sample rate in Hz)."""
        return self._speak(text, voice, rate, pitch, pitch_range, volume, word_gap)[:2]

    def _speak(
        self, text: str, voice: str, rate: int, pitch: int, pitch_range: int, volume: int, word_gap: int
    ) -> tuple[np.ndarray, int, list[tuple[int, int, int]]]:
        _check_parameters(rate, pitch, pitch_range, volume, word_gap)
        shown = repr(text if len(text) <= 40 else text[:40] + "...")
        if not text.strip():
            raise BackendError(f"text {shown}", "is empty", "give at least one word")
        if len(text) > MAX_CHARACTERS:
            raise BackendError(
                f"text {shown}", f"has {len(text)} characters, more than {MAX_CHARACTERS}", "stream it by sentences"
            )
        request = {
            "text": _CONTROL.sub(" ", text).encode(errors="replace").decode(),
            "voice": voice,
            "rate": rate,
            "pitch": pitch,
            "pitch_range": pitch_range,
            "volume": volume,
            "word_gap": word_gap,
            "seconds": self.time_limit,
        }
        sample_rate, told, body = self._espeak.ask(request)
        samples = np.frombuffer(body, np.int16)
        if len(samples) < SHORTEST * sample_rate:
            raise BackendError(f"text {shown}", f"holds nothing that voice {voice!r} can say", "give at least one word")
        return samples, sample_rate, told["words"]

    @property
    def version(self) -> str:
        """Version of espeak-ng, such as 1.52.0; starts the worker."""
        return self._espeak.version

    def close(self) -> None:
        """End the worker process; the next synthesis starts another."""
        self._espeak.close()

    def __enter__(self) -> EspeakSynthesizer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _parameters(self, prosody: Prosody) -> dict[str, int]:
        for field in fields(prosody):
            value = getattr(prosody, field.name)
            require(math.isfinite(value), f"prosody.{field.name}", value, "must be finite")
        require(prosody.rate > 0, "prosody.rate", prosody.rate, "must be positive")
        require(prosody.expressiveness >= 0, "prosody.expressiveness", prosody.expressiveness, "must not be negative")
        pitch_range = _bounded("pitch range", self.pitch_range * prosody.expressiveness, PITCH_RANGES)
        semitones = pitch_semitones(self.pitch) + prosody.pitch_shift
        pitch = self.pitch
        if prosody.pitch_shift or pitch_range != self.pitch_range:
            pitch = _bounded("pitch", pitch_parameter(semitones, pitch_range - self.pitch_range), PITCHES)
        return {
            "rate": _bounded("rate", self.rate * prosody.rate, RATES),
            "pitch": pitch,
            "pitch_range": pitch_range,
            "volume": self.volume,
            "word_gap": self.word_gap,
        }


def pitch_semitones(pitch: float) -> float:
    """What a pitch parameter does to the median F0, in semitones from the voice's own (measured).

    Example
    -------
    >>> pitch_semitones(80)
    5.23
    """
    return float(np.interp(pitch, np.arange(0, 101, 10), PITCH_SEMITONES))


def pitch_parameter(semitones: float, extra_range: float = 0.0) -> float:
    """The pitch parameter that moves the median F0 by so many semitones.

    Arguments
    ---------
    semitones : float
        From the voice's own median F0; -7 to 8 can be reached.
    extra_range : float
        Points by which the pitch range exceeds that at which the voice's own
        median is meant; their lift is taken back.

    Example
    -------
    >>> pitch_parameter(5.23)
    80.0
    >>> pitch_parameter(0.0, extra_range=40) < 50
    True
    """
    ratio = max(2 ** (semitones / 12) - LIFT_PER_RANGE_POINT * extra_range, 0.1)
    exact = 12 * math.log2(ratio)
    first, last = PITCH_SEMITONES[0], PITCH_SEMITONES[-1]
    if exact < first or exact > last:
        # Beyond the table, follow its end's slope, so that the caller sees how far out of bounds it is.
        edge, slope = (0, PITCH_SEMITONES[1] - first) if exact < first else (100, last - PITCH_SEMITONES[-2])
        return edge + 10 * (exact - (first if exact < first else last)) / slope
    return float(np.interp(exact, PITCH_SEMITONES, np.arange(0, 101, 10)))


def _bounded(name: str, value: float, bounds: tuple[int, int]) -> int:
    kept = min(max(round(value), bounds[0]), bounds[1])
    if not bounds[0] - 0.5 <= value <= bounds[1] + 0.5:
        logger.warning("espeak: %s %.0f is beyond %d to %d; %d is used", name, value, *bounds, kept)
    return kept


def _check_parameters(rate: int, pitch: int, pitch_range: int, volume: int, word_gap: int) -> None:
    named = {
        "rate": (rate, RATES),
        "pitch": (pitch, PITCHES),
        "pitch_range": (pitch_range, PITCH_RANGES),
        "volume": (volume, VOLUMES),
        "word_gap": (word_gap, WORD_GAPS),
    }
    for name, (value, (low, high)) in named.items():
        rule = f"must be a whole number from {low} to {high}"
        require(isinstance(value, int) and not isinstance(value, bool), name, value, rule)
        require(low <= value <= high, name, value, rule)
