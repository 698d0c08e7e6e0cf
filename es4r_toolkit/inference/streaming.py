"""A reply as it comes about: events, and the two threads that make them."""

from __future__ import annotations

import atexit
import queue
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from es4r_toolkit.cancelling import Cancellation, Cancelled
from es4r_toolkit.inference.response import Response
from es4r_toolkit.stages.synthesis import SpeechPlan


@dataclass(frozen=True)
class Transcript:
    """The words of a history turn; source is ``transcript``, or the recognizer that wrote them down."""

    turn: int
    role: str
    text: str
    source: str


@dataclass(frozen=True)
class Strategy:
    """How the reply will be spoken; known before its first word."""

    plan: SpeechPlan


@dataclass(frozen=True)
class TextDelta:
    """What the reply's text has gained; together they are the text."""

    text: str


@dataclass(frozen=True)
class AudioChunk:
    """A piece of the reply, spoken: its words, its waveform (samples,) and the sample rate (Hz)."""

    text: str
    waveform: Tensor
    sample_rate: int


@dataclass(frozen=True)
class Timings:
    """Seconds from the end of the user's turn on: segments that follow one another without a gap.

    ``decoding``, ``recognition``, ``understanding`` (up to what the language model reads), ``first_token``,
    ``first_sentence``, ``first_audio``, and then ``rest``, to the end of the reply.
    """

    segments: dict[str, float]

    @property
    def to_first_audio(self) -> float:
        """Seconds until there was something to play."""
        return sum(seconds for name, seconds in self.segments.items() if name != "rest")


@dataclass(frozen=True)
class End:
    """The reply is whole."""

    response: Response


Event = Transcript | Strategy | TextDelta | AudioChunk | Timings | End


class Work(Protocol):
    """What a ReplyStream runs: writing in one thread, speaking in another."""

    def write(self) -> Generator[Event | str]:
        """Events, and as ``str`` each piece of the reply that can be spoken."""
        ...

    def speak(self, piece: str) -> AudioChunk:
        """Speak a piece."""
        ...

    def end(self) -> Iterator[Event]:
        """Last events, when all is written and spoken."""
        ...


class ReplyStream(Iterator[Event]):
    """Events of one reply, as they come; written and spoken in threads of its own while its reader does other things.

    ``cancel`` ends both, from any thread. Leaving a ``with`` block does so too, and so does a reader's last event.
    A fault in the work is raised where it is read.

    Attributes
    ----------
    delivered : list of AudioChunk
        What its reader was given so far.
    response : Response or None
        The whole, once it was read to its end.
    fault : BaseException or None
        What the work failed by.
    """

    def __init__(self, work: Work, ended: Callable[[ReplyStream], None] | None = None):
        self._work, self._ended = work, ended
        self._events: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._cancellation = Cancellation()
        self._closing = threading.RLock()
        self._open = True
        self.delivered: list[AudioChunk] = []
        self.response: Response | None = None
        self.fault: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(body,), name=f"reply {name}", daemon=True)
            for name, body in (("writer", self._write), ("voice", self._speak))
        ]
        if not _open_streams:
            # A process that ends while a thread computes would abort.
            atexit.unregister(_cancel_all)
            atexit.register(_cancel_all)
        _open_streams.add(self)
        for thread in self._threads:
            thread.start()

    @property
    def cancelled(self) -> bool:
        """Whether it was ended before its end."""
        return self._cancellation.asked and self.response is None

    def __next__(self) -> Event:
        event = self._events.get() if self._open else None
        with self._closing:
            # What comes after the end of a reply that was cancelled is not given out.
            event = event if self._open else None
            if isinstance(event, AudioChunk):
                self.delivered.append(event)
            if isinstance(event, End):
                self.response = event.response
            if event is None or isinstance(event, End | BaseException):
                self._close()
        if event is None:
            raise StopIteration
        if isinstance(event, BaseException):
            raise event
        return event

    def __enter__(self) -> ReplyStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def cancel(self) -> None:
        """End writing and speaking, and wait until they have ended."""
        self._cancellation.cancel()
        self._close()

    def _close(self) -> None:
        with self._closing:
            if not self._open:
                return
            self._open = False
            _open_streams.discard(self)
            for thread in self._threads:
                thread.join()
            # Who waits for the next event is woken.
            self._events.put(None)
            if self._ended is not None:
                self._ended(self)

    def _run(self, body: Callable[[], None]) -> None:
        with self._cancellation.rules_here():
            try:
                body()
            except Cancelled:
                pass
            except BaseException as fault:
                self.fault = fault
                self._cancellation.cancel()
                self._events.put(fault)

    def _write(self) -> None:
        try:
            with closing(self._work.write()) as written:
                for event in written:
                    (self._pieces if isinstance(event, str) else self._events).put(event)
                    self._cancellation.check()
        except BaseException:
            # First of all, so that the voice does not take what is there for the whole.
            self._cancellation.cancel()
            raise
        finally:
            self._pieces.put(None)

    def _speak(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self._cancellation.check()
            self._events.put(self._work.speak(piece))
        self._cancellation.check()
        for event in self._work.end():
            self._events.put(event)


_open_streams: weakref.WeakSet[ReplyStream] = weakref.WeakSet()


def _cancel_all() -> None:
    for stream in list(_open_streams):
        stream.cancel()
