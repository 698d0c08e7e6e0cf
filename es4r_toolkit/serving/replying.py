"""Replies: the events of a reply as a server makes them, within its limits and for as long as somebody waits."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import anyio
from anyio import to_thread
from starlette.types import Receive
from torch import Tensor

from es4r_toolkit.data.batch import DialogueBatch
from es4r_toolkit.dialogue import Turn
from es4r_toolkit.errors import ContextError, DialogueError, ES4RError
from es4r_toolkit.inference import AudioChunk, EmpathyResponder, End, Event, ReplyStream, TextDelta, Timings
from es4r_toolkit.inference.model import SharedModel
from es4r_toolkit.inference.reply import Reply
from es4r_toolkit.inference.response import Clock
from es4r_toolkit.serving.desk import Desk
from es4r_toolkit.serving.faults import AGAIN, Fault
from es4r_toolkit.serving.limits import Limits
from es4r_toolkit.serving.metrics import Metrics
from es4r_toolkit.serving.reading import Asked
from es4r_toolkit.serving.uploads import Uploads

logger = logging.getLogger(__name__)

Emit = Callable[[Event], Awaitable[None]]


class Replies:
    """Makes replies.

    Arguments
    ---------
    responder : EmpathyResponder
    uploads : Uploads
    desk : Desk
    limits : Limits
    metrics : Metrics
    """

    def __init__(self, responder: EmpathyResponder, uploads: Uploads, desk: Desk, limits: Limits, metrics: Metrics):
        self.responder, self.uploads, self.desk = responder, uploads, desk
        self.limits, self.metrics = limits, metrics

    @property
    def strategies(self) -> list[str]:
        """Names that a request may ask for."""
        return list(self.responder.pipeline.synthesis.strategy.prosodies)

    async def make(self, asked: Asked, emit: Emit) -> None:
        """Hand on the events of a reply, one by one.

        Where this ends before its end, as when it is cancelled, the threads behind it have ended too.

        Raises
        ------
        Fault
            If there is no reply, or not in time.
        """
        strategy = asked.options.strategy
        if strategy is not None and strategy not in self.strategies:
            raise Fault("invalid", "options.strategy", f"is {strategy!r}", f"take one of {', '.join(self.strategies)}")
        watch, began = _Stopwatch(), None
        try:
            with anyio.fail_after(self.limits.reply_seconds):
                async with self.desk.turn():
                    began = watch.lap("waiting")
                    await self._make(asked, emit, watch)
        except TimeoutError:
            if began is None:
                raise Fault("busy", "the server", "had no room for this in time", AGAIN) from None
            problem = f"was not done within {self.limits.reply_seconds:g} s"
            raise Fault("timeout", "the reply", problem, "send fewer or shorter turns, or their text") from None

    async def _make(self, asked: Asked, emit: Emit, watch: _Stopwatch) -> None:
        waveforms = await to_thread.run_sync(self.uploads.decode, asked.recordings)
        watch.lap("decoding")
        options = asked.options
        dialogue = _Recordings(self.responder.model, asked.turns, waveforms)
        reply = Reply(self.responder.model, dialogue, options.strategy, options.unit, **options.sampling)
        stream, words, heard = ReplyStream(reply), "", False
        try:
            while (event := await to_thread.run_sync(next, stream, None, abandon_on_cancel=True)) is not None:
                words += event.text if isinstance(event, TextDelta) else ""
                if isinstance(event, AudioChunk) and not heard:
                    heard = True
                    self.metrics.first_audio.observe(watch.seconds)
                await emit(watch.add_to(event))
        except ES4RError as error:
            raise _fault_of(error, words) from error
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(stream.cancel)


class _Recordings:
    """Turns with their waveforms, as the source of a reply."""

    forgotten = 0

    def __init__(self, model: SharedModel, turns: Sequence[Turn], waveforms: Sequence[Tensor]):
        self.model, self.turns, self.waveforms = model, turns, waveforms

    def batch(self, clock: Clock) -> DialogueBatch:
        """The dialogue, heard."""
        return self.model.listen([self.model.hear(self.turns, self.waveforms, clock, "the dialogue")], clock)

    def shorter(self) -> None:
        """It is answered whole, or not."""


class _Stopwatch:
    """Seconds that passed before the model began, put to those that it tells itself."""

    def __init__(self) -> None:
        self.clock, self._began = Clock(), time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the body was read."""
        return time.perf_counter() - self._began

    def lap(self, name: str) -> float:
        """End a lap; its seconds."""
        self.clock.lap(name)
        return self.clock.laps[name]

    def add_to(self, event: Event) -> Event:
        """The event with these laps among its timings."""
        if isinstance(event, Timings):
            return Timings(self._with(event.segments))
        if isinstance(event, End):
            return End(replace(event.response, timings=self._with(event.response.timings)))
        return event

    def _with(self, laps: dict[str, float]) -> dict[str, float]:
        own = self.clock.laps
        return {**own, **laps, "decoding": round(own["decoding"] + laps.get("decoding", 0.0), 4)}


def _fault_of(error: ES4RError, words: str) -> Fault:
    """What a client is told; of what is not its own doing, nothing."""
    if isinstance(error, ContextError):
        return Fault("invalid", "the dialogue", "is longer than the model can read", "leave out the oldest turns")
    if isinstance(error, DialogueError):
        mend = "send the text of every turn" if "transcript" in error.problem else error.mend
        return Fault("invalid", "the dialogue", error.problem, mend)
    if words and not any(map(str.isalnum, words)):
        return Fault("invalid", "the reply", "has no word that could be said", "ask again at a lower temperature")
    logger.error("a reply failed: %s", error)
    return Fault.internal()


async def while_connected(receive: Receive, work: Callable[[], Awaitable[Any]]) -> bool:
    """Do work for as long as its client waits; when the client goes, the work is cancelled.

    Arguments
    ---------
    receive : callable
        Of an ASGI request whose body was read.
    work : callable

    Returns
    -------
    bool
        Whether it was done.
    """
    done, failed = False, None

    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(watch)
        try:
            await work()
            done = True
        except Exception as error:
            # The group would wrap it.
            failed = error
        group.cancel_scope.cancel()
    if failed is not None:
        raise failed
    return done
