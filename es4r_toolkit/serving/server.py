"""run: an application on a socket, until it is told to stop."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from es4r_toolkit.errors import ConfigError

CONNECTIONS = 256  # open at once; more are turned away
HEADER_BYTES = 16 * 1024  # of one request


def bind(host: str, port: int) -> socket.socket:
    """A socket that is bound and does not listen yet.

    Arguments
    ---------
    host : str
        An address or name of this machine.
    port : int
        0 takes a free one.

    Raises
    ------
    ConfigError
        If it cannot be had.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port}", f"cannot be bound ({error.strerror})", "give another host or port"
        ) from None
    return bound


def is_local(host: str) -> bool:
    """Whether only this machine reaches an address.

    Example
    -------
    >>> is_local("127.0.0.1"), is_local("localhost"), is_local("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def server_of(app: FastAPI, grace: float = 10.0) -> uvicorn.Server:
    """A server that is not running yet: ``run(sockets=[...])``.

    Arguments
    ---------
    app : FastAPI
        Of ``create_app``.
    grace : float
        Seconds that replies under way have to end, once it is told to stop; then they are cancelled.
    """
    config = uvicorn.Config(
        app,
        # The border keeps its own log, in which nothing stands that a client wrote.
        access_log=False,
        log_config=None,
        server_header=False,
        # Headers that say who asks are not believed.
        proxy_headers=False,
        ws="none",
        lifespan="on",
        loop="asyncio",
        http=partial(Patience, app.state.limits.upload_seconds),
        h11_max_incomplete_event_size=HEADER_BYTES,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=grace,
    )
    return uvicorn.Server(config)


class Patience(H11Protocol):
    """A connection that is closed where the head of its first or next request does not come to its end in time.

    Arguments
    ---------
    seconds : float
    options
        Of uvicorn.
    """

    def __init__(self, seconds: float, **options: Any):
        super().__init__(**options)
        self.seconds = seconds
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self._wait()
        super().on_response_complete()

    def connection_lost(self, error: Exception | None) -> None:
        """Wait no more."""
        self._deadline.cancel()
        super().connection_lost(error)

    def _wait(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(self.seconds, self._give_up, self.cycle)

    def _give_up(self, last: object) -> None:
        # A request whose head is whole has a cycle of its own, and its body a limit of its own.
        if self.cycle is last:
            self.transport.close()
