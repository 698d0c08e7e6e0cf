"""What the recordings of a manifest are: each looked at once, on all cores where there are many."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from es4r_toolkit.data import audio
from es4r_toolkit.errors import AudioError

# A file, and the part of it that is a turn (seconds): from, and to; None is to its end.
Part = tuple[Path, float, float | None]
Progress = Callable[..., Iterable]

FULL_SCALE = 0.999  # where samples count as clipped: converters seldom reach 1 itself
BATCH = 128
FEWEST = 2 * BATCH  # below, another process costs more than it brings


def unseen(items: Iterable, **_: object) -> Iterable:
    """The progress that shows nothing."""
    return items


@dataclass(frozen=True)
class Recording:
    """A recording, or the part of it that is a turn.

    Attributes
    ----------
    seconds : float
        Its duration.
    sample_rate : int
        Hz.
    channels : int
        Count.
    level : float or None
        Root mean square (dB below full scale, so at most about 0; -inf for digital silence); None where it was not
        decoded.
    clipped : float or None
        Share of its samples at full scale, in [0, 1]; None where it was not decoded.
    """

    seconds: float
    sample_rate: int
    channels: int
    level: float | None = None
    clipped: float | None = None


def examine(part: Part, limits: audio.AudioLimits, decode: bool) -> Recording:
    """Read the header of a recording, and its samples too where they are to be decoded.

    Raises
    ------
    AudioError
        As `es4r_toolkit.data.audio.probe`, and `decode` where samples are.
    """
    path, start, stop = part
    header = audio.probe(path, limits, start, stop)
    if not decode:
        return Recording(header.seconds, header.sample_rate, header.channels)
    samples, _ = audio.decode(path, limits, start, stop)
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    level = 10 * math.log10(power) if power > 0 else -math.inf
    clipped = float(np.mean(np.abs(samples) >= FULL_SCALE))
    return Recording(header.seconds, header.sample_rate, header.channels, level, clipped)


class Recordings:
    """Recordings by part, examined when they are first asked for or, many at once, beforehand.

    Arguments
    ---------
    limits : AudioLimits
        What a recording may be.
    decode : bool
        Whether samples are read too.

    Attributes
    ----------
    found : dict
        Those examined so far.
    """

    def __init__(self, limits: audio.AudioLimits = audio.DEFAULT_LIMITS, decode: bool = False):
        self.limits, self.decode = limits, decode
        self.found: dict[Part, Recording | AudioError] = {}

    def __getitem__(self, part: Part) -> Recording | AudioError:
        if part not in self.found:
            self.found[part] = _examined(part, self.limits, self.decode)
        return self.found[part]

    def examine(self, parts: Iterable[Part], workers: int = 0, progress: Progress = unseen) -> None:
        """Examine many.

        Arguments
        ---------
        parts : iterable of Part
            Those that are not known yet are looked at.
        workers : int
            How many processes; 0 is one for each core.
        progress : callable
            Wraps an iterable, given ``unit`` and ``total`` too, to show how far it is.
        """
        waiting = [part for part in dict.fromkeys(parts) if part not in self.found]
        batches = [waiting[first : first + BATCH] for first in range(0, len(waiting), BATCH)]
        workers = workers or os.cpu_count() or 1
        if workers == 1 or len(waiting) < FEWEST:
            for part in progress(waiting, unit="recording", total=len(waiting)):
                self.found[part] = _examined(part, self.limits, self.decode)
            return
        # Not forked: a process that shows progress has threads.
        context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            futures = [pool.submit(_examine_batch, _plain(batch), self.limits, self.decode) for batch in batches]
            results = progress(_one_by_one(futures), unit="recording", total=len(waiting))
            for part, found in zip(waiting, results, strict=True):
                self.found[part] = found


def _examined(part: Part, limits: audio.AudioLimits, decode: bool) -> Recording | AudioError:
    try:
        return examine(part, limits, decode)
    except AudioError as fault:
        return fault


# Between processes go plain values: a Path or a Recording takes longer to send than a header to read.


def _plain(parts: Sequence[Part]) -> list[tuple[str, float, float | None]]:
    return [(str(path), start, stop) for path, start, stop in parts]


def _examine_batch(
    parts: Sequence[tuple[str, float, float | None]], limits: audio.AudioLimits, decode: bool
) -> list[tuple | AudioError]:
    found = (_examined((Path(path), start, stop), limits, decode) for path, start, stop in parts)
    return [one if isinstance(one, AudioError) else tuple(vars(one).values()) for one in found]


def _one_by_one(futures: Iterable[Future]) -> Iterator[Recording | AudioError]:
    for future in futures:
        for one in future.result():
            yield one if isinstance(one, AudioError) else Recording(*one)
