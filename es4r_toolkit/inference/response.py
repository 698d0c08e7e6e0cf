"""Response: one answer, and how it came about."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from es4r_toolkit.data.batch import DialogueBatch
from es4r_toolkit.pipeline import EmpathyPipeline
from es4r_toolkit.stages.generation import Context
from es4r_toolkit.stages.synthesis import SpeechPlan

NOTICE = "The voice is synthetic."


@dataclass(frozen=True)
class Explanation:
    """Where the speech looked in the text (ES4R Eq. 5).

    Attributes
    ----------
    attention : Tensor (L, T)
        Weight of each speech position over the tokens of the text history, mean over heads.
    tokens : list of str (T)
        As the tokenizer writes them.
    turn_of_token : list of int (T)
    turn_of_position : list of int (L)
        Index of the history turn.
    """

    attention: Tensor
    tokens: list[str]
    turn_of_token: list[int]
    turn_of_position: list[int]


@dataclass(frozen=True)
class Response:
    """One answer.

    Attributes
    ----------
    text : str
    plan : SpeechPlan
        Strategy, energies and style weights.
    waveform : Tensor (samples,)
    sample_rate : int
        Hz.
    transcripts : list of dict
        Role, text and source of each history turn: ``transcript``, or the
        name of the recognizer that wrote it down.
    dropped_turns : int
        Oldest turns of the history that the speech encoder's window had no room for.
    timings : dict of str to float
        Seconds by stage: decoding, recognition, understanding, generation,
        synthesis; of a stream, the segments of ``Timings``.
    honours : frozenset of str
        Which parts of the prosody the voice follows.
    explanation : Explanation or None
        Where it was asked for, and the model has such an attention.
    forgotten_turns : int
        Oldest turns that a conversation has let go for good, which are in its history no more.
    cut_off : bool
        Whether the reply reached the language model's ``max_new_tokens`` without a stop token.
    """

    text: str
    plan: SpeechPlan
    waveform: Tensor
    sample_rate: int
    transcripts: list[dict[str, str]]
    dropped_turns: int
    timings: dict[str, float]
    honours: frozenset[str] = frozenset()
    explanation: Explanation | None = None
    forgotten_turns: int = 0
    cut_off: bool = False

    def as_dict(self) -> dict[str, Any]:
        """All but the sound and the explanation, as plain values."""
        return {
            "text": self.text,
            "cut_off": self.cut_off,
            **plan_as_dict(self.plan),
            "honours": sorted(self.honours),
            "transcripts": self.transcripts,
            "dropped_turns": self.dropped_turns,
            "forgotten_turns": self.forgotten_turns,
            "timings": self.timings,
            "notice": NOTICE,
        }


def plan_as_dict(plan: SpeechPlan) -> dict[str, Any]:
    """How a reply is to be spoken, and why, as plain values."""
    strategy = plan.strategy
    return {
        "strategy": strategy.name,
        "strategy_weights": strategy.weights,
        "energy_change": strategy.change,
        "relative_energy_change": strategy.relative_change,
        "prosody": asdict(strategy.prosody),
        "energies": list(plan.energies),
        "style_weights": list(plan.style_weights),
    }


def transcripts_of(batch: DialogueBatch, index: int = 0) -> list[dict[str, str]]:
    """Role, text and source of each history turn of a dialogue of a batch."""
    return [
        {"role": turn.role, "text": turn.text, "source": turn.recognizer or "transcript"}
        for turn in batch.dialogues[index].history
    ]


def dropped_turns(context: Context, index: int = 0) -> int:
    """How many oldest turns of a dialogue of a batch were not heard."""
    return int(context.heard.dropped[index]) if context.heard is not None else 0


def explain(pipeline: EmpathyPipeline, batch: DialogueBatch, context: Context) -> Explanation | None:
    """Where the speech of a batch's one dialogue looked; None where the context holds no attention."""
    if context.attention is None:
        return None
    attention, dropped = context.attention[0], dropped_turns(context)
    turn_of_position = torch.arange(len(attention))
    if not pipeline.understanding.by_turn:
        # Positions of frames run evenly over the turns laid end to end.
        frames = batch.features[1][dropped:].cpu()
        middles = (turn_of_position + 0.5) / len(attention) * frames.sum()
        turn_of_position = torch.searchsorted(frames.cumsum(0), middles, right=True)
    prompt = pipeline.generation.render(batch.dialogues[0].history)
    return Explanation(
        attention.float().cpu(),
        pipeline.generation.render.tokenizer.convert_ids_to_tokens(prompt.history),
        [index for index, turn in enumerate(prompt.turns) for _ in turn],
        (turn_of_position + dropped).tolist(),
    )


class Clock:
    """Seconds between laps, one after another without a gap.

    Example
    -------
    >>> clock = Clock()
    >>> clock.lap("decoding")
    >>> list(clock.laps)
    ['decoding']
    """

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a lap, and begin the next; laps of one name add up."""
        now = time.perf_counter()
        self.laps[name], self._last = round(self.laps.get(name, 0.0) + now - self._last, 4), now
