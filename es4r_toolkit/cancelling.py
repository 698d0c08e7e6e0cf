"""Cancellation: work in another thread ends where it waits, or between two layers of a model, not after the last."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

MOMENT = 0.02  # seconds between two looks of who waits

_here = threading.local()
_looking: weakref.WeakSet[nn.Module] = weakref.WeakSet()


class Cancelled(Exception):
    """Raised inside work that nobody waits for any more."""


class Cancellation:
    """A flag that work looks at as it goes.

    Example
    -------
    >>> cancellation = Cancellation()
    >>> cancellation.check()
    >>> cancellation.cancel()
    >>> cancellation.check()
    Traceback (most recent call last):
    ...
    es4r_toolkit.cancelling.Cancelled
    """

    def __init__(self) -> None:
        self._asked = threading.Event()

    @property
    def asked(self) -> bool:
        """Whether the work is to end."""
        return self._asked.is_set()

    def cancel(self) -> None:
        """Ask the work to end."""
        self._asked.set()

    def check(self) -> None:
        """Raise Cancelled where the work is to end."""
        if self.asked:
            raise Cancelled

    @contextmanager
    def rules_here(self) -> Iterator[None]:
        """Within the block, all that this thread does looks at the flag where it can."""
        _here.cancellation = self
        try:
            yield
        finally:
            _here.cancellation = None


def end_if_cancelled() -> None:
    """Raise Cancelled where this thread's work is to end; nothing where no cancellation rules."""
    cancellation: Cancellation | None = getattr(_here, "cancellation", None)
    if cancellation is not None:
        cancellation.check()


def cancellable(module: nn.Module) -> None:
    """Let every layer of a module look, before it is computed, whether its thread's work is to end."""
    for part in module.modules():
        if part not in _looking and not any(True for _ in part.children()):
            part.register_forward_pre_hook(_look)
            _looking.add(part)


@contextmanager
def holding(lock: threading.RLock) -> Iterator[None]:
    """A block that holds a lock; who waits for it can be cancelled."""
    while not lock.acquire(timeout=MOMENT):
        end_if_cancelled()
    try:
        yield
    finally:
        lock.release()


def _look(*_: object) -> None:
    end_if_cancelled()
