"""Desk: how many requests are under way, and whose turn it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio

from es4r_toolkit.serving.faults import AGAIN, Fault
from es4r_toolkit.serving.limits import Limits


class Desk:
    """Gives a seat to as many requests as the limits allow, and lets some of these run at once, in order.

    A seat is taken before the body is read, so that what waits is bounded in memory too.

    Arguments
    ---------
    limits : Limits

    Attributes
    ----------
    seated, running : int
        Requests under way, and those of them whose reply is being made.
    closed : bool
        Whether nobody is let in any more.

    Example
    -------
    >>> desk = Desk(Limits(running=1, waiting=0))
    >>> with desk.seat():
    ...     desk.is_full
    True
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self.seated = self.running = 0
        self.closed = False
        self._turns = anyio.Semaphore(limits.running)

    @property
    def is_full(self) -> bool:
        """Whether the next request is turned away."""
        return self.closed or self.seated >= self.limits.seats

    @property
    def waiting(self) -> int:
        """Requests that have a seat, and wait or send their bodies."""
        return self.seated - self.running

    @contextmanager
    def seat(self) -> Iterator[None]:
        """A block of one request.

        Raises
        ------
        Fault
            If every seat is taken.
        """
        if self.is_full:
            problem = "is being stopped" if self.closed else f"answers {self.seated} requests already"
            raise Fault("busy", "the server", problem, AGAIN)
        self.seated += 1
        try:
            yield
        finally:
            self.seated -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A block in which a reply is made; who came first is first."""
        async with self._turns:
            self.running += 1
            try:
                yield
            finally:
                self.running -= 1
