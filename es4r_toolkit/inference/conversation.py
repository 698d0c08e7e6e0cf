"""Conversation: a dialogue that goes on turn by turn, each paid for once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from es4r_toolkit.data.audio import waveform_of
from es4r_toolkit.data.batch import DialogueBatch
from es4r_toolkit.data.heard import HeardTurn
from es4r_toolkit.dialogue import LISTENER, ROLES, SPEAKER, Turn
from es4r_toolkit.errors import DialogueError, ES4RError, require
from es4r_toolkit.inference.model import SharedModel
from es4r_toolkit.inference.reply import Reply
from es4r_toolkit.inference.response import Clock, Response
from es4r_toolkit.inference.streaming import ReplyStream

logger = logging.getLogger(__name__)

NAME = "the conversation"
Said = str | Path | Turn | tuple[Tensor, int]
SaidTurn = tuple[Turn, Tensor | None]


class Conversation:
    """A spoken dialogue as it happens: say something, hear the reply, say the next.

    What was computed of a turn is kept, and the language model reads what is
    new. Who says something while a reply is still on its way interrupts it:
    writing and speaking end, and the history holds what of the reply had been
    given out by then. A turn that was not even heard by then is heard with the
    next one.

    A dialogue longer than the speech encoder's window is heard without its
    oldest turns, as everywhere; one that the language model cannot read any
    more forgets a quarter of its turns, the oldest, for good. Responses count
    both.

    Arguments
    ---------
    model : SharedModel
        ``EmpathyResponder.conversation()`` gives it.

    Example
    -------
    >>> from es4r_toolkit.inference import EmpathyResponder
    >>> talk = EmpathyResponder.from_hparams().conversation()
    >>> with talk.stream("i_lost_my_job.wav") as events:  # doctest: +SKIP
    ...     for event in events:
    ...         print(event)
    >>> len(talk)
    0
    """

    def __init__(self, model: SharedModel):
        self.model = model
        self.forgotten = 0
        self._turns: list[HeardTurn] = []
        self._unheard: list[SaidTurn] = []
        self._stream: ReplyStream | None = None
        self._saying = threading.RLock()
        llm = model.pipeline.generation.llm
        self._cache = {"cache": llm.prefix_cache()} if hasattr(llm, "prefix_cache") else {}

    def __len__(self) -> int:
        return len(self._turns)

    @property
    def turns(self) -> Sequence[Turn]:
        """What was said so far, oldest first, replies among it."""
        return [heard.turn for heard in self._turns]

    @property
    def seconds(self) -> float:
        """Of speech, all turns together."""
        return sum(heard.seconds for heard in self._turns)

    def listen(self, said: Said, text: str = "", role: str = SPEAKER) -> None:
        """Hear a turn and answer nothing yet; for what was said before the model came in.

        Arguments
        ---------
        said : str, Path, Turn, or tuple of Tensor (samples,) and int
            A recording, or a waveform and its sample rate (Hz); a Turn brings its own role.
        text : str
            Its words; a recognizer writes them down where they are left out.
        role : str
            ``speaker``, or ``listener`` for what was answered.

        Raises
        ------
        AudioError
            If the recording cannot be used.
        DialogueError
            If its words are not known, and the model has no recognizer.
        """
        with self._saying:
            self.interrupt()
            new = _NewTurns(self.model, self._turns, [*self._unheard, self._as_turn(said, text, role)], self.forgotten)
            try:
                new.hear(Clock())
            except ES4RError:
                self._unheard = new.without_the_faulty(self._unheard)
                raise
            self._turns, self._unheard = new.turns, []

    def respond(self, said: Said, text: str = "", **options: Any) -> Response:
        """Say something and wait for the whole reply; arguments as for ``stream``.

        Raises
        ------
        DialogueError
            If somebody interrupts it meanwhile.
        """
        with self.stream(said, text, **options) as events:
            for _ in events:
                pass
        if events.response is None:
            raise DialogueError("the reply", "was interrupted", "use stream to keep what was given out by then")
        return events.response

    def stream(self, said: Said, text: str = "", **options: Any) -> ReplyStream:
        """Say something, and get the reply as events.

        Arguments
        ---------
        said, text
            As for ``listen``.
        options
            Of ``EmpathyResponder.stream``.

        Returns
        -------
        ReplyStream
            Errors in what was said are raised where it is read, and leave the conversation as it was.
        """
        with self._saying:
            self.interrupt()
            new = [*self._unheard, self._as_turn(said, text, SPEAKER)]
            source = _NewTurns(self.model, self._turns, new, self.forgotten)
            reply = Reply(self.model, source, **self._cache, **options)
            self._stream = ReplyStream(reply, partial(self._remember, reply, source))
            return self._stream

    def interrupt(self) -> None:
        """End a reply that is still on its way."""
        if self._stream is not None:
            self._stream.cancel()

    def _as_turn(self, said: Said, text: str, role: str) -> SaidTurn:
        require(role in ROLES, "role", role, f"must be one of {', '.join(ROLES)}")
        if isinstance(said, Turn):
            return (replace(said, text=text) if text else said), None
        if isinstance(said, str | Path):
            return Turn(role, text, Path(said)), None
        return Turn(role, text), waveform_of(*said, self.model.sample_rate)

    def _remember(self, reply: Reply, source: _NewTurns, stream: ReplyStream) -> None:
        """What was heard, and what was given out of the reply, is part of the dialogue."""
        if stream.fault is not None:
            self._unheard = source.without_the_faulty(self._unheard)
            return
        if not reply.is_understood:
            # Who was interrupted before is heard with the next turn.
            self._unheard = source.new
            return
        self._turns, self.forgotten, self._unheard = source.turns, source.forgotten, []
        given = stream.delivered
        if given:
            words = stream.response.text if stream.response else " ".join(chunk.text for chunk in given)
            spoken = torch.cat([chunk.waveform for chunk in given]), given[0].sample_rate
            turn, waveform = self._as_turn(spoken, words, LISTENER)
            self._turns += self.model.hear([turn], [waveform], Clock(), NAME)


class _NewTurns:
    """A conversation as it will be once these turns are heard; the source of a reply."""

    def __init__(self, model: SharedModel, turns: Sequence[HeardTurn], new: Sequence[SaidTurn], forgotten: int):
        self.model, self.turns, self.new, self.forgotten = model, list(turns), list(new), forgotten
        self.hearing: SaidTurn | None = None

    def hear(self, clock: Clock) -> None:
        """Hear what is new, one turn after another."""
        for said in self.new:
            self.hearing = said
            turn, waveform = said
            self.turns += self.model.hear([turn], [waveform], clock, NAME)
        self.hearing = None

    def without_the_faulty(self, said: Sequence[SaidTurn]) -> list[SaidTurn]:
        """Those of some turns that no fault was met in."""
        return [one for one in said if one is not self.hearing]

    def batch(self, clock: Clock) -> DialogueBatch:
        """The conversation, heard."""
        self.hear(clock)
        return self._whole()

    def shorter(self) -> DialogueBatch | None:
        """The same without a quarter of its turns, the oldest."""
        if len(self.turns) == 1:
            return None
        gone = len(self.turns) // 4 or 1
        del self.turns[:gone]
        self.forgotten += gone
        logger.warning("the language model cannot read on: the %d oldest turns are forgotten", gone)
        return self._whole()

    def _whole(self) -> DialogueBatch:
        return DialogueBatch.of_heard([NAME], [self.turns])
