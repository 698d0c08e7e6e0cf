"""Runs of a recipe in processes of their own, which are killed where a test says; torch is imported once for all."""

from __future__ import annotations

import builtins
import multiprocessing
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tones import lines_of

from es4r_toolkit.brain import ES4RBrain
from es4r_toolkit.checkpointing import WholeCheckpointer
from es4r_toolkit.pipeline import EmpathyPipeline
from es4r_toolkit.training import run_recipe

# The server imports what takes long before it forks; it does not find this folder.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [f"es4r_toolkit.{name}" for name in ("training", "backends.whisper", "backends.causal_lm", "backends.building")]
)
PATIENCE = 300.0  # seconds, on a busy machine

# What is called to change the disk while a checkpoint is written and an old one goes.
WRITES = [
    (builtins, "open"),
    (torch, "save"),
    (os, "fsync"),
    (os, "rename"),
    (os, "replace"),
    (os, "unlink"),
    (os, "rmdir"),
    (os, "mkdir"),
    (Path, "touch"),
    (Path, "write_text"),
]


@dataclass(frozen=True)
class Fault:
    """Where a process kills itself.

    Attributes
    ----------
    step : int or None
        Before this batch, counted from 1 and from the start of the process.
    save, call : int
        Or: in the save of a checkpoint of this number, before the call of this number that changes the disk.
    process : int
        Which of several.
    """

    step: int | None = None
    save: int = 0
    call: int = 0
    process: int = 0

    def plant(self) -> None:
        """Make this process kill itself."""
        if self.step is not None:
            _before(ES4RBrain, "fit_batch", _killer(self.step))
            return
        saves, kill = [], _killer(self.call)

        def begin() -> None:
            saves.append(1)
            if len(saves) == self.save:
                for holder, name in WRITES:
                    _before(holder, name, kill)

        _before(WholeCheckpointer, "save_and_keep_only", begin)


@dataclass
class Run:
    """One start of a recipe, in one or more processes."""

    processes: list[Any]

    def codes(self, timeout: float = PATIENCE) -> list[int | None]:
        """Exit codes, minus the signal of those that were killed; None of those that hang, which are killed now."""
        end = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
        found = [process.exitcode for process in self.processes]
        self.kill()
        return found

    def kill(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            if process.is_alive():
                process.kill()
                process.join()


def start(
    argv: Sequence[str],
    output: Path,
    fault: Fault | None = None,
    processes: int = 1,
    prepare: Callable[[], None] | None = None,
) -> Run:
    """Start a recipe; what it prints goes to ``<output>.<process>.txt``.

    Arguments
    ---------
    argv : sequence of str
        What run_recipe takes.
    output : Path
    fault : Fault, optional
    processes : int
        With more than one, each gets what torchrun gives it.
    prepare : callable, optional
        A function of a module, called in each process first.
    """
    started, port = [], _free_port()
    for place in range(processes):
        environment = {"ES4R_TEST_OUTPUT": output}
        if processes > 1:
            environment |= {"RANK": place, "LOCAL_RANK": place, "WORLD_SIZE": processes}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        own = fault if fault is not None and fault.process == place else None
        printed = output.with_name(f"{output.name}.{place}.txt")
        arguments = (list(argv), {key: str(value) for key, value in environment.items()}, printed, own, prepare)
        started.append(FORKS.Process(target=_train, args=arguments))
        started[-1].start()
    return Run(started)


def results(output: Path) -> dict[str, Any]:
    """All that a run leaves but times: final weights, and what its files say."""
    history = [{**line, "seconds": None} for line in lines_of(output / "history.jsonl")]
    log = re.sub(r"(train seconds): [^ ,]+", r"\1: ...", (output / "train_log.txt").read_text())
    files = {name: (output / name).read_text() for name in ("predictions.jsonl", "scores.json", "model/model.yaml")}
    return {"weights": weights_of(output), "history": history, "train_log.txt": log, **files}


def weights_of(output: Path) -> dict[str, torch.Tensor]:
    """Of the model that a run wrote."""
    return load_file(output / "model" / "trained.safetensors")


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Names of what is not the same to the last bit."""
    theirs = second["weights"]
    odd = [name for name, weight in first["weights"].items() if not torch.equal(weight, theirs[name])]
    return odd + [name for name in first if name != "weights" and first[name] != second[name]]


def comparable() -> None:
    """Leave out what makes runs on the same data differ by more than rounding where their batches are shared out.

    Dropout draws other numbers for other parts of a batch. AdamW makes a
    whole step of a gradient that is zero but for rounding, as that of a bias
    before a normalization is, unless its eps is far above rounding.
    """
    torch.nn.Dropout.forward = lambda self, values: values
    as_always = torch.optim.AdamW.__init__

    def begin(self: torch.optim.AdamW, *arguments: Any, **options: Any) -> None:
        as_always(self, *arguments, **{**options, "eps": 1e-3})

    torch.optim.AdamW.__init__ = begin


def comparable_with_an_unused_module() -> None:
    """The same, with trainable weights in the pipeline that nothing runs through."""
    comparable()
    as_always = EmpathyPipeline.__init__

    def begin(self: EmpathyPipeline, *arguments: Any, **options: Any) -> None:
        as_always(self, *arguments, **options)
        self.unused = torch.nn.Linear(2, 2)

    EmpathyPipeline.__init__ = begin


def refuse_to_write() -> None:
    """End every process but the first where it changes anything in the folder of a run."""
    comparable_with_an_unused_module()
    if os.environ["RANK"] == "0":
        return

    def watch(event: str, arguments: tuple) -> None:
        if event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
            return
        path = str(arguments[0])
        reads = event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        is_there = event == "os.mkdir" and os.path.isdir(path)
        if path.startswith(os.environ["ES4R_TEST_OUTPUT"]) and not reads and not is_there:
            os.write(2, f"wrote {arguments[0]}\n".encode())
            os._exit(77)

    sys.addaudithook(watch)


def _train(
    argv: list[str], environment: dict[str, str], printed: Path, fault: Fault | None, prepare: Callable | None
) -> None:
    os.environ.update(environment)
    # Loaders start as they do without this server.
    multiprocessing.set_start_method("fork", force=True)
    with printed.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    # More threads round otherwise, and training spreads that.
    torch.set_num_threads(1)
    if fault is not None:
        fault.plant()
    if prepare is not None:
        prepare()
    run_recipe(argv)


def _killer(number: int) -> Callable[[], None]:
    calls = []

    def count() -> None:
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return count


def _before(holder: Any, name: str, do: Callable[[], None]) -> None:
    original = getattr(holder, name)

    @wraps(original)
    def call(*arguments: Any, **options: Any) -> Any:
        do()
        return original(*arguments, **options)

    setattr(holder, name, call)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
