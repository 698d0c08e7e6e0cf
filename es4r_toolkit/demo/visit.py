"""A visit: the dialogue of one visitor of the page, which no other sees."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from es4r_toolkit.dialogue import LISTENER, SPEAKER
from es4r_toolkit.inference import Conversation, EmpathyResponder, ReplyStream
from es4r_toolkit.report.sound import Clip, clip


@dataclass(frozen=True)
class Said:
    """A turn as the page shows it.

    Attributes
    ----------
    role : str
    text : str
        Empty where it is still being written down.
    waveform : Tensor (samples,)
    sample_rate : int
        Hz.
    note : str
        Where its words or its voice come from.
    """

    role: str
    text: str
    waveform: Tensor
    sample_rate: int
    note: str = ""

    @cached_property
    def clip(self) -> Clip | None:
        """Its sound, for a player."""
        return clip(self.waveform, self.sample_rate)


class PendingReply:
    """A reply on its way, and the turn that asked for it."""

    def __init__(self, visit: Visit, dialogue: list[Said], stream: ReplyStream):
        self.stream = stream
        self._visit, self._dialogue, self._asked = visit, dialogue, len(dialogue) - 1
        self._heard, self._settled = False, False

    @property
    def is_newest(self) -> bool:
        """Whether nothing else was said since, and the dialogue it belongs to goes on."""
        with self._visit.lock:
            return self._visit.turns is self._dialogue and self._visit.pending in (self, None)

    def heard(self, text: str, source: str) -> None:
        """The words of the turn that asked for it are known, and who wrote them down."""
        with self._visit.lock:
            if not self._settled:
                asked = self._dialogue[self._asked]
                note = asked.note if asked.text else f"{asked.note}, written down by {source}"
                self._dialogue[self._asked] = replace(asked, text=text, note=note)
                self._heard = True

    def withdraw(self) -> None:
        """The turn could not be answered: it was never said."""
        with self._visit.lock:
            if not self._settled:
                self._settled = True
                del self._dialogue[self._asked :]
                # It may have been heard; the next is said to one that did not.
                self._visit.forget_talk()

    def settle(self) -> None:
        """What was given out of it becomes a turn of the dialogue; once."""
        with self._visit.lock:
            if self._settled:
                return
            if not self._heard:
                self.withdraw()
                return
            self._settled = True
            chunks, response = self.stream.delivered, self.stream.response
            if chunks:
                words = response.text if response else " ".join(chunk.text for chunk in chunks)
                note = f"synthetic voice, {response.plan.strategy.name}" if response else "synthetic voice, interrupted"
                waveform = torch.cat([chunk.waveform for chunk in chunks])
                self._dialogue.append(Said(LISTENER, words, waveform, chunks[0].sample_rate, note))


class Visit:
    """One visitor's dialogue; model and voice may change within it.

    Example
    -------
    >>> visit = Visit()
    >>> visit.interrupt(), visit.turns
    (None, [])
    """

    def __init__(self) -> None:
        self.turns: list[Said] = []
        self.lock = threading.RLock()
        self._responder: EmpathyResponder | None = None
        self._talk: Conversation | None = None
        self.pending: PendingReply | None = None

    def __deepcopy__(self, _: object) -> Visit:
        # The page's state is handed from event to event, and would be copied on the way.
        return self

    def start_over(self) -> None:
        """Forget the dialogue, and end a reply that is on its way."""
        with self.lock:
            self.interrupt()
            self.turns, self._talk, self._responder = [], None, None

    def interrupt(self) -> None:
        """End a reply that is on its way; what was given out of it stays said."""
        with self.lock:
            if self.pending is not None:
                self.pending.stream.cancel()
                self.pending.settle()
                self.pending = None

    def listen(self, said: Said) -> None:
        """A turn that is not answered, such as those before the last of an example."""
        with self.lock:
            self.interrupt()
            self.turns.append(said)
            self.forget_talk()

    def say(self, responder: EmpathyResponder, said: Said, strategy: str | None = None) -> PendingReply:
        """A turn of the speaker; the reply that was on its way is interrupted, and the next begins."""
        with self.lock:
            self.interrupt()
            talk = self._talk_with(responder)
            spoken = said.waveform, said.sample_rate
            stream = talk.stream(spoken, said.text, strategy=strategy, explained=True)
            self.turns.append(said)
            self.pending = PendingReply(self, self.turns, stream)
            return self.pending

    def forget_talk(self) -> None:
        """Whoever answers next hears all of the dialogue anew."""
        with self.lock:
            self._talk = None

    def _talk_with(self, responder: EmpathyResponder) -> Conversation:
        if self._talk is None or self._responder is not responder:
            # Another model or voice hears the dialogue so far anew.
            talk = responder.conversation()
            for said in self.turns:
                talk.listen((said.waveform, said.sample_rate), said.text, said.role)
            self._responder, self._talk = responder, talk
        return self._talk


def typed_turn(responder: EmpathyResponder, words: str) -> Said:
    """A turn that was typed alone, spoken by the model's voice so that there is something to hear."""
    voice = responder.pipeline.synthesis.voice
    return Said(SPEAKER, words, responder.model.speak(words), voice.sample_rate, "typed, spoken by the synthetic voice")
