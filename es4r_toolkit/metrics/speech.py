"""Speech of a system's replies: word errors, rate, pitch, loudness, and whether they follow the strategy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from es4r_toolkit.data.recordings import Progress, unseen
from es4r_toolkit.data.replies import read_replies
from es4r_toolkit.errors import ES4RError
from es4r_toolkit.metrics.bootstrap import Bootstrap
from es4r_toolkit.metrics.hearing import HeardReply, Instruments, hear_replies
from es4r_toolkit.metrics.prosody_agreement import prosody_agreement


def _alike(reply: HeardReply) -> float:
    return 1.0


@dataclass(frozen=True)
class Figure:
    """Something that is measured of replies; many have the weighted mean of those that have it.

    Attributes
    ----------
    title, unit : str
        As a reader sees them; ``{recognizer}`` in a unit stands for who heard.
    amount : callable
        HeardReply -> what it adds, or None.
    digits : int
        Decimal places that say enough.
    weight : callable
        HeardReply -> what that is divided by.
    """

    title: str
    unit: str
    amount: Callable[[HeardReply], float | None]
    digits: int = 2
    weight: Callable[[HeardReply], float] = _alike

    def of(self, reply: HeardReply) -> float | None:
        """That of one reply."""
        amount, weight = self.amount(reply), self.weight(reply)
        return None if amount is None or not weight else amount / weight

    def columns(self, replies: Iterable[HeardReply]) -> tuple[np.ndarray, np.ndarray]:
        """Amounts (N,), NaN where there is none, and weights (N,)."""
        rows = [(self.amount(reply), self.weight(reply)) for reply in replies]
        amounts, weights = zip(*rows)
        return np.array(amounts, dtype=float), np.array(weights, dtype=float)


# By the key of metrics.json.
FIGURES = {
    "wer": Figure(
        "word errors",
        "errors for a word, heard by {recognizer}",
        lambda reply: reply.errors,
        digits=3,
        weight=lambda reply: reply.words,
    ),
    "seconds": Figure("length", "s a reply", lambda reply: reply.prosody.seconds),
    "words_per_second": Figure("rate", "words/s", lambda reply: reply.words_per_second),
    "f0": Figure("median F0", "Hz", lambda reply: reply.prosody.f0, digits=1),
    "f0_range": Figure("F0 range", "semitones", lambda reply: reply.prosody.f0_range, digits=1),
    "voiced": Figure("voiced", "share with a pitch", lambda reply: reply.prosody.voiced),
    "level": Figure("level", "dB of full scale", lambda reply: reply.prosody.level, digits=1),
    "level_range": Figure("level range", "dB", lambda reply: reply.prosody.level_range, digits=1),
    "mos": Figure("opinion", "predicted mean opinion score", lambda reply: reply.mos),
}
BY_STRATEGY = ("words_per_second", "f0", "f0_range", "level")


@dataclass(frozen=True)
class SpeechEvaluation:
    """How a system speaks.

    Attributes
    ----------
    metrics : dict
        ``heard`` and ``rejected`` (counts); ``wer``; ``seconds``, ``words_per_second``, ``f0`` (Hz), ``f0_range``
        (semitones), ``voiced`` (share), ``level`` and ``level_range`` (dB), ``mos``, each the mean over replies;
        ``interval`` of each; ``agreement`` by field of Prosody; ``by_strategy``.
    replies : list of HeardReply
    rejected : list of ES4RError
        One for each reply left out.
    notes : list of str
        What a reader should know of the figures that are not there.
    """

    metrics: dict[str, object]
    replies: list[HeardReply]
    rejected: list[ES4RError]
    notes: list[str]


def evaluate_speech(
    source: str | Path, instruments: Instruments, workers: int = 0, progress: Progress = unseen
) -> SpeechEvaluation:
    """Measure the speech of a system's replies.

    Arguments
    ---------
    source : str or Path
        A folder that `es4r respond` wrote, or a .jsonl file of ``{id, response, audio_path}`` records.
    instruments : Instruments
        What hears them.
    workers : int
        How many processes; 0 is one for each core.
    progress : callable
        As ``hear_replies`` takes it.

    Raises
    ------
    DialogueError
        If the source as a whole cannot be read.
    BackendError
        If an instrument is missing.
    """
    replies, unread = read_replies(source)
    heard, unheard = hear_replies(replies, instruments, workers, progress)
    metrics: dict[str, object] = {"heard": len(heard), "rejected": len(unread) + len(unheard)}
    if not heard:
        return SpeechEvaluation(metrics, heard, [*unread, *unheard], ["no reply could be heard"])
    bootstrap = Bootstrap(len(heard))
    intervals: dict[str, tuple[float, float]] = {}
    for name, figure in FIGURES.items():
        amounts, weights = figure.columns(heard)
        (found,) = weighted_means(np.ones((1, len(heard))), amounts, weights)
        if np.isfinite(found):
            drawn = weighted_means(bootstrap.counts, amounts, weights)
            metrics[name] = float(found)
            intervals[name] = bootstrap.quantiles(drawn[np.isfinite(drawn)])
    notes = _missing(heard)
    metrics["interval"] = {name: [round(end, 4) for end in interval] for name, interval in intervals.items()}
    agreements, more = prosody_agreement(heard)
    metrics["agreement"] = {name: agreement.as_dict() for name, agreement in agreements.items()}
    metrics["by_strategy"] = _by_strategy(heard)
    return SpeechEvaluation(metrics, heard, [*unread, *unheard], [*notes, *more])


def weighted_means(counts: np.ndarray, amounts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A figure of each resample; not finite where a resample holds no reply that has it.

    Arguments
    ---------
    counts : array (resamples, N)
        How often each reply is in each resample.
    amounts, weights : array (N,)
        As `Figure.columns` gives them.

    Returns
    -------
    array (resamples,)

    Example
    -------
    >>> weighted_means(np.array([[1, 1, 1], [0, 2, 1]]), np.array([0.0, 3.0, np.nan]), np.array([4.0, 6.0, 1.0]))
    array([0.3, 0.5])
    """
    there = ~np.isnan(amounts)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (counts[:, there] @ amounts[there]) / (counts[:, there] @ weights[there])


def _missing(heard: Sequence[HeardReply]) -> list[str]:
    """Why some replies are in some figures and not in others."""
    silent, toneless = sum(not reply.words for reply in heard), sum(reply.prosody.f0 is None for reply in heard)
    notes = []
    if silent:
        notes.append(f"{silent} replies have no words; what is heard of them counts as errors")
    if toneless:
        notes.append(f"{toneless} replies have less than a tenth of a second of voice, and no F0")
    return notes


def _by_strategy(heard: Sequence[HeardReply]) -> dict[str, dict[str, float | int]]:
    """How many replies chose each strategy, and their mean figures."""
    groups: dict[str, list[HeardReply]] = defaultdict(list)
    for reply in heard:
        if reply.manner is not None:
            groups[reply.manner.strategy].append(reply)
    rows: dict[str, dict[str, float | int]] = {}
    for strategy, replies in sorted(groups.items()):
        rows[strategy] = {"replies": len(replies)}
        for name in BY_STRATEGY:
            values = [value for reply in replies if (value := FIGURES[name].of(reply)) is not None]
            if values:
                rows[strategy][name] = round(float(np.mean(values)), 4)
    return rows
