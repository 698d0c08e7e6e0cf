"""The order in which training meets a corpus: shared between processes, and taken up again inside an epoch."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator

from torch.utils.data import Sampler

from es4r_toolkit.errors import require


class SharedBatches(Sampler[list[int]]):
    """One order of batches for all processes, of which each takes every so-manieth.

    Together, N processes see in a step what one process with a batch N times
    as large sees in it. Where an epoch's last step has no batch left for a
    process, it repeats one, which `is_repeat` says, and which is to count for
    nothing: each process must take part in each step.

    Arguments
    ---------
    order : Sampler
        The indices of an epoch, or its batches; with ``set_epoch``, and the same in every process.
    size : int, optional
        How many indices make a batch; None where the order holds batches.
    place : int
        Of this process, from 0.
    processes : int

    Example
    -------
    >>> class Forwards(list):
    ...     def set_epoch(self, epoch): ...
    >>> first, second = (SharedBatches(Forwards(range(6)), size=2, place=place, processes=2) for place in (0, 1))
    >>> list(first), list(second)
    ([[0, 1], [4, 5]], [[2, 3], [0, 1]])
    >>> second.is_repeat(step=1), second.is_repeat(step=2)
    (False, True)
    """

    def __init__(self, order: Sampler, size: int | None = None, place: int = 0, processes: int = 1):
        require(size is None or size > 0, "batch_size", size, "must be positive")
        self.order, self.size, self.place, self.processes = order, size, place, processes
        self.stride = processes * (size or 1)
        self.start, self.epoch = 0, 0
        self.units = list(order)

    def set_epoch(self, epoch: int) -> None:
        """Draw an epoch's order; the one that goes on goes on."""
        if epoch != self.epoch:
            self.start = 0
        self.epoch = epoch
        self.order.set_epoch(epoch)
        self.units = list(self.order)

    def resume(self, epoch: int, done: int) -> int:
        """Go on inside an epoch, behind what ``done`` said, be it of fewer or more processes; gives the steps done."""
        self.set_epoch(epoch)
        self.start = done
        return self._steps_before

    def done(self, step: int) -> int:
        """How much of the epoch's order all processes have met after so many of its steps."""
        return min(len(self.units), self.start + (step - self._steps_before) * self.stride)

    def is_repeat(self, step: int) -> bool:
        """Whether this process's batch in a step, from 1, is one that was met already."""
        left = math.ceil((len(self.units) - self.start) / (self.size or 1))
        return (step - 1 - self._steps_before) * self.processes + self.place >= left

    @property
    def fingerprint(self) -> int:
        """Of the epoch's order: another corpus, seed or way of making batches has another."""
        return zlib.crc32(json.dumps(self.units).encode())

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._batches()
        for first in range(0, len(batches), self.processes):
            yield batches[(first + self.place) % len(batches)]

    def __len__(self) -> int:
        """Steps of a whole epoch."""
        return math.ceil(len(self.units) / self.stride)

    @property
    def _steps_before(self) -> int:
        return math.ceil(self.start / self.stride)

    def _batches(self) -> list[list[int]]:
        left = self.units[self.start :]
        if self.size is None:
            return left
        return [left[first : first + self.size] for first in range(0, len(left), self.size)]
