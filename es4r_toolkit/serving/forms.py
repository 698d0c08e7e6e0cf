"""Forms of a reply: JSON, a WAV file, or events as they come."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Mapping
from urllib.parse import quote

import anyio
import soundfile
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from torch import Tensor

from es4r_toolkit.inference import NOTICE, AudioChunk, End, Event, Strategy, TextDelta, Timings, Transcript
from es4r_toolkit.inference import Response as Answer
from es4r_toolkit.inference.response import plan_as_dict
from es4r_toolkit.serving.faults import Fault
from es4r_toolkit.serving.reading import Asked, read_dialogue
from es4r_toolkit.serving.replying import Replies, while_connected

logger = logging.getLogger(__name__)

JSON, WAV, EVENTS = "application/json", "audio/wav", "text/event-stream"
FORMS = (JSON, WAV, EVENTS)
NO_STORE = {"Cache-Control": "no-store", "ES4R-Notice": NOTICE}
LAST_WORD = 1.0  # seconds to take the end of a stream
GONE = 499  # what a log calls a request whose client left; nobody receives it


def form_of(accept: str) -> str:
    """The form that a client likes best; JSON where it says nothing.

    Raises
    ------
    Fault
        If it takes none of them.

    Example
    -------
    >>> form_of("audio/*;q=0.9, text/html"), form_of("*/*")
    ('audio/wav', 'application/json')
    """
    best, most = None, 0.0
    for wish in accept.split(",") if accept.strip() else ["*/*"]:
        kind, *parameters = (part.strip().lower() for part in wish.split(";"))
        weight = next((_number(value[2:]) for value in parameters if value.startswith("q=")), 1.0)
        for form in FORMS:
            if kind in (form, f"{form.partition('/')[0]}/*", "*/*") and weight > most:
                best, most = form, weight
    if best is None:
        raise Fault("not_acceptable", "Accept", f"asks for {accept}", f"take one of {', '.join(FORMS)}")
    return best


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


class Reply(Response):
    """A reply that is made while it is sent; it ends where its client goes away.

    Arguments
    ---------
    replies : Replies
    form : str
        One of ``FORMS``.
    """

    def __init__(self, replies: Replies, form: str):
        super().__init__()
        self.replies, self.form = replies, form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.replies.desk.seat():
            try:
                asked = await read_dialogue(Request(scope, receive), self.replies.limits)
                done = await while_connected(receive, lambda: self._answer(asked, scope, receive, send))
            except ClientDisconnect:
                done = False
        if not done:
            scope["es4r.reason"], scope["es4r.status"] = "gone", GONE

    async def _answer(self, asked: Asked, scope: Scope, receive: Receive, send: Send) -> None:
        if self.form == EVENTS:
            await self._send_events(asked, scope, send)
        else:
            await (await self._whole(asked))(scope, receive, send)

    async def _whole(self, asked: Asked) -> Response:
        ends: list[Answer] = []

        async def keep(event: Event) -> None:
            if isinstance(event, End):
                ends.append(event.response)

        await self.replies.make(asked, keep)
        (answer,) = ends
        wav = encoded(answer.waveform, answer.sample_rate)
        if self.form == WAV:
            return Response(wav, headers=headers_of(answer), media_type=WAV)
        body = {**answer.as_dict(), "sample_rate": answer.sample_rate, "audio": _base64(wav)}
        return JSONResponse(body, headers=NO_STORE)

    async def _send_events(self, asked: Asked, scope: Scope, send: Send) -> None:
        begun = False

        async def emit(event: Event) -> None:
            nonlocal begun
            if not begun:
                # Only now: what fails before has a status of its own.
                headers = Response(headers=NO_STORE, media_type=EVENTS).raw_headers
                headers = [pair for pair in headers if pair[0] != b"content-length"]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                begun = True
            await send({"type": "http.response.body", "body": _line(*_named(event)), "more_body": True})

        try:
            await self.replies.make(asked, emit)
        except Exception as error:
            if not begun:
                raise
            fault = error if isinstance(error, Fault) else Fault.internal()
            if fault is not error:
                logger.exception("a reply failed")
            scope["es4r.reason"] = fault.code
            # Whoever does not read what came before would hold this request for ever.
            with anyio.move_on_after(LAST_WORD):
                await send({"type": "http.response.body", "body": _line("error", fault.as_dict()), "more_body": True})
        with anyio.move_on_after(LAST_WORD):
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def headers_of(answer: Answer) -> dict[str, str]:
    """What a WAV file cannot tell, in ASCII: the text is percent-encoded UTF-8."""
    timings = ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in answer.timings.items())
    return {
        **NO_STORE,
        "ES4R-Text": quote(answer.text, safe=" ,.!?'"),
        "ES4R-Cut-Off": json.dumps(answer.cut_off),
        "ES4R-Strategy": quote(answer.plan.strategy.name),
        "Server-Timing": timings,
    }


def encoded(waveform: Tensor, sample_rate: int) -> bytes:
    """A waveform (samples,) as a 16-bit WAV file that says what it is."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", sample_rate, 1, format="WAV", subtype="PCM_16") as file:
        file.comment = NOTICE
        file.write(waveform.detach().cpu().float().numpy())
    return buffer.getvalue()


def _named(event: Event) -> tuple[str, Mapping[str, object]]:
    """The name and the data of an event."""
    match event:
        case Transcript():
            return "transcript", {
                "turn": event.turn,
                "role": event.role,
                "text": event.text,
                "source": event.source,
            }
        case Strategy():
            return "strategy", {**plan_as_dict(event.plan), "notice": NOTICE}
        case TextDelta():
            return "text", {"text": event.text}
        case AudioChunk():
            wav = encoded(event.waveform, event.sample_rate)
            return "audio", {"text": event.text, "sample_rate": event.sample_rate, "audio": _base64(wav)}
        case Timings():
            return "timings", {**event.segments, "to_first_audio": round(event.to_first_audio, 4)}
        case End():
            return "end", event.response.as_dict()


def _line(name: str, data: Mapping[str, object]) -> bytes:
    # ASCII: some readers of events split lines at more characters than the standard names.
    return f"event: {name}\ndata: {json.dumps(data, allow_nan=False)}\n\n".encode("ascii")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
