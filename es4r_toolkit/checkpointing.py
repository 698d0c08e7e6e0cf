"""Checkpoints that are whole or not there, and all that a run needs to go on exactly where it was killed."""

from __future__ import annotations

import json
import logging
import math
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from safetensors import SafetensorError
from speechbrain.utils.checkpoints import (
    Checkpoint,
    Checkpointer,
    ckpt_recency,
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import ddp_barrier, if_main_process, main_process_only, run_on_main

from es4r_toolkit.data.order import SharedBatches
from es4r_toolkit.data.records import read_lines
from es4r_toolkit.data.responses import write_text
from es4r_toolkit.errors import ConfigError, ES4RError
from es4r_toolkit.processes import place
from es4r_toolkit.unheard import unheard

# It is for its logger of pictures, which nothing here uses.
with unheard("speechbrain.utils.train_logger", "torchvision is not available"):
    from speechbrain.utils.train_logger import FileTrainLogger, TrainLogger

logger = logging.getLogger(__name__)

WHOLE = "WHOLE"
# Of a folder that is being written or deleted; SpeechBrain takes what begins with CKPT for a checkpoint.
PARTIAL = "PARTIAL+"
# What torch says where the disk takes no more of what it writes; it loses the system's own message.
TORCH_WRITER = ("inline_container", "iostream")
# What a checkpoint may hold or lack without harm: these follow from options that may change between runs.
FREE_TO_CHANGE = {"scaler", "random_state", "random_states", "progress", "skipped_batches", "dataloader-TRAIN"}
MB = 1e6


class WholeCheckpointer(Checkpointer):
    """Checkpoints that are complete or invisible, whenever a process is killed.

    SpeechBrain writes the file that makes a folder a checkpoint first. Here a
    folder is written beside, reaches the disk, and then gets its name; one
    that is to go loses its name first. What a kill left is removed at the
    next start. Takes the arguments of SpeechBrain's Checkpointer.
    """

    def __init__(self, checkpoints_dir: str | Path, *arguments: Any, **options: Any):
        run_on_main(Path(checkpoints_dir).mkdir, kwargs={"parents": True, "exist_ok": True})
        super().__init__(checkpoints_dir, *arguments, **options)
        if if_main_process():
            for left in self.checkpoints_dir.glob(f"{PARTIAL}*"):
                logger.info("removed %s, which a killed run left", left)
                shutil.rmtree(left)
            for path in self._list_checkpoint_dirs():
                if not (path / WHOLE).is_file():
                    logger.warning("%s is passed over: it is not whole", path)
        ddp_barrier()

    def list_checkpoints(self) -> list[Checkpoint]:
        """Those that are whole."""
        return [checkpoint for checkpoint in super().list_checkpoints() if (checkpoint.path / WHOLE).is_file()]

    def save_checkpoint(
        self,
        meta: Mapping = MappingProxyType({}),
        end_of_epoch: bool = True,
        name: str | None = None,
        verbosity: int = logging.INFO,
    ) -> Checkpoint:
        """Save a checkpoint as SpeechBrain's does; those before it stay until it is whole.

        Raises
        ------
        ES4RError
            If the disk takes no more. What was written of it is removed.
        """
        for one in self.recoverables.values():
            if isinstance(one, RandomStates):
                one.gather()
        return main_process_only(self._save)(meta, end_of_epoch, name, verbosity)

    def delete_checkpoints(
        self,
        *,
        num_to_keep: int = 1,
        min_keys: Sequence[str] | None = None,
        max_keys: Sequence[str] | None = None,
        importance_keys: Iterable[Callable[[Checkpoint], Any]] = (ckpt_recency,),
        ckpt_predicate: Callable[[Checkpoint], bool] | None = None,
        verbosity: int = logging.INFO,
    ) -> None:
        """Delete all but the first few by each key, as SpeechBrain's does."""
        keys = [{"min_key": key} for key in min_keys or ()] + [{"max_key": key} for key in max_keys or ()]
        keys += [{"importance_key": key} for key in importance_keys]
        found, kept = set(), set()
        for key in keys:
            ranked = self.find_checkpoints(**key, ckpt_predicate=ckpt_predicate)
            found.update(ranked)
            kept.update(ranked[:num_to_keep])
        ddp_barrier()
        if if_main_process():
            for checkpoint in found - kept:
                self._remove(checkpoint.path)
                logger.log(verbosity, "deleted %s", checkpoint.path)
        ddp_barrier()

    def load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Take up a checkpoint.

        Raises
        ------
        ConfigError
            If it is of a run that trained something else.
        """
        odd = sorted((set(checkpoint.paramfiles) ^ set(self.recoverables)) - FREE_TO_CHANGE)
        if odd:
            has, has_not = ("holds", "trains none") if odd[0] in checkpoint.paramfiles else ("holds no", "trains one")
            problem = f"{has} {odd[0]}, and this run {has_not}"
            raise ConfigError(checkpoint.path, problem, "set losses as they were, or give another output_folder")
        try:
            super().load_checkpoint(checkpoint)
        except (RuntimeError, ValueError, KeyError, EOFError) as fault:
            reason = " ".join(str(fault).split())[:200]
            mend = "resume with the settings it was written with, or remove it to go on from the one before"
            raise ConfigError(checkpoint.path, f"cannot be taken up ({reason})", mend) from fault
        progress = self.recoverables.get("progress")
        if progress is not None and "progress" not in checkpoint.paramfiles:
            # Of an earlier version, which counted otherwise.
            progress.begin_anew()

    def _save(self, meta: Mapping, end_of_epoch: bool, name: str | None, verbosity: int) -> Checkpoint:
        newest = self.find_checkpoint()
        if newest is not None:
            # The newest is found by its time, and the clocks of two machines may differ.
            meta = {**meta, "unixtime": max(time.time(), newest.meta["unixtime"] + 1e-3)}
        try:
            # The name that SpeechBrain would log is not the one that stays.
            saved = self._publish(super().save_checkpoint(meta, end_of_epoch, name, logging.DEBUG))
        except (OSError, SafetensorError, RuntimeError) as fault:
            if isinstance(fault, RuntimeError) and not any(word in str(fault) for word in TORCH_WRITER):
                raise
            raise self._unwritten(fault) from fault
        logger.log(verbosity, "saved %s", saved.path)
        return saved

    def _new_checkpoint_dirpath(self) -> Path:
        path = super()._new_checkpoint_dirpath()
        return path.with_name(PARTIAL + path.name)

    def _custom_checkpoint_dirpath(self, name: str) -> Path:
        path = super()._custom_checkpoint_dirpath(name)
        return path.with_name(PARTIAL + path.name)

    def _publish(self, saved: Checkpoint) -> Checkpoint:
        """Give a folder that is written its name, once all of it is on the disk."""
        (saved.path / WHOLE).touch()
        for written in [*saved.path.iterdir(), saved.path]:
            settle(written)
        path = saved.path.with_name(saved.path.name.removeprefix(PARTIAL))
        if path.exists():
            self._remove(path)
        saved.path.rename(path)
        settle(path.parent)
        return Checkpoint(path, saved.meta, {name: path / file.name for name, file in saved.paramfiles.items()})

    def _remove(self, path: Path) -> None:
        doomed = path.rename(path.with_name(PARTIAL + path.name))
        shutil.rmtree(doomed)

    def _unwritten(self, fault: Exception) -> ES4RError:
        """What to tell where a checkpoint could not be written; its pieces make room for the log."""
        pieces = list(self.checkpoints_dir.glob(f"{PARTIAL}*"))
        # A writer that failed may hold its file for as long as its exception lives, and with it the room.
        written = sum(file.stat().st_size for piece in pieces for file in piece.iterdir())
        needed, free = self._size(), shutil.disk_usage(self.checkpoints_dir).free + written
        for piece in pieces:
            shutil.rmtree(piece, ignore_errors=True)
        reason = "torch's writer failed" if isinstance(fault, RuntimeError) else " ".join(str(fault).split())[:120]
        problem = f"a checkpoint of {needed / MB:.1f} MB could not be written ({reason}), {free / MB:.1f} MB were free"
        left = self.find_checkpoint()
        state = "there is none before it" if left is None else f"{left.path.name} is whole"
        return ES4RError(self.checkpoints_dir, f"{problem}; {state}", "make room, and start the same command again")

    def _size(self) -> int:
        """Bytes of the weights and of the optimizer's state, which is nearly all that a checkpoint holds."""
        tensors: list[torch.Tensor] = []
        for one in self.recoverables.values():
            if hasattr(one, "trained_state"):
                tensors += one.trained_state().values()
            elif isinstance(one, torch.nn.Module):
                tensors += one.state_dict().values()
            elif isinstance(one, torch.optim.Optimizer):
                tensors += [value for state in one.state.values() for value in state.values() if torch.is_tensor(value)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@register_checkpoint_hooks
class RandomStates:
    """The random numbers of every process, of torch, Python and numpy, so that all that draws goes on where it was.

    Where more processes go on than there were, the new ones keep the numbers they were started with.
    """

    def __init__(self) -> None:
        self.states: list[dict[str, Any]] = []

    def gather(self) -> None:
        """Tell the first process, which alone writes; all of them must ask."""
        _, processes = place()
        self.states = [_random_state()]
        if processes > 1:
            self.states *= processes
            torch.distributed.all_gather_object(self.states, self.states[0])

    @mark_as_saver
    def save(self, path: Path) -> None:
        """Keep the states that were gathered, the GPU's in use among them."""
        torch.save(self.states, path)

    @mark_as_loader
    def load(self, path: Path, end_of_epoch: bool) -> None:
        """Take this process's up again."""
        states, (own, _) = torch.load(path, weights_only=True, map_location="cpu"), place()
        if own >= len(states):
            logger.info("process %d is new here: its random numbers begin with its seed", own)
            return
        state = states[own]
        torch.set_rng_state(state["torch"])
        if state["cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])
        random.setstate(state["python"])
        kind, keys, *rest = state["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))


@register_checkpoint_hooks
class Progress:
    """How far an epoch is: what of its order is done, and what was counted on the way.

    Arguments
    ---------
    brain : Brain
        With ``train_sampler``, ``sums``, ``batches``, ``started``, and ``so_far``, which its next epoch begins with.
    batches : SharedBatches
    steps : int
        Optimizer steps that the schedule plans for an epoch.
    """

    def __init__(self, brain: sb.Brain, batches: SharedBatches, steps: int):
        self.brain, self.batches, self.steps = brain, batches, steps

    @mark_as_saver
    def save(self, path: Path) -> None:
        """Keep it; all processes have the same."""
        progress = {
            "epoch": self.batches.epoch,
            "done": self.batches.done(self.brain.step),
            "order": self.batches.fingerprint,
            "steps": self.steps,
            "sums": self.brain.sums,
            "batches": self.brain.batches,
            "seconds": time.perf_counter() - self.brain.started,
        }
        path.write_text(json.dumps(progress))

    @mark_as_loader
    def load(self, path: Path, end_of_epoch: bool) -> None:
        """Take it up, be it with another number of processes or dialogues a batch."""
        kept = json.loads(path.read_text())
        if kept["steps"] != self.steps:
            then = self.brain.optimizer_step
            self.brain.optimizer_step = round(then * self.steps / kept["steps"])
            logger.info("an epoch has %d steps, and had %d: the schedule goes on there", self.steps, kept["steps"])
        if end_of_epoch:
            return
        self.brain.step = self.batches.resume(kept["epoch"], kept["done"])
        if self.batches.fingerprint == kept["order"]:
            self.brain.so_far = kept
            return
        logger.warning("the training set or its batches are others than they were: epoch %d begins anew", kept["epoch"])
        self.batches.resume(kept["epoch"], 0)
        self.begin_anew()

    def begin_anew(self) -> None:
        """Go to the beginning of the epoch."""
        self.brain.step, self.brain.avg_train_loss = 0, 0.0


def log_epoch(path: Path, epoch: int, train: Mapping[str, float], valid: Mapping[str, float]) -> None:
    """Write one line an epoch for plots; an epoch that is trained again after a kill has its line replaced."""
    lines = read_lines(path) if path.is_file() else []
    trained = {f"train_{name}": value for name, value in train.items() if name != "seconds"}
    validated = {"valid_loss" if name == "loss" else name: value for name, value in valid.items()}
    lines = [line for line in lines if line["epoch"] < epoch]
    lines.append({"epoch": epoch, **trained, **validated, "seconds": train["seconds"]})
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines), sync=True)


def begin_log_anew(train_logger: TrainLogger, **first: int) -> None:
    """Drop the lines of a text log that are about epochs from the first on, which a killed run wrote before.

    Arguments
    ---------
    train_logger : TrainLogger
        Others than SpeechBrain's FileTrainLogger keep what they have.
    **first : int
        By what lines begin with, ``epoch`` and ``epoch_loaded``.
    """
    if not isinstance(train_logger, FileTrainLogger) or not if_main_process():
        return
    path, kept = Path(train_logger.save_file), []
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        found = re.match(r"(\w+): (\d+)\b", line)
        is_old = found is None or int(found[2]) < first.get(found[1], math.inf)
        # A kill may have cut the last one short.
        if is_old and line.endswith("\n"):
            kept.append(line)
    write_text(path, "".join(kept), sync=True)


def settle(path: Path) -> None:
    """Wait until a file, or what a folder lists, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _random_state() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
    }
