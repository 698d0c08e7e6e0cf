"""run: an application on a socket, until it is told to stop."""

from __future__ import annotations

import ipaddress
import socket

import uvicorn
from fastapi import FastAPI

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
        http="h11",
        h11_max_incomplete_event_size=HEADER_BYTES,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=grace,
    )
    return uvicorn.Server(config)
