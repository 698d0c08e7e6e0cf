"""Border: what the page's server takes from outside before anything else sees it."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Collection, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]

FRAME = 64 * 1024  # bytes of a message; of an upload, beside its file
SECONDS = 60.0  # for a message or an upload to arrive
UPLOADS = 8  # at once; each is in memory until it is kept
UPLOAD = "/gradio_api/upload"
# What the page itself does not ask for.
PROGRAMS = re.compile(r"/gradio_api/(?:call|api)/|/gradio_api/run/(?!predict/?$)")
# Addresses that a browser could have the server fetch.
FOREIGN = re.compile(r"/(?:file=|proxy=).*:/")
LONGEST_HEAD = 2000  # bytes of an upload's head that are searched for its name's ending
_BOUNDARY = re.compile(rb"boundary\s*=\s*\"?([\w'()+,./:=?-]{1,70})", re.IGNORECASE)
_ENDING = re.compile(rb"filename.*(\.[a-z0-9]{1,5})\"?\s*(?:;|\r|$)", re.IGNORECASE)


class Refused(Exception):
    """A request that goes no further.

    Arguments
    ---------
    status : int
    reason : str
        A sentence for the page.
    """

    def __init__(self, status: int, reason: str):
        self.status, self.reason = status, reason
        super().__init__(reason)


class Border:
    """An ASGI application in front of another: bounds what is sent, takes names off uploads, and fetches nothing.

    Arguments
    ---------
    app : callable
        The ASGI application behind it.
    max_bytes : int
        Largest file of an upload.
    hosts : collection of str
        Names by which browsers call the page, beside every address.
    seconds : float
        For a message or an upload to arrive.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        max_bytes: int,
        hosts: Collection[str] = ("localhost",),
        seconds: float = SECONDS,
    ):
        self.app, self.max_bytes, self.hosts, self.seconds = app, max_bytes, hosts, seconds
        self._places = asyncio.Semaphore(UPLOADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self._check(scope)
            if scope["method"] in ("POST", "PUT", "PATCH"):
                await self._take(scope, receive, send)
            else:
                await self.app(scope, receive, send)
        except Refused as refused:
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": refused.status, "headers": headers})
            await send({"type": "http.response.body", "body": refused.reason.encode()})

    def _check(self, scope: Scope) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if not is_known(host, self.hosts):
            raise Refused(400, "The page is not known by this name; call it by its address.")
        # Behind a proxy the two may differ; then a browser still says whether the page asks that it got from there.
        is_own = origin in (None, f"{scope['scheme']}://{host}") or headers.get(b"sec-fetch-site") == "same-origin"
        if not is_own:
            raise Refused(403, "Pages of other origins are not answered.")
        if PROGRAMS.match(scope["path"]):
            raise Refused(403, "The page is for people; programs ask es4r serve.")
        if FOREIGN.search(scope["path"]):
            raise Refused(403, "Nothing is fetched from other servers.")

    async def _take(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != UPLOAD:
            body = await self._body(receive, FRAME, "The message is too long; send a shorter one.")
            check_message(body)
            await self._hand_on(scope, body, {}, receive, send)
            return
        if self._places.locked():
            raise Refused(503, "Too many recordings arrive at once; send yours again in a moment.")
        async with self._places:
            too_long = f"The recording is over the limit of {self.max_bytes // 1024**2} MB; send a shorter one."
            body = await self._body(receive, FRAME + self.max_bytes, too_long)
            body, kind = without_name(body, dict(scope["headers"]).get(b"content-type", b""))
            await self._hand_on(scope, body, {b"content-type": kind}, receive, send)

    async def _body(self, receive: Receive, limit: int, too_long: str) -> bytes:
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(self.seconds):
                while more and len(body) <= limit:
                    message = await receive()
                    body += message.get("body", b"")
                    # Of who hangs up no more comes.
                    more = message.get("more_body", False)
        except TimeoutError:
            raise Refused(408, f"It did not arrive within {self.seconds:g} s; send it again.") from None
        if len(body) > limit:
            raise Refused(413, too_long)
        return bytes(body)

    async def _hand_on(
        self, scope: Scope, body: bytes, changed: dict[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        headers = {**dict(scope["headers"]), **changed, b"content-length": str(len(body)).encode()}
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def rest() -> Scope:
            return waiting.pop() if waiting else await receive()

        await self.app({**scope, "headers": list(headers.items())}, rest, send)


def is_known(host: str, names: Collection[str]) -> bool:
    """Whether ``Host`` is an address, or one of these names; any other could be another page's (DNS rebinding).

    Example
    -------
    >>> [is_known(host, ["localhost"]) for host in ("localhost:7860", "[::1]:7860", "192.0.2.1", "evil.example")]
    [True, True, True, False]
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in names
    return True


def check_message(body: bytes) -> None:
    """Look through a message for files that the server would fetch from elsewhere.

    Raises
    ------
    Refused
        If it names one, or is not JSON.

    Example
    -------
    >>> check_message(b'{"data": [{"path": "/tmp/recording.wav"}]}')
    """
    try:
        # Of a key that stands twice, both are seen.
        json.loads(body, object_pairs_hook=_check_files)
    except (ValueError, RecursionError):
        raise Refused(400, "The message is not JSON.") from None


def _check_files(pairs: Sequence[tuple[str, object]]) -> None:
    for key, value in pairs:
        # The page sends its own address as a file's ``url``, of which nothing is fetched.
        if key == "path" and ":/" in str(value):
            raise Refused(403, "Nothing is fetched from other servers.")


def without_name(body: bytes, content_type: bytes) -> tuple[bytes, bytes]:
    """An upload of one file, written anew: of its name stays the ending.

    Nobody else's file has its new name, so whoever deletes one deletes no other of the same sound.

    Returns
    -------
    tuple of bytes
        Body and content type.

    Raises
    ------
    Refused
        If it is not one file.

    Example
    -------
    >>> body = b'--x\\r\\nContent-Disposition: form-data; name="files"; filename="../my.wav"\\r\\n\\r\\nRIFF\\r\\n--x--'
    >>> body, kind = without_name(body, b"multipart/form-data; boundary=x")
    >>> re.sub(rb"[0-9a-f]{16}", b"*", body.split(b"\\r\\n")[1])
    b'Content-Disposition: form-data; name="files"; filename="recording-*.wav"'
    """
    boundary = _BOUNDARY.search(content_type)
    _, *parts = body.split(b"--" + boundary.group(1), 2) if boundary else [body]
    head, blank, content = parts[0].partition(b"\r\n\r\n") if parts else (b"", b"", b"")
    if not blank or [part.strip() for part in parts[1:]] != [b"--"]:
        raise Refused(400, "The upload is not one recording in multipart/form-data.")
    found = _ENDING.search(head[:LONGEST_HEAD])
    name = b"recording-" + secrets.token_hex(8).encode() + (found.group(1).lower() if found else b"")
    delimiter = b"--" + secrets.token_hex(16).encode()
    disposition = b'\r\nContent-Disposition: form-data; name="files"; filename="' + name + b'"\r\n\r\n'
    return delimiter + disposition + content + delimiter + b"--\r\n", b"multipart/form-data; boundary=" + delimiter[2:]
