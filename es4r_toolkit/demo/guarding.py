"""Border: what the page's server takes from outside before anything else sees it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]

FRAME = 64 * 1024  # bytes of a message; of an upload, beside its file
# Addresses that a browser could have the server fetch.
FOREIGN = re.compile(r"/(?:file=|proxy=).*:/")
_BOUNDARY = re.compile(rb'boundary="?([^";]+)"?')
_FILE_NAME = re.compile(rb'filename\*?=(?:"((?:[^"\\]|\\.)*)"|([^;\r\n]*))', re.IGNORECASE)
_ENDING = re.compile(rb"\.[A-Za-z0-9]{1,5}$")


class Border:
    """An ASGI application in front of another: bounds what is sent, takes names off uploads, and fetches nothing.

    Arguments
    ---------
    app : callable
        The ASGI application behind it.
    max_bytes : int
        Largest file of an upload.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], max_bytes: int):
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        if FOREIGN.search(path):
            await _refuse(send, 403, "Nothing is fetched from other servers.")
        elif method in ("POST", "PUT", "PATCH"):
            await self._take(scope, receive, send, is_upload=path.endswith("/upload"))
        else:
            await self.app(scope, receive, send)

    async def _take(self, scope: Scope, receive: Receive, send: Send, is_upload: bool) -> None:
        body = await _body(receive, FRAME + is_upload * self.max_bytes)
        if body is None:
            what = (
                f"recording is over the limit of {self.max_bytes // 1024**2} MB" if is_upload else "message is too long"
            )
            await _refuse(send, 413, f"The {what}; send a shorter one.")
            return
        headers = dict(scope["headers"])
        if is_upload:
            body = without_names(body, headers.get(b"content-type", b""))
        headers[b"content-length"] = str(len(body)).encode()
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def rest() -> Scope:
            return waiting.pop() if waiting else await receive()

        await self.app({**scope, "headers": list(headers.items())}, rest, send)


def without_names(body: bytes, content_type: bytes) -> bytes:
    """A multipart body whose files are all called ``recording``, with the ending they had.

    Example
    -------
    >>> body = b'--x\\r\\nContent-Disposition: form-data; name="files"; filename="../my.wav"\\r\\n\\r\\nRIFF\\r\\n--x--'
    >>> without_names(body, b"multipart/form-data; boundary=x").split(b"\\r\\n")[1]
    b'Content-Disposition: form-data; name="files"; filename="recording.wav"'
    """
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        return body
    delimiter = b"--" + boundary.group(1)
    parts = [part.partition(b"\r\n\r\n") for part in body.split(delimiter)]
    return delimiter.join(_FILE_NAME.sub(_nameless, head) + blank + content for head, blank, content in parts)


def _nameless(found: re.Match[bytes]) -> bytes:
    ending = _ENDING.search(found.group(1) or found.group(2) or b"")
    return b'filename="recording' + (ending.group(0).lower() if ending else b"") + b'"'


async def _body(receive: Receive, limit: int) -> bytes | None:
    """All of what is sent, or None where it is too much."""
    body, more = bytearray(), True
    while more and len(body) <= limit:
        message = await receive()
        body += message.get("body", b"")
        # Of who hangs up no more comes.
        more = message.get("more_body", False)
    return None if more or len(body) > limit else bytes(body)


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})
