"""Cancellation: work in another thread ends between two layers of a model, not after the last."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

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
    es4r_toolkit.inference.cancelling.Cancelled
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
        """Within the block, each layer of a ``cancellable`` model that this thread runs looks at the flag first."""
        _here.cancellation = self
        try:
            yield
        finally:
            _here.cancellation = None


def cancellable(module: nn.Module) -> None:
    """Let every layer of a module look, before it is computed, whether its thread's work is to end."""
    for part in module.modules():
        if part not in _looking and not any(True for _ in part.children()):
            part.register_forward_pre_hook(_look)
            _looking.add(part)


def _look(*_: object) -> None:
    cancellation: Cancellation | None = getattr(_here, "cancellation", None)
    if cancellation is not None:
        cancellation.check()
