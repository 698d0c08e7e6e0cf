"""What would hurt in training though each dialogue is sound: leaks between splits, clipping, silence, odd lengths."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from es4r_toolkit.data.manifest import ManifestReport
from es4r_toolkit.data.recordings import Part, Recording
from es4r_toolkit.data.records import Rejection
from es4r_toolkit.dialogue import Dialogue, Turn

CORPUS = "corpus"


@dataclass(frozen=True)
class InspectionLimits:
    """Where a recording is worth a look; all ours.

    Attributes
    ----------
    window : float
        What the encoder holds of a dialogue (seconds): Whisper's 30, eight times downsampled, as in the recipes.
    turn_window : float
        What encoders that hear turns one by one hold of one (seconds).
    shortest : float
        Shorter (seconds) is no utterance.
    clipped : float
        Share of samples at full scale.
    silent : float
        Level (dB below full scale).
    sample_rate : int
        Hz; what is recorded at a lower one lacks the consonants above half of it.
    """

    window: float = 240.0
    turn_window: float = 30.0
    shortest: float = 0.1
    clipped: float = 0.001
    silent: float = -60.0
    sample_rate: int = 16000


DEFAULT_LIMITS = InspectionLimits()


@dataclass(frozen=True)
class Remark:
    """What is odd about a dialogue that stays, or about the corpus.

    Attributes
    ----------
    item : str
        The dialogue's id; ``corpus`` where it is of the whole.
    kind : str
        The same words for like remarks.
    seen : str
        Where, with the value seen.
    mend : str
        What it does to training, or what to do about it.
    """

    item: str
    kind: str
    seen: str
    mend: str


def by_kind(problems: Sequence[Rejection] | Sequence[Remark]) -> list[tuple[str, list]]:
    """Like problems together, the commonest first.

    Example
    -------
    >>> [(kind, len(own)) for kind, own in by_kind([Remark("7", "a turn is very short", "lasts 0.02 s", "")])]
    [('a turn is very short', 1)]
    """
    kinds: dict[str, list] = defaultdict(list)
    for problem in problems:
        kinds[problem.kind].append(problem)
    return sorted(kinds.items(), key=lambda kind: len(kind[1]), reverse=True)


@dataclass
class Corpus:
    """The size of a corpus in figures, each a value for every dialogue or turn.

    Attributes
    ----------
    turns, dialogue_seconds : list
        Of each dialogue: turns of its history and its reply; how long its history lasts.
    words, seconds, levels : list
        Of each turn: words of its text; duration (seconds); level (dB below full scale), where it was decoded. A turn
        that stands in several histories of one conversation counts once.
    splits, emotions, speakers : Counter
        Dialogues of each split; turns of each emotion and speaker, where the corpus names them.
    """

    turns: list[int] = field(default_factory=list)
    dialogue_seconds: list[float] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)
    splits: Counter[str] = field(default_factory=Counter)
    emotions: Counter[str] = field(default_factory=Counter)
    speakers: Counter[str] = field(default_factory=Counter)


def measure(reports: Mapping[str, ManifestReport]) -> Corpus:
    """The figures of one or several manifests, by the name of the split that each is where it names none itself."""
    corpus = Corpus()
    seen: set[object] = set()
    for name, report in reports.items():
        for dialogue in report.dialogues:
            corpus.splits[dialogue.split or name] += 1
            corpus.turns.append(len(dialogue) + (dialogue.response is not None))
            if report.recordings:
                corpus.dialogue_seconds.append(report.seconds(dialogue))
            for turn in _turns(dialogue):
                part = _part(turn)
                # Without a recording nothing tells a turn from another of the same words.
                if part is not None and part in seen:
                    continue
                seen.add(part)
                corpus.words.append(len(turn.text.split()))
                if turn.emotion is not None:
                    corpus.emotions[turn.emotion] += 1
                if turn.speaker_id is not None:
                    corpus.speakers[turn.speaker_id] += 1
                if part is not None and (recording := report.recordings.get(part)) is not None:
                    corpus.seconds.append(recording.seconds)
                    if recording.level is not None:
                        corpus.levels.append(recording.level)
    return corpus


def inspect(reports: Mapping[str, ManifestReport], limits: InspectionLimits = DEFAULT_LIMITS) -> list[Remark]:
    """What is odd about the good dialogues of one or several manifests, whose names are the splits they stand for.

    Example
    -------
    >>> from pathlib import Path
    >>> from es4r_toolkit.data.recordings import Recording
    >>> dialogue = Dialogue("7", (Turn("speaker", "Hm.", Path("a.wav")),))
    >>> found = {(Path("a.wav"), 0.0, None): Recording(0.05, 16000, 1)}
    >>> inspect({"train": ManifestReport([dialogue], [], recordings=found)})[0].kind
    'a turn is very short'
    """
    remarks: list[Remark] = []
    seen: set[Part] = set()
    for report in reports.values():
        if report.recordings:
            for dialogue in report.dialogues:
                remarks += _of_dialogue(dialogue, report, limits, seen)
    return remarks + list(_leaks(reports))


def _of_dialogue(
    dialogue: Dialogue, report: ManifestReport, limits: InspectionLimits, seen: set[Part]
) -> Iterator[Remark]:
    """Remarks on a dialogue, and on those of its recordings that were not seen in another."""
    lasts = report.seconds(dialogue)
    if lasts > limits.window:
        yield Remark(
            dialogue.id,
            "a dialogue is longer than the encoder's window",
            f"its history lasts {lasts:.1f} s, more than {limits.window:g}",
            "its oldest turns are left out, and counted; cut the history, or take a larger window",
        )
    for place, turn in enumerate(_turns(dialogue)):
        part = _part(turn)
        recording = report.recordings.get(part)
        if recording is not None and part not in seen:
            seen.add(part)
            for kind, found, mend in _of_recording(recording, limits):
                name = "response" if turn is dialogue.response else f"dialogue_history[{place}]"
                yield Remark(dialogue.id, kind, f"{name} ({turn.audio.name}) {found}", mend)


def _of_recording(recording: Recording, limits: InspectionLimits) -> Iterator[tuple[str, str, str]]:
    if recording.seconds < limits.shortest:
        yield "a turn is very short", f"lasts {recording.seconds:.3f} s", "look whether its times are right"
    if recording.seconds > limits.turn_window:
        yield (
            "a turn is very long",
            f"lasts {recording.seconds:.1f} s, more than {limits.turn_window:g}",
            "cut it; encoders that hear turns one by one (placement: inject, WavLM) cannot hold it",
        )
    if recording.sample_rate < limits.sample_rate:
        yield (
            "a recording's sample rate is low",
            f"is recorded at {recording.sample_rate} Hz",
            "it is resampled; take the original where there is a better one, and do not mix both",
        )
    if recording.clipped is not None and recording.clipped > limits.clipped:
        yield (
            "a recording clips",
            f"is at full scale in {100 * recording.clipped:.1f} % of its samples",
            "record it lower; its energy, which chooses the strategy, is not what was spoken",
        )
    if recording.level is not None and recording.level < limits.silent:
        yield (
            "a recording is silent",
            "is digital silence" if recording.level == -math.inf else f"has a level of {recording.level:.1f} dB",
            "look whether the microphone was on; nothing can be heard in it",
        )


def _leaks(reports: Mapping[str, ManifestReport]) -> Iterator[Remark]:
    """Speakers, recordings and dialogues that stand in more than one split."""
    speakers, recordings, dialogues = (defaultdict(set) for _ in range(3))
    for name, report in reports.items():
        for dialogue in report.dialogues:
            split = dialogue.split or name
            # A second file may hold the same dialogue under the same split's name.
            dialogues[dialogue.id].add(split)
            for turn in _turns(dialogue):
                if turn.speaker_id is not None:
                    speakers[turn.speaker_id].add(split)
                if turn.audio is not None:
                    recordings[turn.audio].add(split)
    kinds = (
        ("a speaker is in several splits", speakers, "scores will be of voices that training heard"),
        ("a recording is in several splits", recordings, "scores will be of what training heard"),
        ("a dialogue is in several splits", dialogues, "give each dialogue one split, and its own id"),
    )
    for kind, found, mend in kinds:
        for item, splits in found.items():
            if len(splits) > 1:
                yield Remark(CORPUS, kind, f"{item} is in {', '.join(sorted(splits))}", mend)


def _turns(dialogue: Dialogue) -> Sequence[Turn]:
    return dialogue.history if dialogue.response is None else (*dialogue.history, dialogue.response)


def _part(turn: Turn) -> Part | None:
    return None if turn.audio is None else (turn.audio, turn.start, turn.stop)
