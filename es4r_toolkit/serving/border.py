"""The border: who may ask at all, and a note of everybody who did."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from es4r_toolkit.serving.faults import KINDS, Fault
from es4r_toolkit.serving.metrics import Metrics

logger = logging.getLogger(__name__)

LOCAL = ("localhost", "127.0.0.1", "[::1]")
METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE")
OPEN = ("/health", "/ready")  # without a token too, for those who watch over the server


@dataclass(frozen=True)
class Border:
    """Who may ask.

    Attributes
    ----------
    hosts : sequence of str
        Names by which clients call the server; requests that name another are refused, so that no web page can lead a
        browser here under a name of its own (DNS rebinding).
    origins : sequence of str
        Other web pages' origins that may ask, such as ``https://example.org``; none by default.
    token : str or None
        What ``Authorization: Bearer`` must carry.
    """

    hosts: Sequence[str] = LOCAL
    origins: Sequence[str] = ()
    token: str | None = None


class Guard:
    """Refuses pages of other origins, which can send forms without asking, and clients without the token."""

    def __init__(self, app: ASGIApp, border: Border):
        self.app, self.border = app, border

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fault(scope) if scope["type"] == "http" else None
        if fault is None:
            await self.app(scope, receive, send)
        else:
            await answer(scope, fault)(scope, receive, send)

    def _fault(self, scope: Scope) -> Fault | None:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        own = f"{scope['scheme']}://{headers.get('host', '')}"
        if origin is not None and origin not in (own, *self.border.origins):
            return Fault("origin", "Origin", f"is {origin}", "start the server with --allowed-origin")
        if self.border.token is None or scope["path"] in OPEN:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Compared as bytes, in a time that tells nothing of how much of it is right.
        same = secrets.compare_digest(given.strip().encode("latin-1"), self.border.token.encode())
        if scheme.lower() == "bearer" and same:
            return None
        return Fault("token", "Authorization", "carries no token that is known", "send Authorization: Bearer TOKEN")


class Notes:
    """Counts and logs every request: method, route, status and seconds, nothing that a client wrote."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-content-type-options", b"nosniff")]}
            await send(message)

        self.metrics.in_flight.inc()
        try:
            await self.app(scope, receive, noting)
        finally:
            self.metrics.in_flight.dec()
            status = scope.get("es4r.status", status)
            method = scope["method"] if scope["method"] in METHODS else "other"
            # Not the path: a client can think of any number of these.
            route = getattr(scope.get("route"), "path", "other")
            reason = scope.get("es4r.reason", _reason(status))
            self.metrics.count(method, route, status, reason)
            seconds = time.perf_counter() - began
            logger.info("%s %s %d %s%.3f s", method, route, status, f"{reason} " if reason else "", seconds)


def _reason(status: int) -> str | None:
    if status < 400:
        return None
    return "host" if status == 400 else next((code for code, kind in KINDS.items() if kind.status == status), "other")


def answer(scope: Scope, fault: Fault) -> JSONResponse:
    """A fault as a response."""
    scope["es4r.reason"] = fault.code
    return JSONResponse(fault.as_dict(), fault.status, headers=fault.headers)
