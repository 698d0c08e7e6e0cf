"""A run that is killed, wherever, goes on with the same command and ends as if it had never been killed."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import speechbrain
import torch
from forked import Fault, differences, results, start

SECONDS = 0.9  # of a batch: one long dialogue or two or three short ones


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, command) -> dict:
    """What a run leaves that nothing kills."""
    output = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert start(command(output), output).codes() == [0]
    return results(output)


def test_a_run_that_is_killed_again_and_again_ends_bit_for_bit_as_if_never_killed(tmp_path, command, uninterrupted):
    output = tmp_path / "run"
    faults = [
        Fault(save=1, call=5),  # in the first save of all: there is nothing to go back to
        Fault(step=3),  # between two checkpoints
        Fault(save=1, call=25),  # while what was written goes to the disk
        Fault(save=2, call=40),  # while an old checkpoint is deleted
    ]
    for fault in faults:
        assert start(command(output), output, fault).codes() == [-signal.SIGKILL], fault
    assert not (output / "predictions.jsonl").exists()
    assert start(command(output), output).codes() == [0]
    assert differences(uninterrupted, results(output)) == []
    left = [path.name for path in (output / "checkpoints").iterdir()]
    assert left
    assert all(name.startswith("CKPT+") for name in left)


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (4, {"max_batch_seconds": SECONDS, "batch_buckets": 2, "kl_weight": 0}),
        # Between the two batches whose gradients make one step, which no checkpoint holds.
        (2, {"grad_accumulation_factor": 2}),
    ],
    ids=["by seconds", "gathered gradients"],
)
def test_loaders_in_processes_of_their_own_go_on_in_the_same_order(tmp_path, command, step, options):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(command(whole, **options), whole).codes() == [0]
    arguments = command(killed, num_workers=2, **options)
    assert start(arguments, killed, Fault(step=step)).codes() == [-signal.SIGKILL]
    assert start(arguments, killed).codes() == [0]
    assert differences(results(whole), results(killed)) == []


def scale_gradients() -> None:
    """Give training on a processor the scaler that float16 has on a GPU; here even float32 is soon too small for it."""
    as_always = speechbrain.Brain.__init__

    def begin(self: speechbrain.Brain, *arguments: Any, **options: Any) -> None:
        as_always(self, *arguments, **options)
        self.scaler = torch.GradScaler("cpu", init_scale=2.0**124, growth_interval=2)
        self.checkpointer.add_recoverable("scaler", self.scaler, optional_load=True)

    speechbrain.Brain.__init__ = begin


def test_the_scale_of_gradients_goes_on_where_it_was(tmp_path, command, uninterrupted):
    """It grows until a step overflows and is left out: another scale would leave out other steps."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(command(whole), whole, prepare=scale_gradients).codes() == [0]
    assert start(command(killed), killed, Fault(step=4), prepare=scale_gradients).codes() == [-signal.SIGKILL]
    assert start(command(killed), killed, prepare=scale_gradients).codes() == [0]
    assert differences(results(whole), results(killed)) == []
    assert differences(uninterrupted, results(whole)), "no step was left out"
