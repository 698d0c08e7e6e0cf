"""Conversation: a dialogue that goes on turn by turn, each paid for once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from es4r_toolkit.data.audio import waveform_of
from es4r_toolkit.data.batch import DialogueBatch
from es4r_toolkit.data.heard import HeardTurn
from es4r_toolkit.dialogue import LISTENER, ROLES, SPEAKER, Turn
from es4r_toolkit.errors import require
from es4r_toolkit.inference.model import SharedModel
from es4r_toolkit.inference.reply import Reply
from es4r_toolkit.inference.response import Clock, Response
from es4r_toolkit.inference.streaming import ReplyStream

logger = logging.getLogger(__name__)

Said = str | Path | Turn | tuple[Tensor, int]


class Conversation:
    """A spoken dialogue as it happens: say something, hear the reply, say the next.

    What was computed of a turn is kept, and the language model reads what is
    new. Who says something while a reply is still on its way interrupts it:
    writing and speaking end, and the history holds what of the reply had been
    given out by then.

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
            A recording, or a waveform and its sample rate (Hz).
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
            self._turns.append(self._heard(*self._as_turn(said, text, role), Clock()))

    def respond(self, said: Said, text: str = "", **options: Any) -> Response:
        """Say something and wait for the whole reply; arguments as for ``stream``."""
        with self.stream(said, text, **options) as events:
            for _ in events:
                pass
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
            turn, waveform = self._as_turn(said, text, SPEAKER)
            source = _NewTurn(self, turn, waveform)
            self._stream = ReplyStream(Reply(self.model, source, **self._cache, **options), self._remember)
            return self._stream

    def interrupt(self) -> None:
        """End a reply that is still on its way."""
        if self._stream is not None:
            self._stream.cancel()

    def _as_turn(self, said: Said, text: str, role: str) -> tuple[Turn, Tensor | None]:
        require(role in ROLES, "role", role, f"must be one of {', '.join(ROLES)}")
        if isinstance(said, Turn):
            return said, None
        if isinstance(said, str | Path):
            return Turn(role, text, Path(said)), None
        return Turn(role, text), waveform_of(*said, self.model.sample_rate)

    def _heard(self, turn: Turn, waveform: Tensor | None, clock: Clock) -> HeardTurn:
        return self.model.hear([turn], [waveform], clock, "the conversation")[0]

    def _remember(self, stream: ReplyStream) -> None:
        """What was given out of a reply is part of the dialogue."""
        given = stream.delivered
        if given:
            words = stream.response.text if stream.response else " ".join(chunk.text for chunk in given)
            spoken = torch.cat([chunk.waveform for chunk in given]), given[0].sample_rate
            self._turns.append(self._heard(*self._as_turn(spoken, words, LISTENER), Clock()))


class _NewTurn:
    """A conversation and a turn that is new to it, as the source of a reply."""

    def __init__(self, talk: Conversation, turn: Turn, waveform: Tensor | None):
        self.talk, self.turn, self.waveform = talk, turn, waveform

    @property
    def forgotten(self) -> int:
        return self.talk.forgotten

    def batch(self, clock: Clock) -> DialogueBatch:
        self.talk._turns.append(self.talk._heard(self.turn, self.waveform, clock))
        return self._whole()

    def shorter(self) -> DialogueBatch | None:
        turns = self.talk._turns
        gone = len(turns) // 4 or 1
        if len(turns) == 1:
            return None
        del turns[:gone]
        self.talk.forgotten += gone
        logger.warning("the language model cannot read on: the %d oldest turns are forgotten", gone)
        return self._whole()

    def _whole(self) -> DialogueBatch:
        return DialogueBatch.of_heard(["the conversation"], [self.talk._turns])
