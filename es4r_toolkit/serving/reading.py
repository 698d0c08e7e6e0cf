"""A request's body to a dialogue: bounded as it arrives, strict where it is read."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import anyio
from anyio import to_thread
from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from es4r_toolkit.data.records import FieldError, read_json, refuse_broken_values
from es4r_toolkit.dialogue import Turn
from es4r_toolkit.errors import DialogueError
from es4r_toolkit.serving.faults import SCHEMA, Fault
from es4r_toolkit.serving.limits import Limits
from es4r_toolkit.serving.schema import ReplyOptions, SpokenDialogue, UploadedDialogue, UploadedTurn
from es4r_toolkit.serving.uploads import Recording

JSON, MULTIPART = "application/json", "multipart/form-data"
DIALOGUE, AUDIO = "dialogue", "audio"  # parts of a multipart body
LARGEST_PART = 1 << 20  # bytes of the part that is not a recording
D = TypeVar("D", bound=UploadedDialogue)


@dataclass(frozen=True)
class Asked:
    """A dialogue that wants a reply; recordings in the order of the turns."""

    turns: list[Turn]
    recordings: list[Recording]
    options: ReplyOptions


async def read_dialogue(request: Request, limits: Limits) -> Asked:
    """Read the body of a request.

    Raises
    ------
    Fault
        If it is too large, too slow, of another type, broken, or not as the schema says.
    ClientDisconnect
        If the client goes away meanwhile.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (JSON, MULTIPART):
        raise Fault("media_type", "Content-Type", f"is {kind or 'missing'}", f"send {JSON} or {MULTIPART}")
    if (coding := request.headers.get("content-encoding", "identity")) != "identity":
        raise Fault("media_type", "Content-Encoding", f"is {coding}", "send the body as it is")
    read = _read_json if kind == JSON else _read_multipart
    try:
        with anyio.fail_after(limits.upload_seconds):
            dialogue, recordings = await read(request, limits)
    except TimeoutError:
        problem = f"did not arrive within {limits.upload_seconds:g} s"
        raise Fault("slow", "the body", problem, "send less, or faster") from None
    _check_turns(dialogue.turns, limits)
    turns = [Turn(turn.role, turn.text or "") for turn in dialogue.turns]
    return Asked(turns, recordings, dialogue.options)


async def _body(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    """The body as it arrives, whatever length it declares."""
    size = int(request.headers.get("content-length", 0))
    if size <= limits.body_bytes:
        size = 0
        async for piece in request.stream():
            if (size := size + len(piece)) > limits.body_bytes:
                break
            yield piece
    if size > limits.body_bytes:
        raise Fault("too_large", "the body", f"has more than {limits.body_bytes} bytes", "send fewer or shorter turns")


async def _read_json(request: Request, limits: Limits) -> tuple[UploadedDialogue, list[Recording]]:
    body = b"".join([piece async for piece in _body(request, limits)])
    return await to_thread.run_sync(partial(_from_json, body, limits))


def _from_json(body: bytes, limits: Limits) -> tuple[UploadedDialogue, list[Recording]]:
    dialogue = _validated(SpokenDialogue, _parsed(body, "the body", limits))
    recordings = []
    for place, turn in enumerate(dialogue.turns):
        name = f"turns[{place}].audio"
        try:
            recordings.append(Recording(name, base64.b64decode(turn.audio, validate=True)))
        except (binascii.Error, ValueError):
            raise Fault("invalid", name, "is not base64", "encode the file without line breaks: base64 -w0") from None
    return dialogue, recordings


async def _read_multipart(request: Request, limits: Limits) -> tuple[UploadedDialogue, list[Recording]]:
    _check_charset(request.headers["content-type"])
    try:
        form = await _InMemory(
            request.headers,
            _body(request, limits),
            max_files=limits.turns + 1,
            max_fields=1,
            max_part_size=LARGEST_PART,
        ).parse()
    except MultiPartException as error:
        raise Fault(
            "malformed", "the body", f"is no multipart body ({error.message})", "let a library write it"
        ) from None
    try:
        return await _from_form(form, limits)
    finally:
        await form.close()


def _check_charset(content_type: str) -> None:
    # By any other, names of parts would be read as what they are not.
    _, options = parse_options_header(content_type)
    charset = options.get(b"charset", b"utf-8").decode("latin-1")
    if charset.lower() != "utf-8":
        raise Fault("malformed", "Content-Type", f"names the charset {charset}", "encode the body as UTF-8")


class _InMemory(MultiPartParser):
    """Keeps files where the limit of the body bounds them, and off the disk."""

    spool_max_size = 1 << 40


async def _from_form(form: FormData, limits: Limits) -> tuple[UploadedDialogue, list[Recording]]:
    strange = sorted({name for name in form if name not in (DIALOGUE, AUDIO)})
    if strange:
        raise Fault("invalid", strange[0], "is no part that is known", f"name parts {DIALOGUE} and {AUDIO}")
    written = form.getlist(DIALOGUE)
    if len(written) != 1:
        raise Fault("invalid", DIALOGUE, f"stands {len(written)} times", "send one such part, with the turns as JSON")
    content = await _content(written[0])
    dialogue = _validated(UploadedDialogue, _parsed(content, DIALOGUE, limits), f"{DIALOGUE}.")
    files = [await _content(part) for part in form.getlist(AUDIO)]
    if len(files) != len(dialogue.turns):
        problem = f"stands {len(files)} times, and the dialogue has {len(dialogue.turns)} turns"
        raise Fault("invalid", AUDIO, problem, "send one such part for each turn, in the order of the turns")
    return dialogue, [Recording(f"{AUDIO}[{place}]", file) for place, file in enumerate(files)]


async def _content(part: UploadFile | str) -> bytes:
    return part.encode(errors="surrogatepass") if isinstance(part, str) else await part.read()


def _parsed(body: bytes, name: str, limits: Limits) -> object:
    """Bytes to the values of a JSON text, of which there are not more than a dialogue needs."""
    # Counted before any is built: thirty million empty lists would take a gigabyte.
    if sum(map(body.count, (b",", b"[", b"{"))) > limits.values:
        raise Fault(
            "too_large", name, f"holds more than {limits.values} values", "send turns and options, nothing else"
        )
    try:
        value = read_json(name, body.decode("utf-8"))
        refuse_broken_values(value)
    except UnicodeDecodeError:
        raise Fault("malformed", name, "is not UTF-8", "encode it as UTF-8") from None
    except DialogueError as error:
        raise Fault("malformed", name, error.problem, SCHEMA) from None
    except FieldError as error:
        raise Fault("malformed", error.field or name, error.problem, error.mend) from None
    return value


def _validated(schema: type[D], value: object, under: str = "") -> D:
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
        item = f"{under}{''.join(steps).lstrip('.')}".rstrip(".") or "the body"
        problem = first["msg"].removeprefix("Value error, ")
        raise Fault("invalid", item, problem, SCHEMA) from None


def _check_turns(turns: Sequence[UploadedTurn], limits: Limits) -> None:
    if len(turns) > limits.turns:
        raise Fault("invalid", "turns", f"are {len(turns)}, over the limit of {limits.turns}", "leave out the oldest")
    for place, turn in enumerate(turns):
        if len(turn.text or "") > limits.text_characters:
            problem = f"has {len(turn.text)} characters, over the limit of {limits.text_characters}"
            raise Fault("invalid", f"turns[{place}].text", problem, "send what was said in this turn alone")
