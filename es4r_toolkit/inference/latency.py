"""How long a speaker waits: conversations of growing length, each turn timed from its end to the first sound."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from es4r_toolkit.data.audio import save, waveform_of
from es4r_toolkit.errors import require
from es4r_toolkit.inference.responder import EmpathyResponder
from es4r_toolkit.inference.streaming import Timings
from es4r_toolkit.protocols import SpeechSynthesizer

# Something to say, so that a recognizer has words to find; which words changes little.
SAID = (
    "I lost my job this morning, and I do not know how to tell my family about it.",
    "My sister called last night, and we talked about the old house for an hour.",
    "I have been preparing for this exam for weeks, and now they have moved it again.",
    "We finally found a flat with a garden, and we are going to move in next month.",
    "The doctor said that I should rest more, but there is nobody else who can do it.",
)


@dataclass(frozen=True)
class TimedTurn:
    """One turn of a speaker and what it took to answer it.

    Attributes
    ----------
    turns : int
        Turns of the history before it.
    history_seconds : float
        Their speech.
    heard_turns : int
        Turns that the speech encoder's window held, this one among them.
    segments : dict of str to float
        Seconds, of ``Timings``.
    """

    turns: int
    history_seconds: float
    heard_turns: int
    segments: dict[str, float]

    @property
    def to_first_audio(self) -> float:
        """Seconds from the end of the turn to the first sound."""
        return Timings(self.segments).to_first_audio


def spoken_turns(voice: SpeechSynthesizer, sample_rate: int, seconds: float) -> list[Tensor]:
    """Turns of so many seconds in a synthetic voice, (samples,) at ``sample_rate`` Hz."""
    require(seconds > 0, "seconds", seconds, "must be positive")
    turns = []
    for place in range(len(SAID)):
        parts, samples = [], round(seconds * sample_rate)
        while sum(map(len, parts)) < samples:
            sentence = SAID[(place + len(parts)) % len(SAID)]
            parts.append(waveform_of(voice.synthesize(sentence), voice.sample_rate, sample_rate))
        turns.append(torch.cat(parts)[:samples])
    return turns


def time_conversations(
    responder: EmpathyResponder,
    recordings: Sequence[Tensor],
    turns: int,
    conversations: int,
    text: str = "",
    **options: Any,
) -> Iterator[TimedTurn]:
    """Hold conversations and time each turn of theirs.

    Every turn is a file that was never heard before, as from a microphone; the reply becomes part of the history.
    One turn is answered before the first, so that no figure holds what only a process's first reply takes.

    Arguments
    ---------
    responder : EmpathyResponder
    recordings : sequence of Tensor (samples,)
        At the responder's rate; taken in turn.
    turns : int
        Of the speaker, in each conversation.
    conversations : int
    text : str
        The words of every turn; a recognizer writes them down where it is empty.
    options
        Of ``EmpathyResponder.stream``.
    """
    require(turns > 0, "turns", turns, "must be positive")
    require(conversations > 0, "conversations", conversations, "must be positive")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "turn.wav"

        def record(number: int) -> Path:
            # No two alike by a few thousandths of their loudness, or the second would only be looked up.
            save(path, recordings[number % len(recordings)] * (1 - 1e-4 * (number + 1)), responder.sample_rate)
            return path

        responder.conversation().respond(record(0), text, **options)
        for number in range(1, 1 + turns * conversations):
            if number % turns == 1 or turns == 1:
                talk = responder.conversation()
            before, seconds = len(talk), talk.seconds
            response = talk.respond(record(number), text, **options)
            heard = len(response.transcripts) - response.dropped_turns
            yield TimedTurn(before, round(seconds, 3), heard, response.timings)


def summary(timed: Sequence[TimedTurn]) -> dict[str, Any]:
    """Median and 95th percentile (seconds) of each segment and of the whole wait, with every turn.

    Example
    -------
    >>> turns = [TimedTurn(0, 0.0, 1, {"decoding": 0.01, "recognition": wait, "first_audio": 0.1, "rest": 1.0})
    ...          for wait in (0.2, 0.4)]
    >>> found = summary(turns)
    >>> found["segments"]["recognition"], found["to_first_audio"], found["to_first_audio_without_recognition"]
    ({'median': 0.3, 'p95': 0.39}, {'median': 0.41, 'p95': 0.5}, {'median': 0.11, 'p95': 0.11})
    """
    waits = [turn.to_first_audio for turn in timed]
    apart = [wait - turn.segments["recognition"] for wait, turn in zip(waits, timed)]
    return {
        "turns": len(timed),
        "to_first_audio": _middle_and_most(waits),
        "to_first_audio_without_recognition": _middle_and_most(apart),
        "segments": {name: _middle_and_most([turn.segments[name] for turn in timed]) for name in timed[0].segments},
        "each": [{**asdict(turn), "to_first_audio": round(turn.to_first_audio, 4)} for turn in timed],
    }


def _middle_and_most(values: Sequence[float]) -> dict[str, float]:
    return {"median": round(float(np.median(values)), 4), "p95": round(float(np.percentile(values, 95)), 4)}
