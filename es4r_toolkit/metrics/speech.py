"""Speech of a system's replies: word errors, rate, pitch, loudness, and whether they follow the strategy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from es4r_toolkit.data.recordings import Progress, unseen
from es4r_toolkit.data.replies import read_replies
from es4r_toolkit.errors import ES4RError
from es4r_toolkit.metrics.bootstrap import Bootstrap
from es4r_toolkit.metrics.hearing import HeardReply, Instruments, hear_replies
from es4r_toolkit.metrics.prosody_agreement import prosody_agreement

# Key of metrics.json -> what a reply has of it; the corpus has the mean of those that have it.
FIGURES: dict[str, Callable[[HeardReply], float | None]] = {
    "seconds": lambda reply: reply.prosody.seconds,
    "words_per_second": lambda reply: reply.words_per_second,
    "f0": lambda reply: reply.prosody.f0,
    "f0_range": lambda reply: reply.prosody.f0_range,
    "voiced": lambda reply: reply.prosody.voiced,
    "level": lambda reply: reply.prosody.level,
    "level_range": lambda reply: reply.prosody.level_range,
    "mos": lambda reply: reply.mos,
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
    words, notes = np.array([reply.words for reply in heard]), []
    if instruments.recognizer is not None and words.any():
        errors = np.array([reply.errors for reply in heard])
        metrics["wer"] = float(errors.sum() / words.sum())
        drawn = (bootstrap.counts @ errors) / np.maximum(bootstrap.counts @ words, 1)
        intervals["wer"] = bootstrap.quantiles(drawn)
    if not words.all():
        notes.append(f"{int((words == 0).sum())} replies have no words; what is heard of them counts as errors")
    for name, figure in FIGURES.items():
        values = [figure(reply) for reply in heard]
        present = [value is not None for value in values]
        if any(present):
            filled = [0.0 if value is None else value for value in values]
            metrics[name] = float(np.mean([value for value in values if value is not None]))
            intervals[name] = bootstrap.mean(filled, present)
        if name == "f0" and not all(present):
            notes.append(f"{present.count(False)} replies have less than a tenth of a second of voice, and no F0")
    metrics["interval"] = {name: [round(end, 4) for end in interval] for name, interval in intervals.items()}
    agreements, more = prosody_agreement(heard)
    metrics["agreement"] = {name: agreement.as_dict() for name, agreement in agreements.items()}
    metrics["by_strategy"] = _by_strategy(heard)
    return SpeechEvaluation(metrics, heard, [*unread, *unheard], [*notes, *more])


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
            values = [value for reply in replies if (value := FIGURES[name](reply)) is not None]
            if values:
                rows[strategy][name] = round(float(np.mean(values)), 4)
    return rows
