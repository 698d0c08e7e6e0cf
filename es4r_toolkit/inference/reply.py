"""Reply: one answer written word by word, and spoken piece by piece."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, Protocol

import torch

from es4r_toolkit.data.batch import DialogueBatch
from es4r_toolkit.errors import ContextError
from es4r_toolkit.inference.model import History, SharedModel
from es4r_toolkit.inference.pieces import GrowingText, Pieces
from es4r_toolkit.inference.response import Clock, Response, dropped_turns, explain, transcripts_of
from es4r_toolkit.inference.streaming import AudioChunk, End, Event, Strategy, TextDelta, Timings, Transcript
from es4r_toolkit.stages.generation import Context
from es4r_toolkit.stages.synthesis import SpeechPlan


class Source(Protocol):
    """Where the history of a reply comes from."""

    def batch(self, clock: Clock) -> DialogueBatch:
        """The history, heard."""
        ...

    def shorter(self) -> DialogueBatch | None:
        """The same without its oldest turns; None where it must be answered whole."""
        ...

    @property
    def forgotten(self) -> int:
        """How many oldest turns were let go."""
        ...


class WholeDialogue:
    """A dialogue that is answered whole, or not."""

    forgotten = 0

    def __init__(self, model: SharedModel, history: History):
        self.model, self.history = model, history

    def batch(self, clock: Clock) -> DialogueBatch:
        """The history, heard."""
        return self.model.listen([self.history], clock)

    def shorter(self) -> None:
        """It is not cut."""


class Reply:
    """The work of a ReplyStream.

    Arguments
    ---------
    model : SharedModel
    source : Source
    strategy : str, optional
        How to speak, whatever the energies say.
    unit : str
        ``sentence`` or ``clause``: what the voice waits for.
    explained : bool
        Also tell where the speech looked in the text.
    options
        Of ``EmpatheticGeneration.stream``.
    """

    def __init__(
        self,
        model: SharedModel,
        source: Source,
        strategy: str | None = None,
        unit: str = "sentence",
        explained: bool = False,
        **options: Any,
    ):
        self.model, self.source, self.strategy = model, source, strategy
        self.explained, self.options = explained, options
        self.pieces = Pieces(unit)
        self.clock = Clock()
        self.spoken: list[AudioChunk] = []
        self.plan: SpeechPlan | None = None

    @property
    def is_understood(self) -> bool:
        """Whether the history was heard, and answering it has begun."""
        return self.plan is not None

    def write(self) -> Generator[Event | str]:
        """Hear, decide, and write; as ``str`` each piece that can be spoken."""
        pipeline = self.model.pipeline
        batch = self.source.batch(self.clock)
        for place, line in enumerate(transcripts_of(batch)):
            yield Transcript(place, **line)
        batch, context = self._context(batch)
        with self.model.computing():
            (plan,) = pipeline.plan(batch, self.strategy)
            self.why = explain(pipeline, batch, context) if self.explained else None
        self.transcripts, self.dropped = transcripts_of(batch), dropped_turns(context)
        self.clock.lap("understanding")
        self.plan = plan
        yield Strategy(plan)
        yield from self._written(context)

    def speak(self, piece: str) -> AudioChunk:
        """Speak a piece of the reply."""
        waveform = self.model.speak(piece, self.plan)
        if not self.spoken:
            self.clock.lap("first_audio")
        self.spoken.append(AudioChunk(piece, waveform, self.model.pipeline.synthesis.voice.sample_rate))
        return self.spoken[-1]

    def end(self) -> Iterator[Event]:
        """How long it took, and the whole."""
        self.clock.lap("rest")
        yield Timings(dict(self.clock.laps))
        voice = self.model.pipeline.synthesis.voice
        yield End(
            Response(
                self.text.whole,
                self.plan,
                torch.cat([chunk.waveform for chunk in self.spoken]),
                voice.sample_rate,
                self.transcripts,
                self.dropped,
                dict(self.clock.laps),
                voice.honours,
                self.why,
                self.source.forgotten,
                self.cut_off,
            )
        )

    def _context(self, batch: DialogueBatch) -> tuple[DialogueBatch, Context]:
        while True:
            try:
                with self.model.computing():
                    return batch, self.model.pipeline.context(batch, return_attention=self.explained)
            except ContextError:
                if (batch := self.source.shorter()) is None:
                    raise

    def _written(self, context: Context) -> Generator[Event | str]:
        generation = self.model.pipeline.generation
        tokens = generation.stream(context, **self.options)
        self.text = GrowingText(generation.render.text)
        while (token := self._next(tokens)) is not None:
            yield from self._gained(self.text.add(token))
        self.cut_off = generation.cuts_off(len(self.text.ids))
        yield from self._gained(self.text.rest(), last=True)

    def _next(self, tokens: Iterator[int]) -> int | None:
        with self.model.computing():
            token = next(tokens, None)
        if "first_token" not in self.clock.laps:
            self.clock.lap("first_token")
        return token

    def _gained(self, text: str, last: bool = False) -> Generator[Event | str]:
        if text:
            yield TextDelta(text)
        whole = self.pieces.add(text)
        for piece in [*whole, *self.pieces.rest()] if last else whole:
            if "first_sentence" not in self.clock.laps:
                self.clock.lap("first_sentence")
            yield piece
