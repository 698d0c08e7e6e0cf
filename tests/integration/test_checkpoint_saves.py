"""A checkpoint is whole or not there: whatever kills its writing, fills the disk or sets the clock."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import FORKS, PATIENCE, Fault
from speechbrain.utils.train_logger import FileTrainLogger

from es4r_toolkit.checkpointing import PARTIAL, WHOLE, RandomStates, WholeCheckpointer, begin_log_anew, log_epoch
from es4r_toolkit.errors import ConfigError, ES4RError
from es4r_toolkit.training import run_recipe

MEGABYTE = 2**20


def checkpointer_of(folder: Path, value: float, size: int = 1) -> WholeCheckpointer:
    """One that saves a layer whose weights all have a value, and an optimizer."""
    layer = torch.nn.Linear(size, 1, bias=False)
    torch.nn.init.constant_(layer.weight, value)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    return WholeCheckpointer(folder, {"layer": layer, "optimizer": optimizer, "random_states": RandomStates()})


def save(folder: Path, value: float, **meta: float) -> None:
    """Save one checkpoint, and delete all but it and the one of the least loss."""
    checkpointer_of(folder, value).save_and_keep_only(meta={"loss": value, **meta}, min_keys=["loss"])


def value_in(folder: Path) -> float | None:
    """The value of the weights that a run would go on with."""
    checkpointer = checkpointer_of(folder, 0.0)
    return checkpointer.recoverables["layer"].weight.item() if checkpointer.recover_if_possible() else None


def save_and_die(folder: Path, value: float, call: int) -> None:
    Fault(save=1, call=call).plant()
    save(folder, value)


def test_a_save_killed_before_any_of_its_calls_leaves_the_last_checkpoint_or_the_new_one(tmp_path):
    outcomes, number = [], 0
    while True:
        number += 1
        folder = tmp_path / str(number)
        # The first has the least loss and is kept; the second goes when the third is whole.
        for value in (1.0, 5.0):
            save(folder, value)
        process = FORKS.Process(target=save_and_die, args=(folder, 3.0, number))
        process.start()
        process.join(PATIENCE)
        outcomes.append(value_in(folder))
        assert not list(folder.glob(f"{PARTIAL}*")), "the next start removes what the kill left"
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    # Nothing is seen of it until all is: the old one, then the new one, and nothing in between.
    turn = outcomes.index(3.0)
    assert outcomes == [5.0] * turn + [3.0] * (len(outcomes) - turn)
    assert turn > 10
    assert len(outcomes) > turn + 5, "the deletion of the old one was never killed"


def test_everything_is_on_the_disk_before_a_checkpoint_gets_its_name(tmp_path, monkeypatch):
    events, sync, rename = [], os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        events.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", lambda *paths: (events.append("rename"), rename(*paths))[1])
    save(tmp_path, 1.0)
    (checkpoint,) = tmp_path.iterdir()
    before, after = events[: events.index("rename")], events[events.index("rename") + 1 :]
    place = tmp_path / f"{PARTIAL}{checkpoint.name}"
    files = {"CKPT.yaml", "layer.ckpt", "optimizer.ckpt", "random_states.ckpt", WHOLE}
    assert set(before) == {str(place), *(str(place / name) for name in files)}
    assert after == [str(tmp_path)]


def test_the_newest_is_the_last_that_was_saved_whatever_the_clock_says(tmp_path, monkeypatch):
    """As on a machine whose clock is an hour behind that of the first."""
    save(tmp_path, 1.0)
    save(tmp_path, 5.0)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 3600)
    save(tmp_path, 4.0)
    assert value_in(tmp_path) == 4.0
    assert len(list(tmp_path.iterdir())) == 2  # and that of the least loss


def test_what_an_older_version_left_half_written_is_passed_over_and_said(tmp_path, caplog):
    """SpeechBrain writes the file that makes a checkpoint first."""
    save(tmp_path, 1.0)
    (whole,) = tmp_path.iterdir()
    half = tmp_path / "CKPT+2999-01-01+00-00-00+00"
    half.mkdir()
    meta = (whole / "CKPT.yaml").read_text()
    (half / "CKPT.yaml").write_text(re.sub(r"unixtime: \d+", "unixtime: 32472144000", meta))
    assert value_in(tmp_path) == 1.0
    assert f"{half} is passed over: it is not whole" in caplog.text


# -- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_said_with_what_was_needed_and_leaves_the_last_checkpoint(small_disk):
    small, large = MEGABYTE // 16, MEGABYTE  # of float32: 0.25 and 4 MB
    checkpointer_of(small_disk, 1.0, small).save_checkpoint()
    with pytest.raises(ES4RError) as caught:
        checkpointer_of(small_disk, 2.0, large).save_checkpoint()
    message = str(caught.value)
    assert message.startswith(f"{small_disk}: a checkpoint of 4.2 MB could not be written (")
    assert "1.8 MB were free" in message
    assert "CKPT+" in message
    assert message.endswith("make room, and start the same command again")
    (left,) = small_disk.iterdir()
    again = checkpointer_of(small_disk, 0.0, small)
    assert again.recover_if_possible().path == left
    assert again.recoverables["layer"].weight[0, 0] == 1.0


def test_a_run_on_a_disk_that_fills_up_ends_with_one_line_and_goes_on_when_there_is_room(small_disk, command, trained):
    """What fills it is not the run's; the first checkpoint has room, the second has not."""
    output, filler = small_disk / "run", small_disk / "filler"
    size = sum(file.stat().st_size for file in trained[0].rglob("CKPT*/*"))
    filler.write_bytes(bytes(2 * MEGABYTE - int(1.3 * size)))
    arguments = command(output, bundle="{}", epochs=2)
    with pytest.raises(SystemExit, match=r"^error: .*could not be written .*make room, and start the same command"):
        run_recipe(arguments)
    (whole,) = (output / "checkpoints").iterdir()
    assert (whole / WHOLE).is_file()
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    assert run_recipe(arguments)["loss"] == pytest.approx(trained[1]["loss"], rel=1e-4)


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
    ],
    ids=["disk", "quota", "torch"],
)
def test_whatever_says_that_the_disk_is_full_is_told_in_the_same_words(tmp_path, monkeypatch, fault):
    save(tmp_path, 1.0)

    def refuse(*_: object) -> None:
        raise fault

    monkeypatch.setattr(torch, "save", refuse)
    with pytest.raises(ES4RError, match=r"could not be written .*make room"):
        save(tmp_path, 2.0)
    monkeypatch.undo()
    assert value_in(tmp_path) == 1.0
    assert len(list(tmp_path.iterdir())) == 1


# -- what is taken up -------------------------------------------------------------------------------------------------


def test_random_numbers_of_torch_python_and_numpy_go_on(tmp_path):
    def draw() -> list[float]:
        return [torch.rand(()).item(), random.random(), np.random.rand(), np.random.randn()]

    np.random.randn()  # numpy keeps the second of each pair
    states = RandomStates()
    states.gather()
    states.save(tmp_path / "states")
    expected = draw()
    draw()
    RandomStates().load(tmp_path / "states", True)
    assert draw() == expected


def test_a_process_that_is_new_keeps_its_own_random_numbers(tmp_path, monkeypatch):
    states = RandomStates()
    states.gather()
    states.save(tmp_path / "states")
    torch.rand(1)
    before = torch.get_rng_state()
    monkeypatch.setattr("es4r_toolkit.checkpointing.place", lambda: (1, 2))
    RandomStates().load(tmp_path / "states", True)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_switched_loss_is_named_where_a_run_goes_on(tmp_path, command):
    run_recipe(command(tmp_path, epochs=1))
    with pytest.raises(SystemExit, match=r"CKPT.*: holds no emotion_head, and this run trains one; set losses as they"):
        run_recipe(command(tmp_path, epochs=2, emotion_weight=1))


def test_a_loss_that_was_switched_off_is_named_too(tmp_path):
    checkpointer = checkpointer_of(tmp_path, 1.0)
    checkpointer.add_recoverable("emotion_head", torch.nn.Linear(2, 2))
    checkpointer.save_checkpoint()
    with pytest.raises(ConfigError, match=r"CKPT.*: holds emotion_head, and this run trains none; set losses as they"):
        value_in(tmp_path)


def test_a_checkpoint_that_was_damaged_later_is_named(tmp_path):
    save(tmp_path, 1.0)
    (checkpoint,) = tmp_path.iterdir()
    (checkpoint / "layer.ckpt").write_bytes((checkpoint / "layer.ckpt").read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"CKPT.*: cannot be taken up \(.*remove it to go on from the one before"):
        value_in(tmp_path)


# -- logs -------------------------------------------------------------------------------------------------------------


def test_what_is_trained_again_is_logged_once(tmp_path):
    log = FileTrainLogger(str(tmp_path / "log.txt"))
    for epoch in (1, 2):
        log.log_stats({"epoch": epoch}, train_stats={"loss": 3})
    log.log_stats({"epoch_loaded": 2}, test_stats={"loss": 3})
    with (tmp_path / "log.txt").open("a") as file:
        file.write("epoch: 3, tr")  # cut short
    begin_log_anew(log, epoch=2, epoch_loaded=2)
    assert (tmp_path / "log.txt").read_text() == "epoch: 1 - train loss: 3\n"


def test_the_history_has_a_line_an_epoch_though_one_was_trained_twice(tmp_path):
    path = tmp_path / "history.jsonl"
    for epoch, loss in ((1, 4.0), (2, 3.0), (2, 2.0)):
        log_epoch(path, epoch, {"loss": loss, "seconds": 1.0}, {"loss": loss})
    assert path.read_text() == (
        '{"epoch": 1, "train_loss": 4.0, "valid_loss": 4.0, "seconds": 1.0}\n'
        '{"epoch": 2, "train_loss": 2.0, "valid_loss": 2.0, "seconds": 1.0}\n'
    )
