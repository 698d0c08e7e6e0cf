"""The order of a corpus: shared out between processes without a gap, and taken up again with as many or others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from es4r_toolkit.data.order import SharedBatches


class Order(list):
    """The same in every epoch."""

    def set_epoch(self, epoch: int) -> None: ...


def processes_of(units: Sequence, size: int | None, processes: int) -> list[SharedBatches]:
    return [SharedBatches(Order(units), size, place, processes) for place in range(processes)]


def met(orders: Sequence[SharedBatches], first: int = 0) -> list[list[list[int]]]:
    """The batches of each step that count, by process, after so many steps of the epoch."""
    steps = zip(*orders, strict=True)  # no process has more batches than another
    return [
        [batch for order, batch in zip(orders, together) if not order.is_repeat(step)]
        for step, together in enumerate(steps, start=first + 1)
    ]


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4))
def test_processes_meet_every_dialogue_once_in_the_order_of_one(dialogues, size, processes):
    steps = met(processes_of(range(dialogues), size, processes))
    alone = [batch for (batch,) in met(processes_of(range(dialogues), size * processes, 1))]
    assert [list(chain.from_iterable(step)) for step in steps] == alone


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.data())
def test_the_rest_of_an_epoch_is_met_once_by_any_number_of_processes(dialogues, size, before, other, after, data):
    orders = processes_of(range(dialogues), size, before)
    steps = data.draw(st.integers(0, len(orders[0])))
    seen = list(chain.from_iterable(chain.from_iterable(met(orders)[:steps])))
    done = orders[0].done(steps)
    assert seen == list(range(done))
    resumed = processes_of(range(dialogues), other, after)
    (first,) = {order.resume(epoch=1, done=done) for order in resumed}
    rest = list(chain.from_iterable(chain.from_iterable(met(resumed, first))))
    assert seen + rest == list(range(dialogues))
    if (size, before) == (other, after):
        assert first == steps


def test_batches_that_are_made_already_are_shared_out_whole():
    orders = processes_of([[0, 1], [2], [3, 4]], None, 2)
    assert met(orders) == [[[0, 1], [2]], [[3, 4]]]
    assert [len(order) for order in orders] == [2, 2]
    assert orders[0].done(1) == 2


def test_the_next_epoch_begins_at_its_beginning():
    (order,) = processes_of(range(6), 2, 1)
    order.resume(epoch=3, done=4)
    assert list(order) == [[4, 5]]
    order.set_epoch(3)  # SpeechBrain says it once more before it goes on
    assert list(order) == [[4, 5]]
    order.set_epoch(4)
    assert list(order) == [[0, 1], [2, 3], [4, 5]]


def test_another_order_has_another_fingerprint():
    (one,), (same,), (other,) = (processes_of(units, 2, 1) for units in ([1, 0, 2], [1, 0, 2], [0, 1, 2]))
    assert one.fingerprint == same.fingerprint != other.fingerprint
