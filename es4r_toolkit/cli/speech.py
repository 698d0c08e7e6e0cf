"""What es4r evaluate measures of speech: of one system, or of two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from es4r_toolkit.cli.printing import complain, progress

if TYPE_CHECKING:
    from es4r_toolkit.errors import ES4RError
    from es4r_toolkit.metrics.hearing import HeardReply, Instruments
    from es4r_toolkit.metrics.speech import SpeechEvaluation
    from es4r_toolkit.protocols import Recognizer

POCKETSPHINX, NOBODY = "pocketsphinx", "none"


@dataclass(frozen=True)
class Listening:
    """Who hears, and how.

    Attributes
    ----------
    recognizer : str
        ``pocketsphinx``, ``none``, or a Whisper (folder or hub name).
    language : str or None
        What the Whisper hears.
    mos : Path or None
        A model of opinion scores.
    trust_remote_code : bool
        Whether the program in it may run.
    workers : int or None
        Processes.
    device : str
    """

    recognizer: str
    language: str | None
    mos: Path | None
    trust_remote_code: bool
    workers: int | None
    device: str

    def hear(self, source: Path) -> SpeechEvaluation:
        """Measure what one system spoke."""
        from es4r_toolkit.metrics.speech import evaluate_speech

        # Models of torch share the cores among themselves.
        alone = self.mos is not None or self.recognizer not in (POCKETSPHINX, NOBODY)
        found = evaluate_speech(source, self._instruments(), self.workers or int(alone), progress)
        if self.recognizer != NOBODY:
            heard_by = self.recognizer if self.language is None else f"{self.recognizer} ({self.language})"
            found.metrics["recognizer"] = heard_by
        return found

    def _instruments(self) -> Instruments:
        from es4r_toolkit.metrics.hearing import Instruments

        listener: Callable[[], Recognizer] | None = None
        opinion = None
        if self.recognizer == POCKETSPHINX:
            from es4r_toolkit.backends.pocketsphinx_asr import PocketsphinxRecognizer

            listener = PocketsphinxRecognizer
        elif self.recognizer != NOBODY:
            listener = partial(_whisper, self.recognizer, self.language, self.device)
        if self.mos is not None:
            from es4r_toolkit.backends.mos import MosModel

            opinion = partial(MosModel, self.mos, self.trust_remote_code, self.device)
        return Instruments(listener, opinion)


@dataclass
class Spoken:
    """What was measured.

    Attributes
    ----------
    metrics : dict
        ``speech``; of another system ``other_speech``, and ``speech_comparison`` of both.
    notes : list of str
    rejected : list of ES4RError
        Replies left out, of the first system.
    replies : dict of Path to list of HeardReply
        Where a system's speech is -> what was heard; no system of which nothing was.
    """

    metrics: dict[str, object]
    notes: list[str]
    rejected: list[ES4RError]
    replies: dict[Path, list[HeardReply]] = field(default_factory=dict)


def hear_systems(listening: Listening, speech: Path, compare: Path | None, compare_speech: Path | None) -> Spoken:
    """Measure one system, and another beside it where it has speech.

    Arguments
    ---------
    listening : Listening
    speech : Path
        Where its speech is: a folder of es4r respond, or a file with audio_path.
    compare : Path or None
        The other's predictions, which may have speech beside them.
    compare_speech : Path or None
        Where the other's speech is.
    """
    first = listening.hear(speech)
    for fault in first.rejected:
        complain(fault)
    spoken = Spoken({"speech": first.metrics}, [*first.notes], first.rejected)
    if not first.replies:
        return spoken
    spoken.replies[speech] = first.replies
    if compare_speech is None and compare is not None:
        if _speaks(compare):
            compare_speech = compare
        else:
            spoken.notes.append(f"speech is not compared: none lies beside {compare}; name it with --compare-speech")
    if compare_speech is not None:
        _compare(spoken, first, listening.hear(compare_speech), compare_speech)
    return spoken


def _speaks(predictions: Path) -> bool:
    from es4r_toolkit.data.replies import read_replies

    replies, _ = read_replies(predictions)
    return any(reply.audio is not None for reply in replies)


def _compare(spoken: Spoken, first: SpeechEvaluation, second: SpeechEvaluation, source: Path) -> None:
    from es4r_toolkit.metrics.comparison import unpaired
    from es4r_toolkit.metrics.speech_comparison import compare_speech

    spoken.notes += [f"{source}: {note}" for note in second.notes]
    if second.rejected:
        spoken.notes.append(f"{source}: replies left out: {len(second.rejected)}, the first: {second.rejected[0]}")
    if not second.replies:
        return
    found = compare_speech(first.replies, second.replies)
    spoken.notes += unpaired({"the speech of this system": found.only_first, str(source): found.only_second})
    spoken.metrics["other_speech"] = second.metrics
    spoken.metrics["speech_comparison"] = {"other": str(source), **found.as_dict()}
    spoken.replies[source] = second.replies


def _whisper(source: str, language: str | None, device: str) -> Recognizer:
    from es4r_toolkit.backends.whisper_asr import WhisperRecognizer

    return WhisperRecognizer(source, language).to(device)
