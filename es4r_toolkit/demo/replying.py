"""From the events of a reply to what the page shows, as it comes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from es4r_toolkit.demo.drawing import chat, notice, now_speaking, why
from es4r_toolkit.demo.recording import readable
from es4r_toolkit.demo.visit import PendingReply, Said, Visit
from es4r_toolkit.errors import ES4RError
from es4r_toolkit.inference import AudioChunk, EmpathyResponder, End, Strategy, TextDelta, Transcript
from es4r_toolkit.report.sound import clip

logger = logging.getLogger(__name__)

# What the page calls its parts, and what each shall show now.
Shown = dict[str, Any]
SHOWN_EVERY = 0.05  # seconds; each update costs the page a few milliseconds
BROKEN = "Something went wrong on the server, and its log says what. Please try again, or start over."
_numbers = count(1)


def replying(visit: Visit, responder: EmpathyResponder, said: Said, strategy: str | None = None) -> Iterator[Shown]:
    """Say a turn, and show its reply as it is written and spoken.

    Arguments
    ---------
    visit : Visit
    responder : EmpathyResponder
    said : Said
        The speaker's turn; a recognizer writes its words where they are empty.
    strategy : str, optional
        How to speak, whatever the energies say.

    Yields
    ------
    dict
        Part of the page -> what it shows: ``chat``, ``now``, ``why`` and ``status`` are HTML, ``player`` is a
        reply's number and the sound of its pieces so far.
    """
    try:
        pending = visit.say(responder, said, strategy)
    except ES4RError as fault:
        yield {"status": notice(readable(fault))}
        return
    number = next(_numbers)
    yield {
        "chat": chat(visit.turns),
        "now": now_speaking("Listening"),
        "player": _sound(number, []),
        "status": notice(),
    }
    try:
        yield from _as_it_comes(visit, pending, number)
    except ES4RError as fault:
        pending.withdraw()
        yield {"chat": chat(visit.turns), "now": "", "player": silence(), "status": notice(readable(fault))}
        return
    except Exception:
        logger.exception("a reply failed")
        pending.withdraw()
        yield {"chat": chat(visit.turns), "now": "", "player": silence(), "status": notice(BROKEN)}
        return
    finally:
        # Where the page does not wait for more, nobody else ends the reply.
        pending.stream.cancel()
        pending.settle()
    if not pending.is_newest:
        return
    response = pending.stream.response
    if response is None:
        yield {"chat": chat(visit.turns), "now": "", "status": notice("The reply was interrupted.", calm=True)}
        return
    # What was said comes first: pictures take a moment to draw.
    yield {"chat": chat(visit.turns), "now": ""}
    yield {"why": why(response, responder.pipeline, forced=strategy is not None)}


def silence() -> Shown:
    """What the player shows where nothing is to be heard."""
    return _sound(0, [])


def _as_it_comes(visit: Visit, pending: PendingReply, number: int) -> Iterator[Shown]:
    words, spoken_as, shown_at, chunks = "", "", 0.0, []
    for event in pending.stream:
        if not pending.is_newest:
            return
        if isinstance(event, Transcript):
            # The last of them is of the turn that is answered.
            newest = event
        elif isinstance(event, Strategy):
            pending.heard(newest.text, newest.source)
            spoken_as = event.plan.strategy.name
            yield {"chat": chat(visit.turns), "now": now_speaking("Answering", spoken_as)}
        elif isinstance(event, TextDelta):
            words += event.text
            if time.monotonic() - shown_at >= SHOWN_EVERY:
                shown_at = time.monotonic()
                yield {"now": now_speaking("Answering", spoken_as, words)}
        elif isinstance(event, AudioChunk):
            chunks.append(clip(event.waveform, event.sample_rate).source)
            yield {"now": now_speaking("Answering", spoken_as, words), "player": _sound(number, chunks)}
        elif isinstance(event, End):
            return


def _sound(number: int, chunks: Sequence[str]) -> Shown:
    # All pieces so far, each time: what of a value was sent before is not sent again, and none can be missed.
    return {"reply": number, "chunks": list(chunks)}
