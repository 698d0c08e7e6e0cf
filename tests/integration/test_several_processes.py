"""Several processes train what one with as large a batch trains; none hangs, and only the first writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from forked import (
    PATIENCE,
    Fault,
    comparable_with_an_unused_module,
    refuse_to_write,
    start,
    weights_of,
)
from tones import lines_of

# Sums of float32 in another order, over two epochs.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}

SCRIPT = """
import os, sys
sys.path.insert(0, {folder!r})
from forked import Fault
from es4r_toolkit.training import run_recipe

if os.environ["RANK"] == "1":
    Fault(step=3).plant()
run_recipe(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory, command) -> Path:
    """One process with a batch of four; its second and last batch has two dialogues."""
    output = tmp_path_factory.mktemp("alone") / "run"
    arguments = command(output, batch_size=4, emotion_weight=1)
    assert start(arguments, output, prepare=comparable_with_an_unused_module).codes() == [0]
    return output


def assert_same_curve(first: Path, second: Path) -> None:
    """Losses and scores of each epoch, and the final weights."""
    histories = lines_of(first / "history.jsonl"), lines_of(second / "history.jsonl")
    assert len(histories[0]) == len(histories[1])
    for one, other in zip(*histories):
        assert {**other, "seconds": 0} == pytest.approx({**one, "seconds": 0}, rel=1e-4, abs=1e-5)
    weights = weights_of(second)
    for name, weight in weights_of(first).items():
        torch.testing.assert_close(weights[name], weight, **TOLERANCE, msg=name)


def test_two_processes_learn_as_one_with_twice_the_batch(tmp_path, command, alone):
    """Their replies have different lengths, their last step has a batch for one alone, and one module is not used."""
    output = tmp_path / "run"
    arguments = command(output, batch_size=2, emotion_weight=1)
    assert start(arguments, output, processes=2, prepare=comparable_with_an_unused_module).codes() == [0, 0]
    assert_same_curve(alone, output)


def test_only_the_first_process_writes_and_one_may_take_over_from_two(tmp_path, command, alone):
    output = tmp_path / "run"
    arguments = command(output, batch_size=2, emotion_weight=1)
    # The other process ends where it opens a file of the run for writing, with a code of its own.
    codes = start(arguments, output, Fault(step=2), processes=2, prepare=refuse_to_write).codes()
    assert codes[0] == -signal.SIGKILL
    assert codes[1] not in (77, None)
    arguments = command(output, batch_size=4, emotion_weight=1)
    assert start(arguments, output, prepare=comparable_with_an_unused_module).codes() == [0]
    assert_same_curve(alone, output)


def test_two_processes_may_take_over_from_one(tmp_path, command, alone):
    output = tmp_path / "run"
    arguments = command(output, batch_size=4, emotion_weight=1)
    assert start(arguments, output, Fault(step=2), prepare=comparable_with_an_unused_module).codes() == [
        -signal.SIGKILL
    ]
    arguments = command(output, batch_size=2, emotion_weight=1)
    assert start(arguments, output, processes=2, prepare=refuse_to_write).codes() == [0, 0]
    assert_same_curve(alone, output)


def test_a_killed_worker_ends_the_job_with_an_error(tmp_path, command):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(folder=str(Path(__file__).parent)))
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    ended = subprocess.run(
        [*line, *command(tmp_path / "run")], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert ended.returncode != 0
    assert "SIGKILL" in ended.stderr
    assert time.monotonic() - began < PATIENCE
    assert not (tmp_path / "run" / "predictions.jsonl").exists()
